"""What an agent has done so far, from its `batches` table and the topic it reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.compute as pc

from agent.model.endpoint_memory import EndpointFacts, EndpointState
from agent.triage.worth import Worth
from schemas.spec import AgentSpec
from streaming.batch.closed_batches import unbalanced
from streaming.batch.late_windows import MARKS, REVISION, deferred
from streaming.batch.moved import COMPUTED_COLUMNS, ComputedOn
from streaming.batch.queries import newest_of_the_stream
from streaming.batch.resuming import records_lost
from streaming.delta.lake_reader import HasLake, LakeReader
from streaming.delta.stored import StoredTable
from streaming.kafka.open_transactions import OpenTransaction
from streaming.labels.agreement import agreement_with_labels
from streaming.profiles.entity_buckets import BucketFacts
from streaming.quarantine.requests import read_requests
from streaming.quarantine.waiting import waiting_by_reason
from streaming.run.input_now import InputNow
from streaming.run.learning import learning_line
from streaming.run.mode_advice import ModeAdvice
from streaming.run.running_agent import RunningAgent
from streaming.service.health import ActiveCondition
from streaming.store.place import Place
from streaming.versions.shadow_status import SideBySide, versions_beside

_TOTALS = (
    "read",
    "stored",
    "quarantined",
    "duplicates",
    "filtered",
    "late",
    "alerts",
    "llm_alerts",
    "degraded",
    "llm_calls",
    "input_tokens",
    "output_tokens",
)
_COLUMNS = ["next_sequence", "closed_at", "read", "stored", "quarantined", "duplicates", "cost_usd"]
_COLUMNS += ["labels_through", "rejected", "lost", "filtered_by_reason", *COMPUTED_COLUMNS]
_LATE_TOTALS = ("given_up", "llm_calls", "input_tokens", "output_tokens", "cost_usd")
_RECENT = timedelta(hours=1)
_NOTHING_LATE = {"pending": 0, "answered": 0, "given_up": 0}


@dataclass(frozen=True)
class Status:
    """Totals over all closed batches, and the newest batch.

    Attributes:
        degraded_share: alerts that fell back to the classification by rules although a model was to be asked.
        balanced: every closed batch has read = stored + quarantined + duplicates + filtered.
        filtered_reasons: records that the contract did not want, by reason.
        quarantine_reasons: records that wait in the quarantine, by the code of their newest rejection.
        rejected_shares: of the records wanted in the hour before the newest batch closed, by reason.
        requests_waiting: requests to take records out of the quarantine that are not taken yet.
        lag: offsets on the topics beyond the last closed batch that may be read, None without a broker.
        lag_by_topic: the same for each topic.
        open_transactions: what keeps further records from being read.
        late: alerts that left before the model was asked: `pending`, `answered` since, `given_up`. Answers
            count in `totals`, too, those given up as degraded.
        labels: labels that the newest transactions knew.
        durations: seconds per step of the newest batch.
        version: of the spec that decided the newest batch.
        beside: versions in shadow or canary beside what was published.
        monitoring: status of the newest batch: `ok`, `alert` or `degraded`.
        problems: what was wrong with its input, None where nothing was.
        lost: records that left the topic unread and were given up, as far as their number was known.
        running: a process runs the agent just now.
        conditions: what that process waits for or suffers from, the longest first.
        agreement: what classifications are worth beside the labels that have come, by who classified.
        endpoints: what the model endpoints that the spec names have shown that they take.
        learning: how many transactions are known of those it takes before a score can raise an alert, None
            where they are enough.
        computed_on: which machine has computed the newest batch, None where that was not noted.
        executors: of a Spark cluster, how many work for that process; None where it works without.
        mode: which mode pays at the load that process sees, None where it has not found that yet.
        buckets: what these executors hold of entities, None where they hold nothing.
    """

    agent: str
    batches: int
    totals: dict[str, int]
    cost_usd: float
    degraded_share: float
    balanced: bool
    quarantine_reasons: dict[str, int]
    lag: int | None
    late: dict[str, int]
    labels: int
    last_closed_at: datetime | None
    durations: dict[str, float]
    pins: dict[str, str]
    version: str = ""
    beside: tuple[SideBySide, ...] = ()
    monitoring: str = ""
    problems: str | None = None
    lost: int = 0
    running: bool = False
    conditions: tuple[ActiveCondition, ...] = ()
    rejected_shares: dict[str, float] = field(default_factory=dict)
    requests_waiting: int = 0
    filtered_reasons: dict[str, int] = field(default_factory=dict)
    agreement: dict[str, Worth] = field(default_factory=dict)
    endpoints: tuple[EndpointFacts, ...] = ()
    lag_by_topic: dict[str, int] = field(default_factory=dict)
    open_transactions: tuple[OpenTransaction, ...] = ()
    learning: str | None = None
    computed_on: ComputedOn | None = None
    executors: int | None = None
    mode: ModeAdvice | None = None
    buckets: BucketFacts | None = None

    def with_health(self, file: Path, lake: Place) -> Status:
        """Return the same with what the running agent says of itself in `file`; see RunningAgent."""
        return replace(self, **vars(RunningAgent.of(file, lake)))

    def with_endpoints(self, states: Iterable[EndpointState]) -> Status:
        """Return the same with what is known of model endpoints."""
        return replace(self, endpoints=tuple(EndpointFacts.of(each) for each in states))

    def to_json(self) -> str:
        """Return the status as one JSON object, times in ISO 8601."""
        return json.dumps(asdict(self), default=lambda moment: moment.isoformat())


def read_status(agent: HasLake, input_now: InputNow | None) -> Status:
    """Sum up an agent's batches.

    Args:
        agent: whose lake it is.
        input_now: how far the topics go, None when the broker is away.
    """
    reader, spec = LakeReader.of(agent), agent.spec
    table, frame = reader.table("batches"), reader.frame("batches", [*dict.fromkeys([*_COLUMNS, *_TOTALS])])
    if table is None or frame.height == 0:
        return _empty(spec, input_now)
    newest = _newest(table, frame)
    pins = json.loads(newest["pins"])
    requests = read_requests(reader.place("requeues"))
    return Status(
        agent=spec.name,
        quarantine_reasons=waiting_by_reason(reader, requests),
        **_behind(table, input_now),
        labels=max(frame["labels_through"].to_list()),
        last_closed_at=newest["closed_at"].astimezone(UTC),
        durations=json.loads(newest["durations"]),
        pins=_short(pins),
        version=pins["spec"]["version"],
        beside=tuple(versions_beside(agent)),
        agreement=agreement_with_labels(reader, spec),
        learning=learning_line(max(frame["next_sequence"].to_list()), spec.rows_to_learn),
        requests_waiting=sum(each.state == "waiting" for each in requests),
        **_summed(frame, reader),
        **_monitored(reader),
    )


def _empty(spec: AgentSpec, input_now: InputNow | None) -> Status:
    totals, behind = dict.fromkeys(_TOTALS, 0), _behind(None, input_now)
    empty = Status(spec.name, 0, totals, 0.0, 0.0, True, {}, None, _NOTHING_LATE, 0, None, {}, {})
    return replace(empty, learning=learning_line(0, spec.rows_to_learn), **behind)


def _summed(batches: pl.DataFrame, reader: LakeReader) -> dict[str, Any]:
    """Return what follows from all batches together and from the answers that came late."""
    late, took = _late(reader)
    totals = {name: int(batches[name].sum()) + int(took.get(name, 0)) for name in _TOTALS}
    return {
        "batches": batches.height,
        "totals": totals,
        "late": late,
        "cost_usd": float(batches["cost_usd"].sum()) + took["cost_usd"],
        "degraded_share": totals["degraded"] / max(totals["alerts"], 1),
        "balanced": not unbalanced(batches),
        "rejected_shares": _rejected_shares(batches),
        "filtered_reasons": dict(_by_reason(batches["filtered_by_reason"]).most_common()),
        "lost": records_lost(batches["lost"]),
        "computed_on": ComputedOn.of(batches),
    }


def _late(reader: LakeReader) -> tuple[dict[str, int], dict[str, float]]:
    """Return how deferred alerts stand, and what late answers add to the totals."""
    alerts = reader.rows("alerts", ["alert_id", *MARKS])
    rounds = reader.rows("late", _LATE_TOTALS)
    answered = int(pc.sum(pc.equal(alerts["revision"], REVISION)).as_py() or 0)
    took = {name: pc.sum(rounds[name]).as_py() or 0 for name in _LATE_TOTALS}
    given_up = int(took.pop("given_up"))
    pending = deferred(alerts).num_rows - answered - given_up
    counts = {"pending": pending, "answered": answered, "given_up": given_up}
    return counts, {**took, "llm_alerts": answered, "degraded": given_up}


def _monitored(reader: LakeReader) -> dict[str, Any]:
    """Return what the newest row of `monitoring` says; a lake from before it noted problems has none."""
    table = reader.table("monitoring")
    newest = None if table is None else table.maximum("at")
    if table is None or newest is None:
        return {}
    row = table.read("at", newest).to_pylist()[-1]
    return {"monitoring": row["status"], "problems": row.get("problems")}


def _rejected_shares(batches: pl.DataFrame) -> dict[str, float]:
    """Batches of an older version did not note their reasons."""
    closed = batches["closed_at"]
    recent = batches.filter(closed > closed.max() - _RECENT)  # type: ignore[operator]  # a time column
    recent = recent.filter(pl.col("rejected").is_not_null())
    wanted = max(int(recent["read"].sum()) - int(recent["filtered"].sum()), 1)
    counts = _by_reason(recent["rejected"])
    return {reason: round(count / wanted, 6) for reason, count in counts.most_common()}


def _by_reason(counts: pl.Series) -> Counter[str]:
    """Add up what batches have counted by reason."""
    found = Counter[str]()
    for row in counts.drop_nulls():
        found.update(json.loads(row))
    return found


def _newest(batches: StoredTable, frame: pl.DataFrame) -> dict[str, Any]:
    """Return the row of the batch closed last, of which alone more is read than counts."""
    last = frame.sort("closed_at", "next_sequence").row(-1, named=True)
    place, columns = last["next_sequence"], ["closed_at", "pins", "durations"]
    rows = batches.read("next_sequence", place, place + 1, columns).sort_by("closed_at")
    return dict(rows.to_pylist()[-1])


def _behind(batches: StoredTable | None, input_now: InputNow | None) -> dict[str, Any]:
    """Return how far the stream is behind its topics, in all and by topic, and what holds it up."""
    if input_now is None:
        return {"lag": None}
    streamed = {} if batches is None else newest_of_the_stream(batches)
    done: dict[str, dict[str, int]] = json.loads(streamed["offsets"]) if streamed else {}
    by_topic = {
        topic: sum(high - done.get(topic, {}).get(each, low) for each, (low, high) in within.items())
        for topic, within in input_now.bounds.items()
    }
    return {
        "lag": sum(by_topic.values()),
        "lag_by_topic": by_topic,
        "open_transactions": input_now.open_transactions,
    }


def _short(pins: dict[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in pins.items() if name != "spec"}
