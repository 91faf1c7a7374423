"""Chains of drivers that are killed one after the other, and what must hold when the last one is through."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from schemas.spec import AgentSpec, load_spec
from streaming.audit.audit_check import check_audit
from streaming.audit.audit_log import AuditPlaces
from streaming.audit.audit_reading import newest_events
from streaming.batch.deciders import in_share
from streaming.batch.steps import BatchStep
from streaming.history.reconcile import reconcile
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.topic import committed_messages
from streaming.kafka.topic_admin import ensure_topic
from streaming.testing.drivers import Drivers, wait_until
from streaming.testing.killable_driver import MID_PUBLISH
from streaming.testing.streams import Stream, folded_patterns, folded_scores, labels_by_row, stored
from tests.registry_rows import activate, entry, put

AGENT = "tester"
HOUR = timedelta(hours=1)
# Where drivers die one after the other: in a batch of their own, or in the repair of what the last one left.
LIVE, REPAIR = True, False
CHAINS = {
    "at every step": [
        *((step.value, LIVE) for step in BatchStep if step is not BatchStep.PUBLISH),
        (MID_PUBLISH, LIVE),
        (BatchStep.PUBLISH.value, LIVE),
    ],
    "in repairs": [
        (BatchStep.STORE.value, LIVE),
        (BatchStep.SCORE.value, REPAIR),
        (BatchStep.ALERT.value, REPAIR),
        (MID_PUBLISH, REPAIR),
    ],
}
_TIMES = {"within": "1m", "lateness": "30s"}
_SAID = {"severity": "medium", "reason": "because"}
RULES = [
    {"name": "large", "when": "amount > 400", **_SAID},
    {
        "name": "twice",
        "sequence": {"entity": "customer", "first": "amount > 35", "then": "amount > 40", **_TIMES},
        **_SAID,
    },
    {
        "name": "silent",
        "absence": {"entity": "customer", "after": "amount > 40", "expected": "amount < 15", **_TIMES},
        **_SAID,
    },
]


@contextmanager
def connected_consumer(bootstrap: str, topic: str) -> Iterator[list[tuple[str, int]]]:
    """A read_committed consumer that stays connected; yields the list it appends alert keys to."""
    seen: list[tuple[str, int]] = []
    done = threading.Event()

    def consume() -> None:
        for message in committed_messages(bootstrap, topic, follow=True, stop=done.is_set):
            alert = json.loads(message.value() or b"")
            seen.append((alert["alert_id"], alert["revision"]))

    thread = threading.Thread(target=consume)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def assert_audited_once(settings: Settings, spec: AgentSpec) -> None:
    """Every batch is in the audit log once, with what it came to, and the log is sound."""
    places = AuditPlaces(PlacedAgent(settings, spec))
    report = check_audit(places)
    assert report.sound, report
    assert report.last == report.anchored == report.rows - 1
    batches = stored(settings.lake(AGENT), "batches", "batch_id").to_pylist()
    told = newest_events(places, "batch_decided", 1_000)
    assert sorted(
        (row["detail"]["query_id"], row["detail"]["batch_id"], row["detail"]["alerts"]) for row in told
    ) == sorted((batch["query_id"], batch["batch_id"], batch["alerts"]) for batch in batches)


def with_canary(settings: Settings, spec: AgentSpec, percent: float) -> AgentSpec:
    """Register a spec as active, and one of another threshold in canary; returns the latter."""
    promotion = {"promotion": spec.promotion.model_copy(update={"canary_percent": percent})}
    canary = spec.model_copy(update={"version": "1.1.0", "threshold": 0.95})
    activate(settings, spec.model_copy(update=promotion))
    put(settings, entry(canary, "canary", "promoted"))
    return canary


@dataclass(frozen=True)
class Survived:
    """What a chain of drivers has come to.

    Attributes:
        settings: of the driver that has finished.
        spec: the agent's.
        canary: that decides a share of the entities, the agent's own where there is none.
        stream: what was sent.
        alerts: the table, in outbox order.
        seen: keys of the alerts that a consumer has seen which was connected all along.
    """

    settings: Settings
    spec: AgentSpec
    canary: AgentSpec
    stream: Stream
    alerts: pa.Table
    seen: list[tuple[str, int]]


def survive(
    chain: Sequence[tuple[str, bool]],
    machine: Callable[[int], tuple[Settings, Drivers]],
    spec_file: Path,
    bootstrap: str,
    *,
    percent: float = 0,
    **order: object,
) -> Survived:
    """Have one driver after the other killed at its place, and the last one finish.

    Args:
        chain: places, and whether they are in a batch of the driver's own.
        machine: gives settings and drivers of each link of the chain and, last, of who finishes.
        percent: of the entities that a canary decides.
        order: further keys of the drivers' orders.
    """
    spec = load_spec(spec_file)
    sources, alerts = spec.data_sources, spec.alerts.topic
    events, labels = sources.transactions.topic, sources.labels.topic
    assert labels is not None
    canary = with_canary(machine(0)[0], spec, percent) if percent else spec
    for name, partitions in ((events, 2), (alerts, 1), (labels, 1)):
        ensure_topic(bootstrap, name, partitions)
    stream = Stream(bootstrap, events)
    with connected_consumer(bootstrap, alerts) as seen:
        for number, (place, live) in enumerate(chain):
            drivers = machine(number)[1]
            stream.send(300)
            stream.judge(labels, 100)
            killed = drivers.run(spec_file, place, live=live, **order)
            assert killed == -signal.SIGKILL, (place, drivers.outputs[-1])
        settings, drivers = machine(len(chain))
        stream.send(300)
        assert drivers.run(spec_file, **order) == 0, drivers.outputs[-1]
        table = stored(settings.lake(AGENT), "alerts", "outbox_seq")
        wait_until(lambda: len(seen) >= table.num_rows, 30, "the consumer to see every alert")
    return Survived(settings, spec, canary, stream, table, seen)


def assert_nothing_lost_or_doubled(survived: Survived, bootstrap: str, percent: float = 0) -> None:
    """Everything that was sent is stored, scored, alerted and audited once, as it is when nobody dies."""
    settings, spec, canary = survived.settings, survived.spec, survived.canary
    stream, table, seen = survived.stream, survived.alerts, survived.seen
    transactions = stored(settings.lake(AGENT), "transactions", "sequence")
    assert Counter(transactions["transaction_id"].to_pylist()) == Counter(stream.sent_ids)
    assert transactions["sequence"].to_pylist() == list(range(len(stream.sent_ids)))
    assert stored(settings.lake(AGENT), "quarantine", "offset").num_rows == stream.malformed
    assert stored(settings.lake(AGENT), "duplicates", "offset").num_rows == stream.redelivered

    keys = list(zip(table["alert_id"].to_pylist(), table["revision"].to_pylist(), strict=True))
    assert len(set(keys)) == len(keys) > 20
    assert table["outbox_seq"].to_pylist() == list(range(len(keys)))
    assert seen == keys, "each alert once and in outbox order, for a consumer connected all along"

    labels = labels_by_row(PlacedAgent(settings, spec))
    assert labels.num_rows >= 50, "labels took part"
    folded = folded_scores(spec, transactions, settings.lake(AGENT))
    inside = {row["transaction_id"] for row in transactions.select(["transaction_id", "customer"]).to_pylist()
              if in_share(row["customer"], percent)}  # fmt: skip
    by_canary = folded_scores(canary, transactions, settings.lake(AGENT)).items()
    folded = {name: score for name, score in folded.items() if name not in inside}
    folded |= {name: score for name, score in by_canary if name in inside}
    at_once = table.filter(pc.is_null(table["passed_by"]))
    scores = zip(at_once["score"].to_pylist(), at_once["log_odds"].to_pylist(), strict=True)
    assert dict(zip(at_once["transaction_id"].to_pylist(), scores, strict=True)) == folded
    (missed,) = folded_patterns(spec, transactions).missed
    absences = table.filter(pc.is_valid(table["passed_by"]))
    found_absences = zip(
        absences["transaction_id"].to_pylist(), absences["passed_by"].to_pylist(), strict=True
    )
    wanted = zip(missed.rows["transaction_id"].to_pylist(), missed.passed_by.tolist(), strict=True)
    assert sorted(found_absences) == sorted(wanted)
    owners = zip(table["transaction_id"].to_pylist(), table["spec_version"].to_pylist(), strict=True)
    assert all(version == (canary if name in inside else spec).version for name, version in owners)
    assert (inside & set(table["transaction_id"].to_pylist()) != set()) is bool(percent)
    assert absences.num_rows > 10, "absences took part"
    found = reconcile(PlacedAgent(settings, spec), bootstrap, HOUR)
    assert found.differences == 0, found
    assert_audited_once(settings, spec)
