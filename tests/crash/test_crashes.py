"""Drivers killed, stopped or reconfigured half-way: nothing lost, nothing doubled, nothing changed."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pyarrow.compute as pc
import pytest

from schemas.errors import FencedError
from schemas.spec import AgentSpec, load_spec
from streaming.audit.audit_check import check_audit, newest_events
from streaming.audit.audit_log import AuditPlaces
from streaming.batch.deciders import in_share
from streaming.batch.late_answers import LateStep
from streaming.batch.steps import BatchStep
from streaming.history.reconcile import reconcile
from streaming.home.settings import Settings
from streaming.kafka.broker import ensure_topic
from streaming.kafka.topic import committed_messages
from streaming.run.status import read_status
from streaming.testing import scripted_llm as scripted
from streaming.testing.drivers import DRIVER_SECONDS, Drivers, wait_until
from streaming.testing.killable_driver import MID_PUBLISH
from streaming.testing.streams import (
    Stream,
    folded_patterns,
    folded_scores,
    labels_by_row,
    published,
    stored,
    versions,
    write_spec,
)
from tests.registry_rows import activate, entry, put

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
pytestmark = pytest.mark.timeout(480)  # a chain of eleven drivers, each with a JVM of its own
AGENT = "tester"
HOUR = timedelta(hours=1)


@pytest.fixture
def drivers(settings: Settings, bootstrap: str) -> Iterator[Drivers]:
    started = Drivers(settings, bootstrap)
    yield started
    started.end()


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
    places = AuditPlaces(settings, spec)
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


@pytest.mark.parametrize(("chain", "percent"), [*zip(CHAINS.values(), (0, 40), strict=True)], ids=CHAINS)
def test_a_chain_of_killed_drivers_loses_and_doubles_nothing(
    chain: list[tuple[str, bool]],
    percent: float,
    drivers: Drivers,
    settings: Settings,
    bootstrap: str,
    topic: Callable[[str], str],
    tmp_path: Path,
) -> None:
    spec_file = write_spec(tmp_path, topic, labels=topic("labels"), rules=RULES)
    spec = load_spec(spec_file)
    canary = with_canary(settings, spec, percent) if percent else spec
    events, alerts = spec.data_sources.transactions.topic, spec.alerts.topic
    ensure_topic(bootstrap, events, 2)
    ensure_topic(bootstrap, alerts, 1)
    ensure_topic(bootstrap, topic("labels"), 1)
    stream = Stream(bootstrap, events)
    with connected_consumer(bootstrap, alerts) as seen:
        for place, live in chain:
            stream.send(300)
            stream.judge(topic("labels"), 100)
            assert drivers.run(spec_file, place, live=live) == -signal.SIGKILL, (place, drivers.outputs[-1])
        stream.send(300)
        assert drivers.run(spec_file) == 0, drivers.outputs[-1]
        table = stored(settings.lake(AGENT), "alerts", "outbox_seq")
        wait_until(lambda: len(seen) >= table.num_rows, 30, "the consumer to see every alert")

    transactions = stored(settings.lake(AGENT), "transactions", "sequence")
    assert Counter(transactions["transaction_id"].to_pylist()) == Counter(stream.sent_ids)
    assert transactions["sequence"].to_pylist() == list(range(len(stream.sent_ids)))
    assert stored(settings.lake(AGENT), "quarantine", "offset").num_rows == stream.malformed
    assert stored(settings.lake(AGENT), "duplicates", "offset").num_rows == stream.redelivered

    keys = list(zip(table["alert_id"].to_pylist(), table["revision"].to_pylist(), strict=True))
    assert len(set(keys)) == len(keys) > 20
    assert table["outbox_seq"].to_pylist() == list(range(len(keys)))
    assert seen == keys, "each alert once and in outbox order, for a consumer connected all along"

    labels = labels_by_row(settings.lake(AGENT), spec)
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
    found = reconcile(settings.lake(AGENT), spec, bootstrap, HOUR)
    assert found.differences == 0, found
    assert_audited_once(settings, spec)


@pytest.mark.parametrize("place", [BatchStep.SCORE.value, MID_PUBLISH])
def test_a_stopped_driver_that_wakes_after_its_successor_writes_nothing(
    place: str,
    drivers: Drivers,
    settings: Settings,
    bootstrap: str,
    topic: Callable[[str], str],
    tmp_path: Path,
) -> None:
    spec_file = write_spec(tmp_path, topic)
    spec = load_spec(spec_file)
    ensure_topic(bootstrap, spec.data_sources.transactions.topic, 2)
    stream = Stream(bootstrap, spec.data_sources.transactions.topic)
    stream.send(400)
    sleeper = drivers.start(spec_file, place, "SIGSTOP")
    process = psutil.Process(sleeper.pid)
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED, DRIVER_SECONDS, "the driver to stop")
    assert drivers.run(spec_file) == 0, drivers.outputs[-1]
    before = versions(settings.lake(AGENT)), published(bootstrap, spec.alerts.topic)
    process.send_signal(signal.SIGCONT)
    output, _ = sleeper.communicate(timeout=DRIVER_SECONDS)
    assert sleeper.returncode == FencedError.exit_code, output
    assert (versions(settings.lake(AGENT)), published(bootstrap, spec.alerts.topic)) == before
    assert len(before[1]) > 0
    found = reconcile(settings.lake(AGENT), spec, bootstrap, HOUR)
    assert found.differences == 0, found


def test_rules_changed_between_two_attempts_change_nothing_in_the_batch(
    drivers: Drivers, settings: Settings, bootstrap: str, topic: Callable[[str], str], tmp_path: Path
) -> None:
    first_file = write_spec(tmp_path, topic, version="1.0.0", limit=400)
    second_file = write_spec(tmp_path, topic, version="2.0.0", limit=20)
    spec = load_spec(first_file)
    ensure_topic(bootstrap, spec.data_sources.transactions.topic, 2)
    stream = Stream(bootstrap, spec.data_sources.transactions.topic)
    stream.send(300)
    assert drivers.run(first_file, BatchStep.STORE.value) == -signal.SIGKILL, drivers.outputs[-1]
    stream.send(300)
    assert drivers.run(second_file) == 0, drivers.outputs[-1]

    table = stored(settings.lake(AGENT), "alerts", "outbox_seq")
    by_batch = {
        batch: set(table.filter(pc.equal(table["batch_id"], batch))["spec_version"].to_pylist())
        for batch in (0, 1)
    }
    assert by_batch == {0: {"1.0.0"}, 1: {"2.0.0"}}
    transactions = stored(settings.lake(AGENT), "transactions", "sequence")
    first_batch = transactions.filter(pc.equal(transactions["batch_id"], 0))
    expected = set(folded_scores(spec, first_batch))
    assert set(table.filter(pc.equal(table["batch_id"], 0))["transaction_id"].to_pylist()) == expected
    told = newest_events(AuditPlaces(settings, spec), "configuration_change", 10)
    changes = [(row["detail"]["change"], row["detail"].get("changed")) for row in told]
    assert changes == [("start", None), ("start", None), ("batch", ["spec_digest", "rules_version"])]


def test_late_answers_are_paid_for_and_published_once_whenever_the_driver_dies(
    drivers: Drivers, settings: Settings, bootstrap: str, topic: Callable[[str], str], tmp_path: Path
) -> None:
    with scripted.scripted_llm() as server:
        llm = {"base_url": server.base_url, "groups_per_request": 1, "budget": {"calls_per_batch": 1}}
        spec_file = write_spec(tmp_path, topic, limit=40, llm=llm)
        spec = load_spec(spec_file)
        ensure_topic(bootstrap, spec.data_sources.transactions.topic, 2)
        ensure_topic(bootstrap, spec.alerts.topic, 1)
        stream = Stream(bootstrap, spec.data_sources.transactions.topic)
        order = {"llm": "auto", "endless": True}
        with connected_consumer(bootstrap, spec.alerts.topic) as seen:
            stream.send(300)
            for place in (LateStep.ANSWERED, LateStep.REVISED, LateStep.SENT):
                assert drivers.run(spec_file, place.value, **order) == -signal.SIGKILL, drivers.outputs[-1]
            stream.send(300)
            last = drivers.start(spec_file, **order)

            def all_answered() -> bool:
                status = read_status(settings.lake(AGENT), spec, None)
                return status.totals["stored"] == 600 and status.late["pending"] == 0

            wait_until(all_answered, DRIVER_SECONDS, "every alert to be answered")
            last.send_signal(signal.SIGINT)
            assert drivers.outcome(last) == 0, drivers.outputs[-1]
            table = stored(settings.lake(AGENT), "alerts", "outbox_seq")
            wait_until(lambda: len(seen) >= table.num_rows, 30, "the consumer to see every alert")
        asked = [request.user_message for request in server.requests]

    keys = list(zip(table["alert_id"].to_pylist(), table["revision"].to_pylist(), strict=True))
    ids = {identifier for identifier, _ in keys}
    assert Counter(keys) == Counter((each, revision) for each in ids for revision in (1, 2))
    assert len(ids) > 20
    assert table["outbox_seq"].to_pylist() == list(range(len(keys)))
    assert seen == keys
    assert len(set(asked)) == len(asked) > 3, "no answer is paid for twice"
    found = reconcile(settings.lake(AGENT), spec, bootstrap, HOUR)
    assert found.differences == 0, found
