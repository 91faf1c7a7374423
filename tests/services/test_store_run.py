"""Whole runs whose lake lies in a store: killed, they are taken over by machines that share it alone."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from schemas.spec import load_spec
from streaming.batch.steps import BatchStep
from streaming.home.settings import Settings
from streaming.kafka.topic_admin import ensure_topic
from streaming.service.health import Condition, read_health
from streaming.testing.drivers import DRIVER_SECONDS, wait_until
from streaming.testing.killable_driver import MID_PUBLISH
from streaming.testing.streams import Stream, published, stored, write_spec
from tests.crash_chain import LIVE, RULES, assert_nothing_lost_or_doubled, survive
from tests.integration.test_command_line import (
    CHILD_SECONDS,
    Shell,
    Topic,
    has_read_events,
    running,
)
from tests.store_machines import TAKEOVER_SECONDS, Machines, replays

pytestmark = pytest.mark.timeout(1200)  # a chain of nine drivers, each with a JVM of its own
# After the first step of a batch, before the last one of its publishing, and after each of the others.
CHAIN = [
    *((step.value, LIVE) for step in BatchStep if step not in (BatchStep.OPEN, BatchStep.PUBLISH)),
    (MID_PUBLISH, LIVE),
]
# On Azure the store's answers differ, not the agent: the last two deaths are tried, with --whole-chain all.
LINKS = {"gofakes3": len(CHAIN), "azurite": 2}


@pytest.fixture
def chain(request: pytest.FixtureRequest) -> list[tuple[str, bool]]:
    """Where drivers die, one after the other, on the store that the test takes."""
    if request.config.getoption("--whole-chain"):
        return CHAIN
    return CHAIN[-LINKS[request.node.callspec.params["store"]] :]


@pytest.mark.parametrize("store", LINKS, indirect=True)
def test_a_chain_of_killed_drivers_on_machines_of_their_own_loses_and_doubles_nothing(
    chain: list[tuple[str, bool]], machines: Machines, bootstrap: str, topic: Topic, tmp_path: Path
) -> None:
    spec_file = write_spec(tmp_path, topic, labels=topic("labels"), rules=RULES)
    survived = survive(chain, machines, spec_file, bootstrap, takeover=TAKEOVER_SECONDS)
    assert_nothing_lost_or_doubled(survived, bootstrap)
    replays(survived.settings, survived.spec, len(survived.stream.sent_ids))
    machines.hold_nothing_that_counts()


def stored_rows(settings: Settings) -> int:
    return stored(settings.lake("tester"), "transactions", "sequence").num_rows


def waits_for_another(settings: Settings) -> bool:
    return Condition.ANOTHER_RUN in {each.condition for each in read_health(settings.health("tester"))}


@pytest.mark.parametrize("store", ["gofakes3"], indirect=True)
def test_a_killed_run_is_taken_over_by_a_machine_that_has_the_uri_and_the_secrets_alone(
    machines: Machines,
    bootstrap: str,
    topic: Topic,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FLAGSTREAM_KAFKA", bootstrap)
    spec_file = write_spec(tmp_path, topic)
    spec = load_spec(spec_file)
    ensure_topic(bootstrap, spec.data_sources.transactions.topic, 2)
    stream = Stream(bootstrap, spec.data_sources.transactions.topic)
    (one, _), (two, _), (three, _) = (machines(number) for number in range(3))
    stream.send(300)
    with running(spec_file, one.home, bootstrap) as first:
        first.wait_for(has_read_events, CHILD_SECONDS)
        first.kill()
    stream.send(300)
    with running(spec_file, two.home, bootstrap) as second:
        wait_until(lambda: waits_for_another(two), CHILD_SECONDS, "the second run to wait for the first")
        second.wait_for(has_read_events, CHILD_SECONDS)
        wait_until(lambda: stored_rows(two) == 600, DRIVER_SECONDS, "everything to be stored")
        second.send_signal(signal.SIGINT)
        _, errors = second.communicate(timeout=CHILD_SECONDS)
        assert second.returncode == 0, errors
    shell, where = Shell(monkeypatch, capsys), ("--spec", spec_file, "--home", three.home)
    found = shell.json("reconcile", *where)
    assert (found["transactions"], found["differences"]) == (600, 0)
    sent = [(each["alert_id"], each["revision"]) for each in published(bootstrap, spec.alerts.topic)]
    alerts = stored(three.lake(spec.name), "alerts", "outbox_seq")
    assert sent == list(zip(alerts["alert_id"].to_pylist(), alerts["revision"].to_pylist(), strict=True))
    assert len(set(sent)) == len(sent) > 0
    assert shell.json("replay", *where)["differences"] == 0
    assert shell.json("audit", "verify", *where)["sound"] is True
    assert shell.json("status", *where)["totals"]["stored"] == 600
    machines.hold_nothing_that_counts()
