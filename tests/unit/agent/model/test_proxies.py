"""A proxy's address is read by one reader, whatever its password holds, and is shown by none."""

from __future__ import annotations

import asyncio
import base64
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.model.guarded_http import guarded_client
from agent.model.proxies import ProxyAddress, proxy_address
from schemas.errors import ConfigurationError, FlagstreamError, MachineError
from streaming.output.redaction import keep_environment_secret, redacted
from streaming.setup.downloads import proxy_options
from streaming.setup.machine_checks import check_proxy
from streaming.testing.scripted_http import handled_http

CANARY = "canary-5d1f"
SCHEMES = st.sampled_from(
    ["http://", "https://", "HTTP://", "", "//", "socks5://", "http:", "://", "http:///"]
)
HOSTS = st.sampled_from(["", "127.0.0.1", "[::1]", "[::1", "a b", "..", "\x01", "a" * 300, "h@h", "\u2488"])
PORTS = st.sampled_from(["", ":", ":1", ":0", ":65536", ":none", ":-1", f":{CANARY}", "/"])
LOGINS = st.text(max_size=6).map(lambda text: f"user:{CANARY}{text}@")
WRITTEN = st.tuples(SCHEMES, LOGINS, HOSTS, PORTS).map("".join)


def set_in(written: str, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("urllib.request.getproxies", lambda: {"http": written, "https": written})
    patch.setattr("urllib.request.proxy_bypass", lambda _: False)


def said_by(use: Callable[[], object]) -> str:
    """What is shown of a use, all of a traceback included."""
    try:
        return repr(use())
    except FlagstreamError as refused:
        return "".join(traceback.format_exception(refused))


@given(WRITTEN)
@example(f"http://user:{CANARY}@:3128")
@example(f"http://user:{CANARY}/x@h:1")
def test_no_address_of_a_proxy_shows_its_password(written: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        set_in(written, patch)
        patch.setattr("streaming.setup.machine_checks._ANSWER_SECONDS", 0.01)
        patch.setattr("socket.getaddrinfo", nowhere)
        for use in (
            lambda: check_proxy({"https": written}),
            proxy_options,
            lambda: guarded_client("https://llm.example.org/v1", "named"),
            lambda: proxy_or_refusal(written),
        ):
            assert CANARY not in said_by(use)


def nowhere(*_: object, **__: object) -> object:
    raise OSError(-2, "Name or service not known")


def proxy_or_refusal(written: str) -> ProxyAddress | str:
    try:
        return proxy_address(written)
    except ValueError as refused:
        return "".join(traceback.format_exception(refused))


@given(st.text(), st.booleans())
def test_a_password_may_hold_anything(password: str, is_escaped: bool) -> None:
    written = quote(password, safe="") if is_escaped else password
    found = proxy_address(f"http://user:{written}@proxy.example.org:3128")
    assert (found.host, found.port, found.url) == ("proxy.example.org", 3128, "http://proxy.example.org:3128")
    assert found.login is not None
    assert found.login[0] == "user"
    if is_escaped or "%" not in password:
        assert found.login[1] == password


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("proxy:8080", "http://proxy:8080"),
        ("//proxy", "http://proxy:80"),
        ("https://proxy", "https://proxy:443"),
        ("http://[::1]:3128/", "http://[::1]:3128"),
    ],
)
def test_an_address_is_read_with_and_without_its_scheme(written: str, url: str) -> None:
    assert proxy_address(written).url == url


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("http://:3128", "it names no host"),
        ("http://", "it names no host"),
        ("socks5://proxy:1080", "neither http:// nor https://"),
        ("proxy:none", "its port is no number up to 65535"),
        ("http://a b:1", "its host is none"),
    ],
)
def test_what_is_no_proxy_is_said_everywhere(
    monkeypatch: pytest.MonkeyPatch, written: str, said: str
) -> None:
    set_in(written, monkeypatch)
    assert said in check_proxy({"https": written}).found
    with pytest.raises(MachineError, match=f"the proxy that the environment names for http .*{said}"):
        proxy_options()
    with pytest.raises(ConfigurationError, match=f"HTTPS_PROXY: the proxy of the environment .*{said}"):
        guarded_client("https://llm.example.org/v1", "named")


def test_a_jvm_gets_host_and_port_and_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    set_in(f"http://user:{CANARY}@proxy:3128", monkeypatch)
    assert proxy_options() == [
        *("-Dhttp.proxyHost=proxy", "-Dhttp.proxyPort=3128"),
        *("-Dhttps.proxyHost=proxy", "-Dhttps.proxyPort=3128"),
    ]


@pytest.mark.parametrize("password", ["p/w", "p#w?", "p%40w", "a:b"])
def test_a_login_reaches_the_proxy(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    met: list[str | None] = []

    def handled(handler: BaseHTTPRequestHandler) -> None:
        met.append(handler.headers["Proxy-Authorization"])
        handler.send_response(200)
        handler.end_headers()

    async def ask() -> None:
        async with guarded_client("http://llm.example.org/v1", "named") as asking:
            await asking.post("http://llm.example.org/v1/chat", content=b"{}")

    with handled_http(handled) as proxy:
        set_in(proxy.replace("://", f"://user:{password}@"), monkeypatch)
        asyncio.run(ask())
    login = base64.b64encode(f"user:{password.replace('%40', '@')}".encode()).decode()
    assert met == [f"Basic {login}"]


def test_a_password_of_a_proxy_is_hidden_like_other_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.output.redaction._known", {})
    keep_environment_secret({"https_proxy": "http://user:whispered%2F31@proxy:1", "NO_PROXY": "a,b"})
    assert redacted("whispered%2F31 whispered/31") == "[redacted] [redacted]"
