"""The live feed sends each revision once, goes on where a client was, and ends with the server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

import pytest
from fastapi import APIRouter

from schemas.errors import StoreError
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve import alerts_api
from streaming.serve.alerts_api import _events, follow_alerts
from streaming.serve.calls import Call, is_still_allowed, needs
from streaming.serve.changes import LiveChanges
from streaming.serve.problems import RequestRefusedError
from streaming.serve.served_agent import ServedAgent
from streaming.testing.api import api_of
from streaming.testing.live_lake import agent
from streaming.tokens.principal import Principal
from streaming.tokens.token_table import TokenTable
from tests.unit.streaming.inbox.alert_rows import AlertWriter, row

SPEC = agent()
SECONDS = 30.0


WHO = Principal("token:tester", "t", {SPEC.name: frozenset({"read"})}, 60)
ENDED = [None, replace(WHO, scopes={}), replace(WHO, scopes={"other": frozenset({"read"})})]


def call_on(served: ServedAgent, known: Sequence[Principal | None] = (WHO,)) -> Call:
    """Return a call of somebody who is known; each time they are asked about, the next one holds."""
    left = list(known)

    async def ask_again() -> Principal | None:
        return left.pop(0) if len(left) > 1 else left[0]

    return Call(WHO, served, "id", "api/follow-alerts", ask_again)


async def next_alerts(feed: AsyncIterator[bytes]) -> list[dict[str, Any]]:
    async with asyncio.timeout(SECONDS):
        return alerts_in(await anext(feed))


async def next_alert(feed: AsyncIterator[bytes]) -> dict[str, Any]:
    (found,) = await next_alerts(feed)
    return found


def alerts_in(part: bytes) -> list[dict[str, Any]]:
    return [alert_in(each) for each in part.decode().strip().split("\n\n")]


def alert_in(text: str) -> dict[str, Any]:
    kind, place, data = text.splitlines()
    assert kind == "event: alert"
    found: dict[str, Any] = json.loads(data.removeprefix("data: "))
    assert place == f"id: {found['outbox_seq']}"
    return found


def test_every_revision_is_sent_once_in_order_and_a_client_goes_on_where_it_was(settings: Settings) -> None:
    writer, served = AlertWriter(settings, SPEC), ServedAgent(PlacedAgent(settings, SPEC))
    writer.write([row("t1"), row("t2", severity="high")])
    served.inbox.refresh()

    async def follow() -> None:
        feed = _events(call_on(served), "", -1)
        assert [each["transaction_id"] for each in await next_alerts(feed)] == ["t1", "t2"]
        waiting = asyncio.create_task(next_alert(feed))
        await asyncio.sleep(0)
        writer.write([row("t1", revision=2, severity="critical")])
        await asyncio.to_thread(served._follow)
        revised = await waiting
        assert (revised["outbox_seq"], revised["severity"]) == (2, "critical")
        later = _events(call_on(served), "severity >= high", 1)
        assert (await next_alert(later))["outbox_seq"] == 2
        served.end_streams()
        async with asyncio.timeout(SECONDS):
            assert [each async for each in feed] == []
            assert [each async for each in later] == []

    asyncio.run(follow())


@pytest.mark.parametrize("later", ENDED)
def test_a_feed_ends_with_the_token_and_sends_nothing_of_what_came_after(
    settings: Settings, later: Principal | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, served = AlertWriter(settings, SPEC), ServedAgent(PlacedAgent(settings, SPEC))
    writer.write([row("t1")])
    served.inbox.refresh()

    async def rounds(_: float) -> AsyncIterator[bool]:
        yield True
        writer.write([row("t2")])
        served.inbox.refresh()
        yield True

    monkeypatch.setattr(served.changes, "rounds", rounds)
    known = [WHO, WHO, later]  # asked about before t1, before nothing more, before t2
    assert transactions_of(asyncio.run(all_of(_events(call_on(served, known), "", -1)))) == [["t1"]]


@pytest.mark.parametrize("later", ENDED)
def test_of_a_backlog_nothing_more_is_sent_once_the_token_has_ended(
    settings: Settings, later: Principal | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts_api, "_MOST_SENT", 1)
    writer, served = AlertWriter(settings, SPEC), ServedAgent(PlacedAgent(settings, SPEC))
    writer.write([row(f"t{number}") for number in range(4)])
    served.inbox.refresh()
    feed = _events(call_on(served, [WHO, WHO, later]), "", -1)
    assert transactions_of(asyncio.run(all_of(feed))) == [["t0"], ["t1"]]


def transactions_of(parts: Sequence[bytes]) -> list[list[str]]:
    return [[each["transaction_id"] for each in alerts_in(part)] for part in parts]


async def all_of(feed: AsyncIterator[bytes]) -> list[bytes]:
    async with asyncio.timeout(SECONDS):
        return [each async for each in feed]


def test_one_token_holds_so_many_connections_and_no_more(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each feed is a place of the server that nobody else has; one that ends is free again."""
    monkeypatch.setattr(alerts_api, "_MOST_FEEDS", 2)
    AlertWriter(settings, SPEC).write([row("t1")])
    served = ServedAgent(PlacedAgent(settings, SPEC))
    served.inbox.refresh()

    async def follow() -> None:
        feeds = [_events(call_on(served), "", -1) for _ in range(2)]
        for each in feeds:
            follow_alerts(call_on(served))
            await next_alert(each)
        with pytest.raises(RequestRefusedError, match="follows 2 feeds"):
            follow_alerts(call_on(served))
        await feeds[0].aclose()  # type: ignore[attr-defined]  # a generator
        follow_alerts(call_on(served))

    asyncio.run(follow())


