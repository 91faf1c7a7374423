"""Tokens as the server looks them up: read once however many ask; none is refused before that."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from threading import Event, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from schemas.errors import RetryableError, StoreError
from schemas.spec import AgentSpec
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve import identity, paced_work
from streaming.serve.identity import BearerTokens
from streaming.serve.known_tokens import AgentTokens, KnownTokens
from streaming.serve.paced_work import PacedWork, rest_after
from streaming.serve.served_agent import ServedAgent
from streaming.testing.api import api_of
from streaming.testing.drivers import wait_until
from streaming.testing.live_lake import agent
from streaming.tokens.bearer import NewToken, draw
from streaming.tokens.token_table import TokenTable

NOW = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SECONDS = 30.0
SPEC = agent()


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def made(settings: Settings, spec: AgentSpec = SPEC, name: str = "anna") -> NewToken:
    drawn = draw()
    TokenTable(PlacedAgent(settings, spec)).add(drawn, name, ["read"], 60, None, "root")
    return drawn


def text_of(drawn: NewToken) -> str:
    return drawn.text.get_secret_value()


def asked_with(text: str) -> HTTPConnection:
    headers = [(b"authorization", f"Bearer {text}".encode())]
    return HTTPConnection({"type": "http", "headers": headers})


def test_the_server_knows_a_token_until_it_ends(settings: Settings) -> None:
    clock, seconds = Clock(), [0.0]
    book = KnownTokens([AgentTokens(PlacedAgent(settings, SPEC), lambda: seconds[0])], clock)
    drawn = draw()
    text = drawn.text.get_secret_value()
    assert book.read_for(text) is None
    TokenTable(PlacedAgent(settings, SPEC), clock).add(drawn, "anna", ["operate"], 60, NOW + DAY, "root")
    assert not book.is_worth_reading(text)
    assert book.read_for(text) is None, "the tables are read once a second at most for what nobody knows"
    seconds[0] = 1.0
    assert book.principal(text) is None, "by memory alone"
    assert book.is_worth_reading(text)
    found = book.read_for(text)
    assert found is not None
    assert (found.name, found.key, found.per_minute) == ("token:anna", drawn.token_id, 60)
    assert found.scopes == {"tester": frozenset({"read", "operate"})}
    assert book.principal(text[:-1] + "!") is None
    clock.now = NOW + DAY
    assert book.principal(text) is None


def test_a_token_that_is_revoked_is_refused_once_the_tables_were_read(settings: Settings) -> None:
    tables, drawn = AgentTokens(PlacedAgent(settings, SPEC)), made(settings)
    book = KnownTokens([tables])
    tables.refresh()
    assert book.principal(drawn.text.get_secret_value()) is not None
    TokenTable(PlacedAgent(settings, SPEC)).revoke(drawn.token_id, "root")
    tables.refresh()
    assert book.principal(drawn.text.get_secret_value()) is None


def test_the_lake_of_each_agent_says_what_a_token_may_do_there(settings: Settings) -> None:
    others = [agent(name="one"), agent(name="two"), agent(name="three")]
    drawn = draw()
    TokenTable(PlacedAgent(settings, others[0])).add(drawn, "anna", ["read"], 60, None, "root")
    TokenTable(PlacedAgent(settings, others[1])).add(drawn, "anna", ["admin"], 30, None, "root")
    book = KnownTokens([AgentTokens(PlacedAgent(settings, each)) for each in others])
    found = book.read_for(drawn.text.get_secret_value())
    assert found is not None
    assert (found.agents, found.per_minute) == (("one", "two"), 30)
    assert found.scopes["one"] == {"read"}
    assert "admin" in found.scopes["two"]


@pytest.mark.parametrize("broken", ["one", "two", "three"])
def test_the_tokens_of_an_agent_do_not_wait_for_the_lake_of_another(
    settings: Settings, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [agent(name=name) for name in ("one", "two", "three")]
    read = AgentTokens._read

    def read_or_not(self: AgentTokens) -> None:
        if self.agent == broken:
            raise StoreError("away")
        read(self)

    monkeypatch.setattr(AgentTokens, "_read", read_or_not)
    book = KnownTokens([AgentTokens(PlacedAgent(settings, each), lambda: 0.0) for each in specs])
    drawn = {each.name: text_of(made(settings, each)) for each in specs}
    with pytest.raises(StoreError):
        book.read_for(drawn[broken])
    for name, text in drawn.items():
        assert (book.principal(text) is not None) is (name != broken)
    assert book.is_worth_reading(drawn[broken])
    with pytest.raises(StoreError):
        book.read_for(drawn[broken])


def test_however_many_unknown_tokens_come_the_tables_are_read_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reading takes half a minute, as where a store is away: those who wait do not read in turn."""
    now, reads = [0.0], list[str]()

    def read(self: AgentTokens) -> None:
        reads.append(self.agent)
        now[0] += 30

    monkeypatch.setattr(AgentTokens, "_read", read)
    bearers = BearerTokens(KnownTokens([AgentTokens(PlacedAgent(settings, SPEC), lambda: now[0])]))

    async def ask() -> None:
        asking = [bearers.identify(asked_with(text_of(draw()))) for _ in range(5)]
        assert await asyncio.gather(*asking) == [None] * 5

    asyncio.run(ask())
    assert reads == [SPEC.name]


