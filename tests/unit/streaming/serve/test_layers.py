"""What every request passes: its host, size and id, who asks and how often, and writes sent again."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from anyio import to_thread
from fastapi import APIRouter
from hypothesis import assume, given
from hypothesis import strategies as st
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.errors import ConflictError, StoreError
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve import idempotency
from streaming.serve.api import Reach
from streaming.serve.calls import Call, needs
from streaming.serve.guard import Guard
from streaming.serve.idempotency import Idempotency
from streaming.serve.identity import BearerTokens
from streaming.serve.known_tokens import AgentTokens, KnownTokens
from streaming.serve.problems import RequestRefusedError
from streaming.serve.rates import Rates
from streaming.service.health import Condition
from streaming.testing.api import ApiClient, api_of, server_of
from streaming.testing.live_lake import agent
from streaming.tokens.bearer import draw
from streaming.tokens.principal import Principal

SPEC = agent()


def probe() -> tuple[APIRouter, list[str]]:
    """Endpoints that count, fail and refuse, as handlers of ours do."""
    router, done = APIRouter(), list[str]()

    @router.post("/v1/count")
    def count(call: Annotated[Call, needs("triage")], word: str = "") -> dict[str, int]:
        done.append(word)
        call.rows = 3
        if word == "held":
            raise ConflictError("somebody else holds it")
        if word == "broken":
            raise RuntimeError("memo of customer c42")
        return {"done": len(done)}

    @router.get("/v1/look")
    def look(call: Annotated[Call, needs("read")]) -> dict[str, str]:
        return {"agent": call.agent.name, "who": call.who}

    return router, done


@pytest.fixture
def client(settings: Settings) -> Iterator[ApiClient]:
    with api_of(settings, SPEC, routers=[probe()[0]]) as asked:
        yield asked


def problem(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["status"] == status
    assert found["request_id"] == response.headers["x-request-id"]
    return found


def test_without_a_token_or_with_a_wrong_one_nobody_is_known(client: ApiClient) -> None:
    good = client.bearer(SPEC, "read")["Authorization"]
    wrong = good[:-1] + ("A" if good[-1] != "A" else "B")
    for sent in ({}, {"Authorization": wrong}, {"Authorization": good.removeprefix("Bearer ")}):
        answer = client.get("/v1/look", headers=sent)
        problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert client.get("/v1/look", headers={"Authorization": good}).json()["who"] == "token:tester"


def test_who_may_only_read_is_told_which_scope_is_missing(client: ApiClient) -> None:
    found = problem(client.post("/v1/count", headers=client.bearer(SPEC, "read")), 403)
    assert found["missing_scope"] == "triage"


def test_an_agent_that_a_token_may_not_see_is_not_there(settings: Settings) -> None:
    other = agent(name="other")
    with api_of(settings, SPEC, other, routers=[probe()[0]]) as client:
        one = client.bearer(SPEC, "read")
        assert client.get("/v1/look", headers=one).json()["agent"] == "tester"
        for name in ("other", "nobody"):
            problem(client.get("/v1/look", params={"agent": name}, headers=one), 404)
        both = client.bearer(SPEC, "read", name="second")
        client.bearer(other, "read", name="second")
        assert client.get("/v1/look", headers=both).status_code == 200, "two tokens, each for its lake"


def test_an_unknown_token_holds_up_nobody_else(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the tables are read for it the event loop goes on, or the one who lets them go on never comes."""
    goes_on, waited = threading.Event(), list[bool]()
    monkeypatch.setattr(AgentTokens, "_read", lambda _: waited.append(goes_on.wait(5)))
    tables = AgentTokens(PlacedAgent(settings, SPEC))
    headers = [(b"authorization", f"Bearer {draw().text.get_secret_value()}".encode())]
    asked = HTTPConnection({"type": "http", "headers": headers})

    async def ask() -> None:
        asking = asyncio.create_task(BearerTokens(KnownTokens([tables])).identify(asked))
        await asyncio.sleep(0)
        goes_on.set()
        assert await asking is None

    asyncio.run(ask())
    assert waited == [True]


def test_conditions_of_the_server_are_logged(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    health = server_of(settings, SPEC).agents[SPEC.name].health
    health.begins(Condition.TOKENS_UNREADABLE, "the store is away")
    health.ends(Condition.TOKENS_UNREADABLE)
    told = capsys.readouterr().err
    assert "condition_holds: tokens_unreadable: the store is away" in told
    assert "condition_over" in told


@given(st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=40))
def test_no_other_host_is_served(host: str) -> None:
    assume(host.partition(":")[0].lower() not in ("localhost", "127.0.0.1"))
    reached: list[str] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        reached.append(scope["path"])

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", host.encode("latin-1"))]
    scope = {"type": "http", "method": "GET", "path": "/livez", "headers": headers}
    asyncio.run(Guard(app, ["localhost", "127.0.0.1"])(scope, receive, send))
    assert not reached
    assert sent[0]["status"] == 421


