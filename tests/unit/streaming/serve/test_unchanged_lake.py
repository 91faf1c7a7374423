"""Where nothing happens the server opens nothing, however often it looks; what happens it sees soon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from deltalake import DeltaTable

from streaming.console.console import server_with_console
from streaming.delta import file_rows, stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve import paced_work, served_agent
from streaming.serve.api import Reach
from streaming.serve.served_agent import ServedAgent
from streaming.testing.api import ApiClient
from streaming.testing.live_lake import agent as live_agent
from streaming.testing.small_lake import BUSY, build_lake, next_batch, spec_of
from tests.unit.streaming.inbox.alert_rows import AlertWriter, row

SPEC = spec_of()
LOG = ("__init__", "update_incremental", "get_add_actions", "transaction_version")


@pytest.fixture
def placed(settings: Settings) -> PlacedAgent:
    found = PlacedAgent(settings, SPEC)
    build_lake(found)
    return found


@pytest.fixture
def client(placed: PlacedAgent) -> Iterator[ApiClient]:
    """A server whose workers have not begun: what they do is done here."""
    served = ServedAgent(placed, scores=True)
    asked = ApiClient(server_with_console([served], Reach()), placed.settings)
    asked.headers.update(asked.bearer(SPEC, "triage"))
    yield asked
    served.close()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was opened, or asked of a log, since the test has emptied it."""
    found = list[str]()

    def noting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **named: Any) -> Any:
            found.append(name)
            return real(*args, **named)

        return noted

    for name in LOG:
        monkeypatch.setattr(DeltaTable, name, noting(name, getattr(DeltaTable, name)))
    for module in (stored, file_rows):
        monkeypatch.setattr(module, "opened", noting("file", module.opened))
    monkeypatch.setattr(paced_work, "rest_after", lambda *_: -1.0)
    return found


def look(agent: ServedAgent) -> None:
    """Do what the server does in the background, once, and what it does for whoever asks about cases."""
    agent.tokens.refresh()
    agent.inbox.refresh()
    while agent.copies.go_on():
        pass
    assert agent.follower is not None
    agent.follower.refresh()
    agent.cases.grouped()


def test_a_lake_that_stays_as_it_is_is_read_once(client: ApiClient, opened: list[str]) -> None:
    served = client.server.agents[SPEC.name]
    look(served)
    look(served)  # the first has written cases
    assert set(opened) == {*LOG, "file"}
    opened.clear()
    for _ in range(3):
        look(served)
    assert opened == []


def test_tables_that_are_not_there_yet_are_looked_for_without_opening_any(
    settings: Settings, opened: list[str]
) -> None:
    spec = live_agent()
    served = ServedAgent(PlacedAgent(settings, spec), scores=True)
    for _ in range(3):
        look(served)
    assert opened == []
    AlertWriter(settings, spec).write([row("t1")])
    look(served)
    assert served.inbox.view.rows == 1
    served.close()


def test_what_was_committed_since_is_seen_by_the_next_look(
    placed: PlacedAgent, client: ApiClient, opened: list[str]
) -> None:
    served = client.server.agents[SPEC.name]
    look(served)
    before = served.inbox.view
    assert served.follower is not None
    event = {"tx_id": "x", "event_time": "2026-05-03T00:00:00Z", "amount": 5.0, "currency": "EUR"}
    event |= {"customer_id": "c1", "terminal_id": "m2"}
    scored = served.follower.score(event)
    next_batch(placed)
    look(served)
    assert served.inbox.view is before, "a batch without alerts is no news"
    assert served.follower.score(event).sequence == scored.sequence + 600
    AlertWriter(placed.settings, SPEC).write([row("t1")])
    opened.clear()
    look(served)
    assert served.inbox.view.rows == before.rows + 1
    assert "file" in opened


def test_requests_open_no_table_that_stays_as_it_is(client: ApiClient, opened: list[str]) -> None:
    served = client.server.agents[SPEC.name]
    look(served)
    look(served)
    alert = client.get("/v1/alerts?limit=1").json()["alerts"][0]["alert_id"]
    paths = ("/v1/alerts", f"/v1/alerts/{alert}", f"/v1/entities/terminal/{BUSY}", f"/console/alerts/{alert}")
    answers = list[str]()
    for _ in range(2):
        opened.clear()
        served.wrote()  # whoever reads next sees the lake as it is then
        answers += [client.get(each).text for each in paths[:3]]
        assert client.get(paths[3]).status_code == 200
    assert answers[:3] == answers[3:]
    assert set(opened) <= {"file"}


@pytest.mark.parametrize(
    ("took", "rests"),
    [(0.0, {"inbox": 0.5, "copies": 2.0, "score": 0.5}), (60.0, {"inbox": 2.0, "copies": 8.0, "score": 2.0})],
)
def test_what_costs_much_rests_for_longer_and_never_for_long(
    placed: PlacedAgent, monkeypatch: pytest.MonkeyPatch, took: float, rests: dict[str, float]
) -> None:
    works, now = dict[str, Callable[[], float]](), [0.0]

    def moved() -> float:
        now[0] += took
        return now[0]

    monkeypatch.setattr(
        served_agent, "Worker", lambda name, work, *_, **__: works.update({name.split()[0]: work})
    )
    monkeypatch.setattr(served_agent, "time", SimpleNamespace(monotonic=moved))
    served = ServedAgent(placed, scores=True)
    while works["copies"]() == 0.0:
        pass
    assert {name: works[name]() for name in rests} == rests
    assert served.is_ready is False, "tokens were not read"
