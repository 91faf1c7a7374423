"""A store that is away, busy or refuses under a running agent: it is waited for; nothing is lost or twice."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from databricks.sdk.core import ApiClient

from agent.model.processes import free_port
from schemas.errors import ConfigurationError
from streaming.audit.audit_check import check_audit
from streaming.audit.audit_log import AuditPlaces
from streaming.databricks.vended import VendedCredentials, vending
from streaming.databricks.workspace import Workspace, connect
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.service.health import Condition
from streaming.testing.drivers import DRIVER_SECONDS, wait_until
from streaming.testing.spoiled_store import (
    SpoiledStore,
    Spoiling,
    dropped,
    late,
    lost_answer,
    refused,
    refused_after_all,
)
from streaming.testing.stores import RunningStore, surroundings, versitygw
from streaming.testing.streams import versions
from streaming.testing.workspace import TOKEN, loopback_workspace
from tests.integration.test_command_line import Shell, Topic
from tests.waiting_agent import WaitingAgent

pytestmark = pytest.mark.timeout(1800)  # a store may be away for ten minutes
KEY = "a" * 32
# An agent learns after some seconds, not after half a minute, that its store does not answer.
PATIENCE = "timeout=3s,max_retries=2,retry_timeout=4s"
SAID_SECONDS = 90.0
MANY_LINES = 10  # of an outage: what is wrong may change, how long each attempt took is not told
in_gofakes3 = pytest.mark.parametrize("store", ["gofakes3"], indirect=True)
BUSY = [("gofakes3", refused(503)), ("azurite", refused(503, "ServerBusy"))]
Made = Callable[[RunningStore], WaitingAgent]


@pytest.fixture
def made(bootstrap: str, topic: Topic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    """Makes the agent whose lake lies in a store."""
    with ExitStack() as ended:

        def agent(store: RunningStore) -> WaitingAgent:
            monkeypatch.setenv("FLAGSTREAM_KAFKA", bootstrap)
            monkeypatch.setenv("FLAGSTREAM_STORE", str(store.place))
            monkeypatch.setenv("FLAGSTREAM_STORE_OPTIONS", PATIENCE)
            monkeypatch.setenv("FLAGSTREAM_AUDIT_KEY", KEY)
            settings = Settings.load(tmp_path / "home", os.environ)
            found = WaitingAgent(settings, tmp_path, topic, bootstrap)
            ended.callback(found.drivers.end)
            return found

        yield agent


def all_is_well(agent: WaitingAgent) -> None:
    agent.nothing_lost_or_doubled()
    assert check_audit(AuditPlaces(PlacedAgent(agent.settings, agent.spec))).sound
    replayed = run_replay(PlacedAgent(agent.settings, agent.spec), ReplaySpan())
    assert (replayed.differences, replayed.rows) == ((), len(agent.stream.sent_ids))


class ComingAndGoing:
    """A server that keeps what it is given, and listens where it did before when it is started again."""

    def __init__(self, cache: Path, folder: Path) -> None:
        self._made, self._running = (cache, folder, free_port()), ExitStack()
        self.store = self.start()

    def start(self) -> RunningStore:
        return self._running.enter_context(versitygw(*self._made))

    def stop(self) -> None:
        self._running.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ComingAndGoing]:
    folder = tmp_path / "store"
    folder.mkdir()
    found = ComingAndGoing(Settings.load(tmp_path, {}).cache, folder)
    with surroundings(found.store):
        yield found
    found.stop()


def test_a_store_that_is_away_for_long_is_waited_for_and_status_says_so(
    server: ComingAndGoing,
    made: Made,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    agent, seconds = made(server.store), float(request.config.getoption("--store-away"))
    agent.stream.send(300)
    driver = agent.start()
    agent.catches_up(driver)
    before = versions(agent.lake)
    server.stop()
    back_at = time.monotonic() + seconds
    agent.stream.send(300)
    agent.says(Condition.STORE_AWAY, SAID_SECONDS)
    shell = Shell(monkeypatch, capsys)
    said = shell.json("status", "--spec", agent.spec_file, "--home", agent.settings.home, code=1)
    assert said["running"] is True
    assert "store_away" in [each["condition"] for each in said["conditions"]]
    assert "error sending request" in shell.errors

    def is_over() -> bool:
        assert driver.poll() is None, driver.communicate()[0]
        assert Condition.STORE_AWAY in agent.conditions(), "it is said all the time"
        return time.monotonic() > back_at

    wait_until(is_over, 2 * seconds + SAID_SECONDS, "the time to pass")
    server.start()
    assert versions(agent.lake)["batches"] == before["batches"]
    agent.catches_up(driver)
    agent.ends(driver)
    assert "store_away: over" in agent.drivers.outputs[-1]
    assert 0 < agent.drivers.outputs[-1].count("store_away since") < MANY_LINES
    all_is_well(agent)


@pytest.mark.parametrize(("store", "busy"), BUSY, indirect=["store"])
def test_a_store_that_is_busy_silent_away_or_forgetful_costs_time_alone(
    store: RunningStore, spoiled: SpoiledStore, made: Made, busy: Spoiling
) -> None:
    """What passes by itself is said to be away; what is lost once in a while is not even noticed."""
    agent = made(store)
    agent.stream.send(100)
    driver = agent.start()
    agent.catches_up(driver)
    for spoiling in (busy, late(4), dropped):
        spoiled.spoil(spoiling)
        agent.stream.send(100)
        agent.says(Condition.STORE_AWAY, SAID_SECONDS)
        spoiled.mend()
        agent.catches_up(driver)
    for spoiling in (refused(429), lost_answer, refused_after_all, dropped):
        for match in ("_delta_log", ".parquet", ""):
            wanted = spoiled.spoilt + 2  # before, as the agent writes by the clock, too
            spoiled.spoil(spoiling, verb="PUT", match=match, times=2)
            agent.stream.send(30)
            wait_until(partial(_has_spoilt, spoiled, wanted), DRIVER_SECONDS, "it to be asked")
    agent.catches_up(driver)
    agent.ends(driver)
    all_is_well(agent)


def _has_spoilt(spoiled: SpoiledStore, wanted: int) -> bool:
    return spoiled.spoilt == wanted


def vended(number: int, until_ms: int) -> dict[str, Any]:
    names = ("access_key_id", "secret_access_key", "session_token")
    keys = {name: f"{name.upper().replace('_', '')}{number}" for name in names}
    return {"aws_temp_credentials": keys, "expiration_time": until_ms, "url": "s3://lake"}


@in_gofakes3
def test_credentials_that_expire_are_waited_for_until_they_are_renewed(
    store: RunningStore, spoiled: SpoiledStore, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first have long expired by the libraries' clock, so they ask each time; by ours, once we say so."""
    agent, clock, expired = made(store), [0], 1_000_000_000_000
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with loopback_workspace() as workspace:
        monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        workspace.vended += [vended(1, expired), vended(2, 2 * expired)]
        source = VendedCredentials(Workspace(ApiClient(connect(None))), "s3://lake", lambda: clock[0])
        with vending(source, tmp_path / "scratch", 0.1) as variables:
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            agent.stream.send(100)
            driver = agent.start()
            agent.catches_up(driver)
            spoiled.spoil(refused(400, "ExpiredToken"), key="ACCESSKEYID1")
            agent.stream.send(100)
            agent.says(Condition.STORE_AWAY, SAID_SECONDS)
            clock[0] = expired
            agent.catches_up(driver)
            agent.ends(driver)
            agent.nothing_lost_or_doubled()
    assert "ExpiredToken" in agent.drivers.outputs[-1]
    assert "SECRETACCESSKEY" not in agent.drivers.outputs[-1]
    assert {each.key for each in spoiled.requests if not each.spoilt} == {"ACCESSKEYID1", "ACCESSKEYID2"}


