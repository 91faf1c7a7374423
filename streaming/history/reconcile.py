"""Compares what was read, what is stored, and what a consumer of the alerts topic can see."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta

import polars as pl

from schemas.spec import AgentSpec
from streaming.batch.alerts_lane import lanes_of, unseen
from streaming.batch.closed_batches import unbalanced
from streaming.batch.queries import requeue
from streaming.batch.resuming import records_lost
from streaming.delta.lake_reader import HasLake, LakeReader
from streaming.kafka.outbox_record import AGENT_HEADER, REPLAY_HEADER
from streaming.kafka.topic import committed_messages, headers_of, topic_exists

AlertKey = tuple[str, int]
_COUNTS = ["read", "stored", "quarantined", "duplicates", "filtered"]


@dataclass(frozen=True)
class Reconciliation:
    """Counts and differences; all of `missing`, `doubled`, `unknown` and `unbalanced` must be 0.

    Attributes:
        read: records read by closed batches, but for those taken out of the quarantine.
        requeued: records taken out of the quarantine.
        transactions: rows in `transactions`.
        quarantined: rows in `quarantine`.
        duplicates: rows in `duplicates`.
        unbalanced_batches: closed batches where read ≠ stored + quarantined + duplicates + filtered.
        uncounted_rows: difference between the tables' rows and the sums in `batches`.
        sequence_faults: gaps or repetitions in `sequence`.
        repeated_transactions: transaction ids stored twice within the duplicate horizon.
        repeated_beyond_horizon: those stored again after more than it; no difference, as they count as new.
        requeued_twice: records taken out of the quarantine whose place on the topic is stored more than once.
        alerts_in_delta: rows in `alerts`.
        alerts_on_kafka: committed messages on the alerts topic, but for those of other agents.
        missing_on_kafka: alerts in Delta that no consumer can see, but for those that left on a topic of
            before that is no longer there.
        doubled_on_kafka: messages beyond the first for one alert and revision.
        unknown_on_kafka: messages without an alert in Delta.
        doubled_in_delta: rows beyond the first for one alert and revision.
        lost: records that left the topic unread and were given up; no difference, as somebody has said so.
        filtered: records that the contract did not want.
    """

    read: int
    requeued: int
    transactions: int
    quarantined: int
    duplicates: int
    unbalanced_batches: int
    uncounted_rows: int
    sequence_faults: int
    repeated_transactions: int
    requeued_twice: int
    alerts_in_delta: int
    alerts_on_kafka: int
    missing_on_kafka: int
    doubled_on_kafka: int
    unknown_on_kafka: int
    doubled_in_delta: int
    lost: int = 0
    filtered: int = 0
    repeated_beyond_horizon: int = 0

    @property
    def differences(self) -> int:
        """Number of records that do not agree."""
        return (
            self.unbalanced_batches
            + self.uncounted_rows
            + self.sequence_faults
            + self.repeated_transactions
            + self.requeued_twice
            + self.missing_on_kafka
            + self.doubled_on_kafka
            + self.unknown_on_kafka
            + self.doubled_in_delta
        )

    def to_json(self) -> str:
        """Return the figures and the number of differences as one JSON object."""
        return json.dumps({**asdict(self), "differences": self.differences})


def reconcile(agent: HasLake, bootstrap: str, horizon: timedelta) -> Reconciliation:
    """Compare the lake with itself and with the alerts topic.

    Args:
        agent: whose lake it is.
        horizon: the contract's duplicate horizon.

    Raises:
        RetryableError: the broker does not answer.
    """
    reader = LakeReader.of(agent)
    batches = reader.frame("batches", ["query_id", "lost", *_COUNTS])
    transactions = reader.frame("transactions", ["sequence", "transaction_id", "kafka_timestamp"])
    requeued = int(batches.filter(requeue(pl.col("query_id")))["read"].sum())
    return Reconciliation(
        requeued=requeued,
        sequence_faults=_sequence_faults(transactions["sequence"], reader.removed("transactions")[1]),
        **_repeated(transactions, horizon),
        requeued_twice=_stored_twice(reader) if requeued else 0,
        lost=records_lost(batches["lost"]),
        **_counted(reader, batches, transactions.height, requeued),
        **_published(reader, agent.spec, bootstrap),
    )


def _counted(reader: LakeReader, batches: pl.DataFrame, transactions: int, requeued: int) -> dict[str, int]:
    """Compare what the batches say they read and stored with the rows that there are."""
    sums = {name: int(batches[name].sum()) for name in _COUNTS}
    held = {
        "stored": transactions + reader.removed("transactions")[0],
        "quarantined": reader.count("quarantine") + reader.removed("quarantine")[0],
        "duplicates": reader.count("duplicates") + reader.removed("duplicates")[0],
    }
    return {
        "read": sums["read"] - requeued,
        "transactions": transactions,
        "quarantined": held["quarantined"],
        "duplicates": held["duplicates"],
        "filtered": sums["filtered"],
        "unbalanced_batches": unbalanced(batches),
        "uncounted_rows": sum(abs(rows - sums[name]) for name, rows in held.items()),
    }


def _published(reader: LakeReader, spec: AgentSpec, bootstrap: str) -> dict[str, int]:
    """Compare the alerts in Delta with the messages that consumers can see."""
    lanes = lanes_of(reader, spec.alerts.topic)
    present = {lane.topic for lane in lanes if topic_exists(bootstrap, lane.topic)}
    numbered = list(_numbered(reader))
    stored = Counter(key for key, _ in numbered)
    gone = unseen(lanes, present)
    visible = {key for key, number in numbered if not any(number in each for each in gone)}
    first = reader.removed("alerts")[1]
    keys = (key for topic in sorted(present) for key in _sent_keys(bootstrap, topic, spec.name, first))
    sent = Counter(keys)
    return {
        "alerts_in_delta": stored.total(),
        "alerts_on_kafka": sent.total(),
        "missing_on_kafka": len(visible - sent.keys()),
        "doubled_on_kafka": _beyond_first(sent),
        "unknown_on_kafka": len(sent.keys() - stored.keys()),
        "doubled_in_delta": _beyond_first(stored),
    }


def _numbered(reader: LakeReader) -> Iterator[tuple[AlertKey, int]]:
    rows = reader.frame("alerts", ["alert_id", "revision", "outbox_seq"])
    for alert, revision, number in rows.iter_rows():
        yield (alert, revision), number


def _sent_keys(bootstrap: str, topic: str, agent: str, first: int) -> Iterator[AlertKey]:
    """Keys of this agent's alerts from a number on: several agents may share a topic."""
    for message in committed_messages(bootstrap, topic):
        headers = dict(headers_of(message))
        if headers.get(AGENT_HEADER) not in (None, agent.encode()) or REPLAY_HEADER in headers:
            continue
        alert = json.loads(message.value() or b"{}")
        if int(alert.get("outbox_seq", first)) < first:
            continue
        yield str(alert.get("alert_id")), int(alert.get("revision", 0))


def _sequence_faults(sequence: pl.Series, first: int) -> int:
    """Count gaps and repetitions from the first row on that retention has not removed."""
    sequence = sequence.filter(sequence >= first)
    if sequence.len() == 0:
        return 0
    present = sequence.n_unique()
    gaps = int(sequence.max()) + 1 - first - present  # type: ignore[arg-type]  # integer column
    return gaps + sequence.len() - present


def _repeated(transactions: pl.DataFrame, horizon: timedelta) -> dict[str, int]:
    repeated = transactions.filter(pl.col("transaction_id").is_duplicated()).sort("kafka_timestamp")
    apart = repeated.select(pl.col("kafka_timestamp").diff().over("transaction_id")).to_series().drop_nulls()
    near = int((apart <= horizon).sum())
    return {"repeated_transactions": near, "repeated_beyond_horizon": apart.len() - near}


def _stored_twice(reader: LakeReader) -> int:
    transactions = reader.frame("transactions", ["query_id", "topic", "partition", "offset"])
    places = transactions.filter(requeue(pl.col("query_id"))).drop("query_id").unique()
    return transactions.join(places, on=places.columns, how="semi").height - places.height


def _beyond_first(keys: Counter[AlertKey]) -> int:
    return keys.total() - len(keys)
