"""Drivers killed, stopped or reconfigured half-way: nothing lost, nothing doubled, nothing changed."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow.compute as pc
import pytest

from schemas.errors import FencedError
from schemas.spec import load_spec
from streaming.audit.audit_log import AuditPlaces
from streaming.audit.audit_reading import newest_events
from streaming.batch.late_answers import LateStep
from streaming.batch.steps import BatchStep
from streaming.history.reconcile import reconcile
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.topic_admin import ensure_topic
from streaming.run.status import read_status
from streaming.testing import scripted_llm as scripted
from streaming.testing.drivers import DRIVER_SECONDS, Drivers, wait_until
from streaming.testing.killable_driver import MID_PUBLISH
from streaming.testing.streams import (
    Stream,
    folded_scores,
    published,
    stored,
    versions,
    write_spec,
)
from tests.crash_chain import (
    AGENT,
    CHAINS,
    HOUR,
    RULES,
    assert_nothing_lost_or_doubled,
    connected_consumer,
    survive,
)

pytestmark = pytest.mark.timeout(480)  # a chain of eleven drivers, each with a JVM of its own


@pytest.fixture
def drivers(settings: Settings, bootstrap: str) -> Iterator[Drivers]:
    started = Drivers(settings, bootstrap)
    yield started
    started.end()


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
    survived = survive(chain, lambda _: (settings, drivers), spec_file, bootstrap, percent=percent)
    assert_nothing_lost_or_doubled(survived, bootstrap, percent)


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
    assert drivers.run(spec_file, takeover=1.0) == 0, drivers.outputs[-1]
    before = versions(settings.lake(AGENT)), published(bootstrap, spec.alerts.topic)
    process.send_signal(signal.SIGCONT)
    output, _ = sleeper.communicate(timeout=DRIVER_SECONDS)
    assert sleeper.returncode == FencedError.exit_code, output
    assert (versions(settings.lake(AGENT)), published(bootstrap, spec.alerts.topic)) == before
    assert len(before[1]) > 0
    found = reconcile(PlacedAgent(settings, spec), bootstrap, HOUR)
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
    told = newest_events(AuditPlaces(PlacedAgent(settings, spec)), "configuration_change", 10)
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
                status = read_status(PlacedAgent(settings, spec), None)
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
    found = reconcile(PlacedAgent(settings, spec), bootstrap, HOUR)
    assert found.differences == 0, found