def test_a_body_is_refused_by_its_length_and_by_its_size(settings: Settings) -> None:
    with api_of(settings, SPEC, routers=[probe()[0]], reach=Reach(most_bytes=1_000)) as client:
        headers = client.bearer(SPEC, "triage")
        assert client.post("/v1/count", content=b"x" * 1_000, headers=headers).status_code == 200
        problem(client.post("/v1/count", content=b"x" * 1_001, headers=headers), 413)
        problem(client.post("/v1/count", content=iter([b"x" * 600, b"y" * 600]), headers=headers), 413)


@pytest.mark.parametrize("came", [0, 1, 2])
def test_a_request_that_ends_within_its_body_reaches_nobody(came: int) -> None:
    """A file would be kept without its end, and a claim be made for somebody who has gone."""
    parts: list[Message] = [{"type": "http.request", "body": b"half", "more_body": True}] * came
    messages, reached, sent = iter([*parts, {"type": "http.disconnect"}]), list[str](), list[Message]()

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        reached.append(scope["path"])

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost")]
    scope = {"type": "http", "method": "POST", "path": "/v1/attach", "headers": headers}
    asyncio.run(Guard(app, ["localhost"])(scope, receive, send))
    assert (reached, sent[0]["status"]) == ([], 400)


def test_nobody_is_led_to_another_address(client: ApiClient) -> None:
    """Behind a proxy that ends TLS that would be one of plain HTTP, and clients send their token on."""
    client.follow_redirects = False
    headers = client.bearer(SPEC, "triage")
    for method, path in (("GET", "/v1/look/"), ("POST", "/v1/count/"), ("GET", "/livez/")):
        problem(client.request(method, path, headers=headers), 404)