def test_a_revoked_token_is_not_known_to_its_feed(settings: Settings) -> None:
    """What the layers hand to the feed asks the tables anew, and not what was found out at its beginning."""
    found = []
    router = APIRouter()

    @router.get("/v1/held")
    async def hold(call: Annotated[Call, needs("read")]) -> list[bool]:
        found.append(await is_still_allowed(call, "read"))
        TokenTable(PlacedAgent(settings, SPEC)).revoke(call.principal.key, "root")
        client.server.agents[SPEC.name].tokens.refresh()
        found.append(await is_still_allowed(call, "read"))
        return found

    with api_of(settings, SPEC, routers=[router]) as client:
        assert client.get("/v1/held", headers=client.bearer(SPEC, "read")).json() == [True, False]


def test_who_hears_of_an_alert_may_ask_about_it_at_once(settings: Settings) -> None:
    writer, served = AlertWriter(settings, SPEC), ServedAgent(PlacedAgent(settings, SPEC))
    writer.write([row("t1")])
    served._follow()
    assert served.reader().count("alerts") == 1
    assert served.details.similar(row("t1")["alert_id"], 5) == []
    writer.write([row("t2", amount=11.0)])
    served._follow()
    new = row("t2")["alert_id"]
    (found,) = served.details.similar(new, 5)
    assert found.transaction_id == "t1"


def test_who_follows_hears_of_an_alert_whose_labels_cannot_be_read(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, served, told = AlertWriter(settings, SPEC), ServedAgent(PlacedAgent(settings, SPEC)), list[int]()
    monkeypatch.setattr(served.changes, "notify", lambda: told.append(served.inbox.view.next_outbox_seq))

    def away() -> bool:
        raise StoreError("away")

    monkeypatch.setattr(served.inbox, "_read_labels", away)
    writer.write([row("t1")])
    for _ in range(2):
        with pytest.raises(StoreError):
            served._follow()
    assert told == [1]
    assert served.reader().count("alerts") == 1


def test_alerts_are_looked_for_beside_the_event_loop(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    AlertWriter(settings, SPEC).write([row("t1")])
    served = ServedAgent(PlacedAgent(settings, SPEC))
    served.inbox.refresh()
    chosen, threads = served.lists.chosen, set[int]()

    def noted(*given: Any) -> Any:
        threads.add(threading.get_ident())
        return chosen(*given)

    monkeypatch.setattr(served.lists, "chosen", noted)

    async def follow() -> int:
        await next_alert(_events(call_on(served), "", -1))
        return threading.get_ident()

    of_the_loop = asyncio.run(follow())
    assert threads
    assert of_the_loop not in threads


def test_who_follows_hears_of_every_change_and_that_all_is_well_meanwhile() -> None:
    async def follow() -> None:
        changes = LiveChanges()
        rounds = changes.rounds(0.01)
        assert await anext(rounds) is True
        assert await anext(rounds) is False
        await asyncio.to_thread(changes.notify)
        slow = changes.rounds(SECONDS)
        assert await anext(slow) is True
        await asyncio.to_thread(changes.close)
        async with asyncio.timeout(SECONDS):
            assert [each async for each in slow] == []

    asyncio.run(follow())