def test_who_sends_an_unknown_token_while_another_is_looked_for_is_told_to_ask_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "LONGEST_WAIT_SECONDS", 0.01)
    begun, go_on = Event(), Event()

    def read(_: AgentTokens) -> None:
        begun.set()
        assert go_on.wait(SECONDS)

    monkeypatch.setattr(AgentTokens, "_read", read)
    bearers = BearerTokens(KnownTokens([AgentTokens(PlacedAgent(settings, SPEC))]))

    async def ask() -> None:
        first = asyncio.create_task(bearers.identify(asked_with(text_of(draw()))))
        try:
            assert await asyncio.to_thread(begun.wait, SECONDS)
            with pytest.raises(RetryableError, match="ask again"):
                await bearers.identify(asked_with(text_of(draw())))
        finally:
            go_on.set()
        assert await first is None

    asyncio.run(ask())


def test_a_token_that_comes_while_the_tables_are_read_is_looked_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is refused before the tables were read: what is being read may hold the token."""
    text, said, read = text_of(made(settings)), list[bool](), AgentTokens._read

    def noted(self: AgentTokens) -> None:
        said.append(book.is_worth_reading(text))
        read(self)

    monkeypatch.setattr(AgentTokens, "_read", noted)
    tables = AgentTokens(PlacedAgent(settings, SPEC))
    book = KnownTokens([tables])
    tables.refresh()
    assert said == [True]
    assert book.principal(text) is not None


def test_the_server_is_not_ready_before_its_tokens_are_read_and_no_agent_waits_for_another(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = agent(name="one"), agent(name="two")
    read, go_on = AgentTokens._read, Event()

    def slow(self: AgentTokens) -> None:
        assert self.agent == "two" or go_on.wait(SECONDS)
        read(self)

    monkeypatch.setattr(AgentTokens, "_read", slow)
    with api_of(settings, one, two) as client:
        try:
            served = client.server.agents
            wait_until(lambda: served["two"].is_ready and served["one"].inbox.is_read, SECONDS, "what can be")
            answer = client.get("/readyz")
            assert (answer.status_code, answer.text) == (503, "not read yet: one\n")
        finally:
            go_on.set()
        wait_until(lambda: client.get("/readyz").status_code == 200, SECONDS, "all tokens")


def test_a_table_that_could_not_be_read_is_read_again_within_seconds(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it was away: a token that was revoked there is good until then."""

    def away(_: AgentTokens) -> None:
        raise StoreError("away")

    monkeypatch.setattr(AgentTokens, "_read", away)
    served = ServedAgent(PlacedAgent(settings, SPEC))
    (worker,) = [each for each in served._workers if each._work == served._read_tokens]
    pauses = [worker.attempt() for _ in range(20)]
    assert all(pause is not None and pause <= 2 for pause in pauses)


def test_work_is_done_once_a_second_counted_from_its_end_whether_it_fails_or_not() -> None:
    now, done = [0.0], list[float]()

    def work() -> None:
        done.append(now[0])
        now[0] += 10
        if len(done) == 2:
            raise StoreError("away")

    paced = PacedWork(work, "busy", lambda: now[0])
    paced.catch_up()
    now[0] += 0.75
    paced.catch_up()
    now[0] += 0.25
    for _ in range(2):
        with pytest.raises(StoreError):
            paced.catch_up()
    now[0] += 1
    paced.catch_up()
    assert paced.fault is None
    assert done == [0, 11, 22]


def test_work_that_costs_much_rests_for_longer_up_to_what_others_may_wait() -> None:
    now, done = [0.0], list[float]()

    def work() -> None:
        done.append(now[0])
        now[0] += {2: 0.25, 3: 5.0}.get(len(done), 0.0)

    paced = PacedWork(work, "busy", lambda: now[0], longest=3.0)
    for _ in range(200):
        paced.catch_up()
        now[0] += 0.125
    rests = [later - begun for begun, later in pairwise(done)][:4]
    assert rests == [1.0, 0.25 + 2.25, 5.0 + 3.0, 1.0]


@given(st.floats(0, 1e6), st.floats(0.01, 10), st.floats(1, 8))
def test_a_tenth_of_the_time_is_worked_within_bounds(took: float, least: float, times: float) -> None:
    most = least * times
    rest = rest_after(took, least, most)
    assert least <= rest <= most
    assert rest == most or took <= 0.1 * (took + rest) * (1 + 1e-9)
    assert rest == least or took > 0, "what takes no time is checked again soon"


def test_who_would_wait_too_long_for_work_of_another_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced_work, "LONGEST_WAIT_SECONDS", 0.01)
    begun, go_on = Event(), Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(SECONDS)

    paced = PacedWork(work, "words")
    first = Thread(target=paced.catch_up)
    first.start()
    try:
        assert begun.wait(SECONDS)
        with pytest.raises(RetryableError, match="ask again"):
            paced.catch_up()
    finally:
        go_on.set()
        first.join(SECONDS)
    paced.catch_up()
