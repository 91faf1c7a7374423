"""A code works once and for a minute; no page without a session, no write without its token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st

from schemas.tables import AUDIT
from streaming.console.console import CONSOLE_ROUTERS
from streaming.console.rendering import POLICY
from streaming.console.sessions import SESSION_SECONDS
from streaming.console.sign_in_codes import CODE_SECONDS, Holder, SignInCodes
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.output import redaction
from streaming.serve.routers import ROUTERS
from streaming.testing.api import ApiClient
from streaming.testing.live_lake import agent
from streaming.tokens.token_table import TokenTable
from tests.browser_session import SAME_ORIGIN, code_of, console_of, csrf, exchanged, sign_in

SPEC = agent()
WRITES = {"POST", "PUT", "PATCH", "DELETE"}
# What anybody may see: where one signs in, and the style of that page.
OPEN = {"/console/sign-in", "/console/static/{name}"}
LABELS = {"labels": [{"transaction_id": "t1", "is_fraud": True}]}


class Time:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def client(settings: Settings, time: Time) -> Iterator[ApiClient]:
    with console_of(settings, SPEC, seconds=time) as asked:
        yield asked


def test_whoever_signs_in_is_the_token_and_it_is_on_record(client: ApiClient, settings: Settings) -> None:
    sign_in(client, SPEC, "triage")
    me = client.get("/v1/me").json()
    assert (me["name"], me["agents"]) == ("token:anna", {"tester": ["read", "triage"]})
    client.server.agents["tester"].trail.flush(whole=True)
    rows = read_stored(settings.lake("tester") / "audit", AUDIT.names)
    assert rows is not None
    assert any('"console/sign-in"' in str(each) for each in rows["detail"].to_pylist())


steps = st.lists(
    st.one_of(
        st.tuples(st.just("draw"), st.just(0)),
        st.tuples(st.just("take"), st.integers(0, 4)),
        st.tuples(st.just("wait"), st.sampled_from([1, 29, 30, 59])),
    ),
    max_size=30,
)


@given(steps)
def test_a_code_stands_for_its_token_once_and_within_its_minute(done: list[tuple[str, int]]) -> None:
    time = Time()
    codes, drawn = SignInCodes(time), list[tuple[str, Holder, float]]()
    used = set[str]()
    for what, number in done:
        if what == "draw":
            holder = Holder(f"{len(drawn):012x}", "digest")
            drawn.append((codes.draw(holder), holder, time.now))
        elif what == "wait":
            time.now += number
        elif number < len(drawn):
            code, holder, at = drawn[number]
            is_good = code not in used and time.now - at < CODE_SECONDS
            assert codes.take(code) == (holder if is_good else None)
            used.add(code)
    assert codes.take("no code") is None


def test_a_code_is_exchanged_once_and_not_after_a_minute(client: ApiClient, time: Time) -> None:
    bearer = client.bearer(SPEC, "read")
    codes = [code_of(client, bearer) for _ in range(2)]
    assert client.get("/console/sign-in", params={"code": codes[0]}).status_code == 200, "uses nothing up"
    time.now += CODE_SECONDS - 0.1
    assert [exchanged(client, codes[0]), exchanged(client, codes[0])] == [303, 401]
    time.now += 0.1
    assert exchanged(client, codes[1]) == 401


def test_no_script_and_no_other_site_has_the_cookie(client: ApiClient) -> None:
    code = code_of(client, client.bearer(SPEC, "read"))
    answer = client.post("/console/sign-in", data={"code": code}, headers=SAME_ORIGIN)
    said = {each.strip().lower() for each in answer.headers["set-cookie"].split(";")}
    assert {"httponly", "samesite=strict", "path=/"} <= said


def test_servers_at_two_ports_of_one_machine_sign_nobody_out_of_each_other(client: ApiClient) -> None:
    names, headers = ("anna", "bert"), {}
    for port, name in zip((8001, 8002), names, strict=True):
        code = code_of(client, client.bearer(SPEC, "read", name=name))
        client.base_url = httpx2.URL(f"http://localhost:{port}")
        assert exchanged(client, code) == 303
        headers[port] = csrf(client)
    for port, name in zip((8001, 8002), names, strict=True):
        client.base_url = httpx2.URL(f"http://localhost:{port}")
        assert client.get("/v1/me").json()["name"] == f"token:{name}"
    assert client.post("/console/sign-out", headers=headers[8002]).status_code == 204
    assert client.get("/v1/me").status_code == 401
    client.base_url = httpx2.URL("http://localhost:8001")
    assert client.get("/v1/me").json()["name"] == "token:anna"


def test_the_cookies_of_sessions_are_hidden_as_long_as_they_are_good(client: ApiClient, time: Time) -> None:
    """And no longer: what opens nothing any more is not looked for in every line of the log."""
    cookies = list[str]()

    def begin() -> None:
        headers = sign_in(client, SPEC, "read", name=f"anna{len(cookies)}")
        cookies.append(next(iter(client.cookies.values())))
        assert cookies[-1] not in redaction.redacted(f"a browser has sent {cookies[-1]}")
        client.headers.update(headers)

    begin()
    assert client.post("/console/sign-out").status_code == 204
    assert cookies[0] not in redaction._known
    for _ in range(3):
        begin()
    time.now += SESSION_SECONDS
    begin()
    assert [each in redaction._known for each in cookies] == [False] * 4 + [True]


def test_codes_are_hidden_as_long_as_they_are_good() -> None:
    time = Time()
    codes, holder = SignInCodes(time), Holder("0" * 12, "digest")
    drawn = [codes.draw(holder) for _ in range(3)]
    assert drawn[0] not in redaction.redacted(f"/console/sign-in?code={drawn[0]}")
    assert codes.take(drawn[0]) == holder
    assert [each in redaction._known for each in drawn] == [False, True, True]
    time.now += CODE_SECONDS
    drawn.append(codes.draw(holder))
    assert [each in redaction._known for each in drawn] == [False] * 3 + [True]


def test_a_page_of_another_site_signs_nobody_in(client: ApiClient) -> None:
    code = code_of(client, client.bearer(SPEC, "read"))
    strangers: tuple[dict[str, str], ...] = (
        {}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"},
        {"Origin": "http://evil.example"}, {**SAME_ORIGIN, "Sec-Fetch-Site": "none"},
    )  # fmt: skip
    for headers in strangers:
        answer = client.post("/console/sign-in", data={"code": code}, headers=headers)
        assert (answer.status_code, client.cookies.get("flagstream")) == (403, None), headers
    answer = client.post("/console/sign-in", data={"code": code}, headers={"Origin": "http://localhost"})
    assert answer.status_code == 303, "browsers that do not say Sec-Fetch-Site"


def pages() -> list[str]:
    found = [each for router in CONSOLE_ROUTERS for each in router.routes if isinstance(each, APIRoute)]
    return [
        each.path.replace("{alert_id}", "0" * 32).replace("{case_id}", "0" * 16)
        for each in found
        if "GET" in each.methods and each.path not in OPEN
    ]


def test_without_a_session_no_page_shows_anything(client: ApiClient) -> None:
    assert "/console" in pages()
    for cookie in ({}, {"flagstream": "guessed"}):
        for path in pages():
            client.cookies.clear()
            client.cookies.update(cookie)
            answer = client.get(path)
            assert answer.status_code == 401, path
            assert "flagstream console" in answer.text
            assert answer.headers["content-security-policy"] == POLICY


def test_every_answer_of_the_console_runs_no_script_but_ours(client: ApiClient) -> None:
    sign_in(client, SPEC, "triage")
    for path in ("/console/sign-in", *pages(), "/console/nothing"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in policy
        assert "<script>" not in answer.text
        assert " style=" not in answer.text
        assert " onclick=" not in answer.text


def test_under_another_host_there_is_no_console(client: ApiClient) -> None:
    sign_in(client, SPEC, "read")
    for path in (*pages(), "/console/sign-in"):
        answer = client.get(path, headers={"Host": "evil.example"})
        assert answer.status_code == 421, path


def writing_routes() -> list[tuple[str, str]]:
    routers = (*ROUTERS, *CONSOLE_ROUTERS)
    found = [each for router in routers for each in router.routes if isinstance(each, APIRoute)]
    return [(method, each.path) for each in found for method in each.methods & WRITES]


def test_no_write_without_the_token_against_forgery(client: ApiClient) -> None:
    good = sign_in(client, SPEC, "admin")["X-CSRF-Token"]
    for method, path in writing_routes():
        if path == "/console/sign-in":
            continue
        for wrong in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": good[:-1]}, {"X-CSRF-Token": good + "a"}):
            answer = client.request(method, path, json=LABELS, headers=wrong)
            assert answer.status_code == 403, (path, answer.text)
            assert "X-CSRF-Token" in answer.json()["detail"], path
    answer = client.post("/v1/labels", json=LABELS, headers={"X-CSRF-Token": good})
    assert answer.json()["stored"] == 1


@pytest.mark.long
def test_a_token_against_forgery_is_of_one_session(client: ApiClient) -> None:
    first = sign_in(client, SPEC, "triage")
    second = sign_in(client, SPEC, "triage", name="bert")
    assert client.post("/v1/labels", json=LABELS, headers=first).status_code == 403
    assert client.post("/v1/labels", json=LABELS, headers=second).status_code == 200


@pytest.mark.long
@pytest.mark.parametrize("scope", ["read", "triage", "operate", "admin"])
def test_scopes_hold_as_for_the_token(client: ApiClient, scope: Any) -> None:
    header = sign_in(client, SPEC, scope)
    client_cookies = dict(client.cookies)
    bearer = client.bearer(SPEC, scope, name="same")
    for method, path in writing_routes():
        if not path.startswith("/v1") or path == "/v1/console/codes":
            continue
        client.cookies.update(client_cookies)
        by_cookie = client.request(method, path, json={}, headers=header)
        client.cookies.clear()
        by_token = client.request(method, path, json={}, headers=bearer)
        assert by_cookie.status_code == by_token.status_code, path
        first, second = (each.json() or {} for each in (by_cookie, by_token))
        assert first.get("missing_scope") == second.get("missing_scope")


def test_a_session_makes_no_further_codes(client: ApiClient) -> None:
    header = sign_in(client, SPEC, "admin")
    assert client.post("/v1/console/codes", headers=header).status_code == 403


def test_a_session_ends_by_signing_out_by_its_age_and_with_its_token(
    client: ApiClient, settings: Settings, time: Time
) -> None:
    header = sign_in(client, SPEC, "read")
    kept = dict(client.cookies)
    assert client.post("/console/sign-out", headers=header).status_code == 204
    client.cookies.update(kept)
    assert client.get("/v1/me").status_code == 401, "signed out"
    sign_in(client, SPEC, "read", name="bert")
    time.now += SESSION_SECONDS
    assert client.get("/v1/me").status_code == 401, "too old"
    sign_in(client, SPEC, "read", name="carl")
    tokens = client.server.agents["tester"].tokens
    (token,) = [each for each in tokens.known.values() if each.name == "carl"]
    TokenTable(PlacedAgent(settings, SPEC)).revoke(token.token_id, "tests")
    tokens.refresh()
    assert client.get("/v1/me").status_code == 401, "revoked"


def test_a_token_of_the_same_id_in_another_lake_is_not_the_session_s(settings: Settings) -> None:
    """Whoever may write into the lake of one agent sees no other by the id of somebody's token."""
    other = agent(name="other")
    with console_of(settings, SPEC, other) as client:
        sign_in(client, SPEC, "read")
        (known,) = client.server.agents["tester"].tokens.known.values()
        forged = type(known)(**{**vars(known), "digest": "0" * 64})
        client.server.agents["other"].tokens.known = {known.token_id: forged}
        assert list(client.get("/v1/me").json()["agents"]) == ["tester"]


def test_the_start_asks_which_agent_is_meant(settings: Settings) -> None:
    other = agent(name="other")
    with console_of(settings, SPEC, other) as client:
        bearer = client.bearer(SPEC, "read", name="both")
        table, kept = client.server.agents["other"].tokens, client.server.agents["tester"].tokens
        table.known = dict(kept.known)
        assert exchanged(client, code_of(client, bearer)) == 303
        start = client.get("/console").text
        assert 'href="/console/cases?agent=other"' in start
        assert csrf(client)
