"""Requests to a model go to the endpoint and nowhere else, and what comes back is bounded."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from agent.model.guarded_http import MOST_ANSWER_BYTES, Reach, guarded_client
from agent.model.llm_client import LlmClient
from agent.model.model_client import Failure
from schemas.addresses import is_loopback, is_public, literal_address
from schemas.errors import ConfigurationError
from schemas.llm import Llm
from streaming.testing import scripted_llm as scripted
from streaming.testing.scripted_http import Handled, handled_http
from tests.unit.agent.model.test_llm_client import client, question, reason_of

SECRET = "customer-4711"


def moved(to: str, status: int) -> scripted.LlmStep:
    return lambda _: scripted.LlmReply(status=status, headers={"location": to})


def long(characters: int) -> scripted.LlmStep:
    return lambda _: scripted.LlmReply(body=scripted.completion("x" * characters))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_with_the_body(status: int) -> None:
    with scripted.scripted_llm() as elsewhere:
        step = moved(f"{elsewhere.base_url}/chat/completions", status)
        with scripted.scripted_llm(default=step) as server, client(server.base_url) as asking:
            (outcome,) = asking.ask([question()], 5)
    assert reason_of(outcome) == "rejected"
    assert elsewhere.requests == []


def test_an_answer_beyond_the_limit_is_a_failure_and_is_asked_for_once() -> None:
    with scripted.scripted_llm(default=long(MOST_ANSWER_BYTES)) as server, client(server.base_url) as asking:
        (outcome,) = asking.ask([question()], 10)
    assert reason_of(outcome) == "rejected"
    assert len(server.requests) == 1


def test_an_answer_within_the_limit_is_read() -> None:
    with (
        scripted.scripted_llm(default=long(MOST_ANSWER_BYTES - 10_000)) as server,
        client(server.base_url) as asking,
    ):
        (outcome,) = asking.ask([question()], 10)
    assert reason_of(outcome) == "answered"


def test_an_answer_that_never_ends_is_left_at_the_limit() -> None:
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        while True:
            sent += handler.wfile.write(b" " * 65_536)

    assert status_of(endless) == httpx2.codes.CONTENT_TOO_LARGE
    assert sent < 16 * MOST_ANSWER_BYTES


def test_a_packed_answer_is_refused_unread() -> None:
    def packed(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-encoding", "gzip")
        handler.end_headers()
        handler.wfile.write(gzip.compress(b"x" * 10 * MOST_ANSWER_BYTES))

    assert status_of(packed) == httpx2.codes.CONTENT_TOO_LARGE


def status_of(handled: Handled) -> int:
    async def ask(url: str) -> int:
        async with guarded_client(url, "public") as asking:
            return (await asking.post(url, content=b"{}")).status_code

    with handled_http(handled) as url:
        return asyncio.run(ask(url))


@contextmanager
def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> Iterator[None]:
    """Names lead to these addresses, whatever a name server says."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in addresses]
    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        yield


@pytest.mark.parametrize("reach", ["public", "named"])
@pytest.mark.parametrize("address", ["169.254.169.254", "127.0.0.1"])
def test_a_name_that_leads_to_the_machine_s_own_services_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, address: str, reach: Reach
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with scripted.scripted_llm() as server, resolving(monkeypatch, address):
        url = server.base_url.replace("127.0.0.1", "llm.example.org")
        llm = Llm(base_url=url, max_concurrency=1)
        with LlmClient(
            llm, api_key=SecretStr(SECRET), reach="public" if address == "127.0.0.1" else reach
        ) as asking:
            (outcome,) = asking.ask([question()], 5)
    assert isinstance(outcome, Failure)
    assert outcome.reason == "unreachable"
    assert server.requests == []


def test_nothing_else_of_the_environment_goes_to_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY", "OPENAI_WEBHOOK_SECRET"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Token: {SECRET}")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    with scripted.scripted_llm() as server, client(server.base_url) as asking:
        asking.ask([question()], 5)
    assert SECRET not in repr(server.requests)


def test_a_name_is_looked_up_once_and_asked_under_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with scripted.scripted_llm() as server, resolving(monkeypatch, "127.0.0.1"):
        url = server.base_url.replace("127.0.0.1", "llm.example.org")
        with LlmClient(Llm(base_url=url), reach="named") as asking:
            (outcome,) = asking.ask([question()], 5)
    assert reason_of(outcome) == "answered"
    assert server.requests[0].headers["host"].startswith("llm.example.org:")


PRIVATE = [
    "169.254.169.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "127.0.0.1",
    "0.0.0.0",
    "fd00::1",
    "fe80::1",
    "fe80::1%eth0",
    "::1",
    "[::1]",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "2852039166",  # 169.254.169.254 in one number
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "127.1",
    "10.1",
    "169.254.169.254.",
]


@pytest.mark.parametrize("host", PRIVATE)
def test_every_spelling_of_a_private_address_is_seen_through(host: str) -> None:
    address = literal_address(host)
    assert address is not None
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_every_ipv4_address_is_judged_alike_in_all_its_spellings(address: Any) -> None:
    spellings = [
        str(address),
        str(int(address)),
        hex(int(address)),
        f"::ffff:{address}",
        f"[::ffff:{address}]",
    ]
    assert {literal_address(each) for each in spellings} == {address}
    assert is_public(address) is (address.is_global and not address.is_multicast)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "127.1"]
)
def test_this_machine_is_known_by_all_its_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["example.org", "localhost.example.org", "8.8.8.8", "", "::2"])
def test_other_machines_are_not_this_one(host: str) -> None:
    assert not is_loopback(host)
    assert literal_address("example.org") is None
    assert is_public(ip_address("8.8.8.8"))


@pytest.mark.parametrize("url", ["https://\u2460\u2461.example/v1", "https://[v1.x]/v1"])
def test_an_address_that_cannot_be_spelled_out_is_a_mistake_of_the_configuration(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"llm\.base_url"):
        guarded_client(url, "public")


def proxied(monkeypatch: pytest.MonkeyPatch, proxy: str, excepted: str) -> httpx2.Response:
    """Post to an endpoint whose name leads nowhere, with a proxy in the environment."""

    async def ask() -> httpx2.Response:
        async with guarded_client("http://llm.example.org/v1", "named") as asking:
            return await asking.post("http://llm.example.org/v1/chat", content=b"{}")

    with monkeypatch.context() as environment:
        environment.setenv("http_proxy", proxy)
        environment.setenv("no_proxy", excepted)
        return asyncio.run(ask())


def test_the_proxy_of_the_environment_is_used_unless_the_endpoint_is_excepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    met: list[str] = []

    def handled(handler: BaseHTTPRequestHandler) -> None:
        met.append(handler.path)
        handler.send_response(200)
        handler.end_headers()

    with handled_http(handled) as proxy:
        assert proxied(monkeypatch, proxy, "").status_code == httpx2.codes.OK
        assert met == ["http://llm.example.org/v1/chat"]
        with pytest.raises(httpx2.ConnectError):
            proxied(monkeypatch, proxy, "llm.example.org")
    assert len(met) == 1
