"""`flagstream console` prints where a browser signs in, and sends the token nowhere that it could be read."""

from __future__ import annotations

import json

import httpx2
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from schemas.errors import ConfigurationError, MachineError
from streaming.cli.root import app, carried_out
from streaming.commands import console
from streaming.commands.console import ConsoleServer
from streaming.home.settings import Settings
from streaming.testing.live_lake import agent
from streaming.tokens.bearer import draw
from tests.browser_session import console_of, exchanged

SPEC = agent()


def test_the_address_that_it_prints_signs_in_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with console_of(settings, SPEC) as client:
        monkeypatch.setattr(console.httpx2, "Client", lambda **_: client)
        monkeypatch.setattr(type(client), "__exit__", lambda *_: None)
        monkeypatch.setattr(type(client), "__enter__", lambda self: self)
        bearer = client.bearer(SPEC, "read")["Authorization"].removeprefix("Bearer ")
        monkeypatch.setenv("FLAGSTREAM_TOKEN", bearer)
        assert carried_out(["console", "--address", "http://localhost", "--json"]) == 0
        said = capsys.readouterr()
        assert bearer not in said.out + said.err
        code = json.loads(said.out)["address"].partition("code=")[2]
        assert [exchanged(client, code), exchanged(client, code)] == [303, 401]
        monkeypatch.undo()


@pytest.mark.parametrize("address", ["http://desk.bank:8714", "http://10.0.0.7:8714"])
def test_a_token_goes_to_no_other_machine_by_plain_http(address: str) -> None:
    with pytest.raises(ConfigurationError, match="plain HTTP"):
        ConsoleServer(address, draw().text)


@pytest.mark.parametrize("address", ["", "8714", "ftp://a", "https://", "http://[", "https://a/b"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="expected an address"):
        ConsoleServer(address, draw().text)


def test_what_is_no_token_is_not_sent() -> None:
    with pytest.raises(ConfigurationError, match="expected a token"):
        ConsoleServer("http://127.0.0.1:1", SecretStr("my password"))


def test_where_nobody_answers_it_says_what_to_start() -> None:
    with pytest.raises(MachineError, match=r"no server answers at http://127\.0\.0\.1:1 "):
        ConsoleServer("http://127.0.0.1:1", draw().text).sign_in_address()


def refused_at_first(times: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have a server refuse a token so many times before it knows it; return what it has answered."""
    answered = list[int]()

    def answer(_: httpx2.Request) -> httpx2.Response:
        answered.append(401 if len(answered) < times else 200)
        return httpx2.Response(answered[-1], json={"code": "abc"})

    client = httpx2.Client(transport=httpx2.MockTransport(answer))
    monkeypatch.setattr(console.httpx2, "Client", lambda **_: client)
    return answered


def test_a_token_that_the_server_does_not_know_yet_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = refused_at_first(2, monkeypatch)
    address = ConsoleServer("http://127.0.0.1:1", draw().text).sign_in_address()
    assert (address, answered) == ("http://127.0.0.1:1/console/sign-in?code=abc", [401, 401, 200])


def test_a_token_that_the_server_does_not_come_to_know_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = refused_at_first(100, monkeypatch)
    with pytest.raises(ConfigurationError, match=r"does not know this token.*--home"):
        ConsoleServer("http://127.0.0.1:1", draw().text, patience=0.0).sign_in_address()
    assert answered == [401]


def test_without_a_terminal_it_says_how_a_token_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLAGSTREAM_TOKEN", raising=False)
    done = CliRunner().invoke(app, ["console"])
    assert isinstance(done.exception, ConfigurationError)
    assert "there is no terminal to enter a token on: give it as FLAGSTREAM_TOKEN" in str(done.exception)