def test_a_request_has_the_id_that_it_brings_if_that_is_one(client: ApiClient) -> None:
    assert client.get("/livez", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for odd in ("a b", "x" * 65, "<script>"):
        assert client.get("/livez", headers={"X-Request-Id": odd}).headers["x-request-id"] != odd


def test_every_answer_has_the_headers_that_keep_browsers_from_mischief(client: ApiClient) -> None:
    for path in ("/livez", "/nothing", "/v1/look"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers


def test_a_fault_of_ours_says_nothing_but_its_id(
    client: ApiClient, capsys: pytest.CaptureFixture[str]
) -> None:
    headers = client.bearer(SPEC, "triage")
    found = problem(client.post("/v1/count?word=broken", headers=headers), 500)
    assert "c42" not in json.dumps(found)
    assert found["request_id"] in capsys.readouterr().err


def test_a_write_that_is_sent_again_is_done_once(settings: Settings) -> None:
    router, done = probe()
    with api_of(settings, SPEC, routers=[router]) as client:
        mine = {**client.bearer(SPEC, "triage"), "Idempotency-Key": "k1"}
        first, again = (client.post("/v1/count?word=a", headers=mine) for _ in range(2))
        assert first.json() == again.json() == {"done": 1}
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["x-request-id"] != first.headers["x-request-id"]
        problem(client.post("/v1/count?word=b", headers=mine), 422)
        theirs = {**client.bearer(SPEC, "triage", name="bert"), "Idempotency-Key": "k1"}
        assert client.post("/v1/count?word=a", headers=theirs).json() == {"done": 2}, "keys are one's own"
        problem(client.post("/v1/count", headers={**mine, "Idempotency-Key": "a b"}), 400)
    assert done == ["a", "a"]


def test_a_write_is_noted_before_its_answer_is_sent(settings: Settings) -> None:
    """Who has the answer asks again at once, and must find what was written."""
    done: list[str] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    with api_of(settings, SPEC, routers=[probe()[0]]) as client:
        served = client.server.agents[SPEC.name]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(served, "wrote", lambda: done.append("seen"))
            patch.setattr(served.trail, "wrote", lambda *_: done.append("on record"))

            async def send(message: Message) -> None:
                done.append(message["type"])

            headers = {"Host": "localhost", **client.bearer(SPEC, "triage")}
            scope = {
                "type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/count",
                "query_string": b"", "scheme": "http",
                "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            }  # fmt: skip
            asyncio.run(client.server.asgi(scope, receive, send))
    assert done[:3] == ["seen", "on record", "http.response.start"]


def test_a_refusal_is_repeated_and_a_fault_of_ours_is_tried_again(settings: Settings) -> None:
    router, done = probe()
    with api_of(settings, SPEC, routers=[router]) as client:
        mine = client.bearer(SPEC, "triage")
        for word in ("held", "held", "broken", "broken"):
            client.post(f"/v1/count?word={word}", headers={**mine, "Idempotency-Key": word})
    assert done == ["held", "broken", "broken"]


async def answer_to(app: ASGIApp, key: str, principal: Principal) -> int:
    """Send a write under a key through a layer; return the status."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/", "query_string": b"",
        "headers": [(b"idempotency-key", key.encode())], "state": {"principal": principal},
    }  # fmt: skip
    await app(scope, receive, send)
    return int(sent[0]["status"])


def test_a_key_whose_answer_is_on_its_way_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many others come, and however long it takes: it would be done twice."""
    monkeypatch.setattr(idempotency, "_MOST_KEPT", 3)
    who, done, now = Principal("token:a", "a", {}, 60), list[str](), [0.0]

    async def follow() -> None:
        go_on = asyncio.Event()

        async def app(scope: Scope, _: Receive, send: Send) -> None:
            done.append(key := Headers(scope=scope)["idempotency-key"])
            if key == "slow":
                await go_on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        layer = Idempotency(app, lambda: now[0])
        slow = asyncio.create_task(answer_to(layer, "slow", who))
        await asyncio.sleep(0)
        for number in range(10):
            now[0] += 90_000
            assert await answer_to(layer, f"k{number}", who) == 200
            with pytest.raises(RequestRefusedError, match="still being answered"):
                await answer_to(layer, "slow", who)
        go_on.set()
        assert await slow == 200
        assert len(layer._kept) <= 3

    asyncio.run(follow())
    assert done.count("slow") == 1


def test_kept_answers_take_so_much_memory_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the answers are that somebody has sent to them; the newest are kept."""
    monkeypatch.setattr(idempotency, "_MOST_HELD", 100)
    who, done = Principal("token:a", "a", {}, 60), list[str]()

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        done.append(Headers(scope=scope)["idempotency-key"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 40})

    async def ask() -> None:
        layer = Idempotency(app)
        for key in ("k1", "k2", "k3", "k3", "k2", "k1"):
            await answer_to(layer, key, who)
        assert layer._held == sum(len(each.body) for each in layer._kept.values()) <= 140

    asyncio.run(ask())
    assert done == ["k1", "k2", "k3", "k1"]


def test_the_server_says_that_it_lives_while_every_thread_is_busy(settings: Settings) -> None:
    server, go_on, sent = server_of(settings, SPEC), threading.Event(), list[Message]()

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    async def ask() -> None:
        to_thread.current_default_thread_limiter().total_tokens = 1
        busy = asyncio.create_task(run_in_threadpool(go_on.wait))
        await asyncio.sleep(0)
        try:
            for path in ("/livez", "/readyz"):
                scope = {
                    "type": "http", "method": "GET", "path": path, "query_string": b"", "scheme": "http",
                    "headers": [(b"host", b"localhost")],
                }  # fmt: skip
                await asyncio.wait_for(server.asgi(scope, receive, send), 5)
        finally:
            go_on.set()
        await busy

    asyncio.run(ask())
    assert [each["status"] for each in sent if "status" in each] == [200, 503]


def test_each_agent_is_ended_whatever_befalls_another(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("one", "three", "two")
    server, on_record = server_of(settings, *(agent(name=name) for name in names)), list[str]()

    def fails() -> None:
        raise StoreError("away")

    for name, served in server.agents.items():
        monkeypatch.setattr(served.what_ifs, "close", fails)
        monkeypatch.setattr(served.trail, "flush", lambda name=name, **_: on_record.append(name))
    server.start()
    on_record.clear()
    with pytest.raises(StoreError):
        server.close()
    assert set(on_record) == set(names)


def test_a_method_that_is_not_there_uses_up_no_key(client: ApiClient) -> None:
    mine = {**client.bearer(SPEC, "triage"), "Idempotency-Key": "k9"}
    for word in ("a", "b"):
        problem(client.put(f"/v1/count?word={word}", headers=mine), 405)


def test_who_asks_too_often_waits(client: ApiClient) -> None:
    headers = client.bearer(SPEC, "read", per_minute=2)
    answers = [client.get("/v1/look", headers=headers) for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 30
    problem(answers[-1], 429)


@given(st.integers(1, 50), st.lists(st.floats(0, 40), max_size=60))
def test_no_minute_has_more_requests_than_a_bucket_and_a_minute_hold(
    per_minute: int, pauses: list[float]
) -> None:
    now = 0.0
    rates = Rates(lambda: now)
    taken = []
    for pause in pauses:
        now += pause
        wait = rates.wait("me", per_minute)
        assert 0 <= wait <= 60 / per_minute + 1e-6
        if not wait:
            taken.append(now)
    for first in taken:
        assert sum(first <= each < first + 60 for each in taken) <= 2 * per_minute


def test_after_the_wait_there_is_a_request() -> None:
    now = 0.0
    rates = Rates(lambda: now)
    assert rates.wait("me", 1) == 0
    now += rates.wait("me", 1) + 1e-6
    assert rates.wait("me", 1) == 0
    assert rates.wait("you", 1) == 0