NOT_ADMITTED = "does not admit this"
SIGNATURE_OVER = refused(
    403,
    "AuthenticationFailed",
    "Signature not valid in the specified time frame: Start [Fri, 01 May 2026 00:00:00 GMT] - "
    "Expiry [Sat, 02 May 2026 00:00:00 GMT] - Current [Sat, 02 May 2026 00:00:01 GMT]",
)
AT_FIRST = [
    ("gofakes3", refused(401), NOT_ADMITTED),
    ("gofakes3", refused(403), NOT_ADMITTED),
    ("gofakes3", refused(404), "no such bucket or container"),
    ("azurite", refused(403, "AuthorizationPermissionMismatch"), NOT_ADMITTED),
    ("azurite", refused(404, "ContainerNotFound"), "no such bucket or container"),
]
LATER = [
    ("gofakes3", refused(403), NOT_ADMITTED),
    ("azurite", SIGNATURE_OVER, "the shared access signature has expired"),
]


@pytest.mark.parametrize(("store", "spoiling", "says"), AT_FIRST, indirect=["store"])
def test_a_store_that_refuses_an_agent_that_begins_ends_it_with_a_sentence(
    store: RunningStore, spoiled: SpoiledStore, made: Made, spoiling: Spoiling, says: str
) -> None:
    agent = made(store)
    spoiled.spoil(spoiling)
    assert agent.drivers.run(agent.spec_file) == ConfigurationError.exit_code, agent.drivers.outputs[-1]
    assert says in agent.drivers.outputs[-1].splitlines()[-1]


@pytest.mark.parametrize(("store", "spoiling", "says"), LATER, indirect=["store"])
def test_a_store_that_refuses_a_running_agent_ends_it_with_a_sentence(
    store: RunningStore, spoiled: SpoiledStore, made: Made, spoiling: Spoiling, says: str
) -> None:
    agent = made(store)
    agent.stream.send(100)
    driver = agent.start()
    agent.catches_up(driver)
    spoiled.spoil(spoiling)
    agent.stream.send(100)
    assert agent.drivers.outcome(driver) == ConfigurationError.exit_code, agent.drivers.outputs[-1]
    assert says in agent.drivers.outputs[-1].splitlines()[-1]
    spoiled.mend()
    assert agent.drivers.run(agent.spec_file) == 0, agent.drivers.outputs[-1]
    all_is_well(agent)
