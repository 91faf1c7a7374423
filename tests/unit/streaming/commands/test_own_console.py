"""A console of one's own signs browsers in by a token that ends with it, and opens one on a screen."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.main import get_group

from schemas.errors import ConfigurationError, StoreError
from streaming.cli.root import app
from streaming.commands import browser
from streaming.commands.demo_console import DemoConsole
from streaming.commands.demo_view import console_command
from streaming.commands.own_console import OwnConsole, own_token
from streaming.commands.serve import ServeOptions
from streaming.console.console import server_with_console
from streaming.delta.lake_reader import LakeReader
from streaming.home.listen import ListenAddress
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.output import shell
from streaming.serve.api import Reach
from streaming.serve.http_server import Listening
from streaming.serve.served_agent import ServedAgent
from streaming.testing.drivers import wait_until
from streaming.testing.small_lake import build_lake, spec_of
from streaming.tokens.token_table import TokenTable, read_tokens
from tests.browser_session import SAME_ORIGIN

_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/console/sign-in\?code=(\S+)")


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlacedAgent:
    """An agent with alerts, on a machine without a screen."""
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    found = PlacedAgent(Settings.load(tmp_path / "home", {}), spec_of())
    build_lake(found)
    return found


def status_signed_in(address: str) -> int:
    """Sign in at an address as its page does; return what the inbox answers."""
    found = _ADDRESS.fullmatch(address)
    assert found is not None
    with httpx2.Client(base_url=f"http://127.0.0.1:{found[1]}", timeout=30) as browser:
        answer = browser.post("/console/sign-in", data={"code": found[2]}, headers=SAME_ORIGIN)
        assert answer.status_code == 303, answer.text
        shown = browser.get("/console/cases")
        assert 'data-do="claim-next"' in shown.text, "it may work on cases"
        return shown.status_code


def addresses(said: str) -> list[str]:
    return [found[0] for found in _ADDRESS.finditer(said)]


def test_the_demos_console_signs_in_as_often_as_it_says_an_address_and_its_token_ends(
    agent: PlacedAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    console, said = DemoConsole(agent, as_json=False), list[str]()

    def has_said(count: int) -> bool:
        said.append(capsys.readouterr().out)
        return len(addresses("".join(said))) == count

    console.start()
    try:
        wait_until(lambda: has_said(1), 60, "the address")
        assert status_signed_in(addresses("".join(said))[0]) == 200
        assert "Open it within a minute: it works once." in "".join(said)
        staying = threading.Thread(target=console.stay)
        staying.start()
        wait_until(lambda: has_said(2), 60, "another address")
        again = addresses("".join(said))[1]
        assert status_signed_in(again) == 200
        assert staying.is_alive()
    finally:
        console.close()
    staying.join(30)
    assert not staying.is_alive()
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(again)
    found = read_tokens(LakeReader.of(agent))
    (token,) = found.values()
    assert token.scopes == {"triage", "operate"}
    assert token.ends_at is not None
    assert not token.is_good(datetime.now(UTC))


def test_a_console_that_was_not_started_is_not_waited_for(agent: PlacedAgent) -> None:
    console = DemoConsole(agent, as_json=False)
    console.stay()
    console.close()


def led_to(address: str) -> str:
    """Where the page leads that a browser is given."""
    page = Path(address.removeprefix("file://")).read_text(encoding="utf-8")
    return re.findall(r'content="0; url=([^"]+)"', page)[0]


def test_no_command_line_has_the_code_and_no_file_of_it_stays(tmp_path: Path) -> None:
    script = tmp_path / "browser"
    script.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" > {tmp_path}/given\n'
        f'file="${{1#file://}}"\ncp "$file" {tmp_path}/page\n'
        f'stat -c %a "$file" "${{file%/*}}" > {tmp_path}/modes\n'
    )
    script.chmod(0o700)
    address = "http://127.0.0.1:8714/console/sign-in?code=SECRET"
    program = f"from streaming.commands.browser import open_in_browser as o; print(o({address!r}, 60.0))"
    kept = tmp_path / "kept"
    kept.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True,
        env={**os.environ, "BROWSER": str(script), "TMPDIR": str(kept)},
    )  # fmt: skip
    assert done.stdout == "True\n"
    given = (tmp_path / "given").read_text()
    assert given.startswith(f"file://{kept}/")
    assert "SECRET" not in given
    assert (tmp_path / "modes").read_text().split() == ["600", "700"]
    assert f'content="0; url={address}"' in (tmp_path / "page").read_text()
    assert list(kept.iterdir()) == [], "it goes with the process"


def test_the_page_that_leads_there_goes_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("BROWSER", "any")
    monkeypatch.setattr(browser.webbrowser, "open", lambda address: bool(led_to(address)))
    assert browser.open_in_browser("http://a/?code=b", 0.5)
    wait_until(lambda: not list(tmp_path.iterdir()), 30, "the file to go")


def test_a_token_that_one_agent_refuses_ends_with_the_others(
    agent: PlacedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, other = TokenTable.add, PlacedAgent(agent.settings, spec_of().model_copy(update={"name": "other"}))

    def refused(self: TokenTable, *words: Any) -> Any:
        if "other" in self._table.place.uri:
            raise StoreError("away")
        return add(self, *words)

    monkeypatch.setattr(TokenTable, "add", refused)
    with pytest.raises(StoreError), own_token([agent, other]):
        pass
    (token,) = read_tokens(LakeReader.of(agent)).values()
    assert not token.is_good(datetime.now(UTC))


def test_a_browser_is_opened_where_there_is_a_screen_and_nowhere_else(
    agent: PlacedAgent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = list[str]()
    monkeypatch.setattr(browser.webbrowser, "open", lambda address: opened.append(led_to(address)) is None)
    server = server_with_console([ServedAgent(agent)], Reach())
    with own_token([agent]) as token:
        own = OwnConsole(server, 8714, token)
        own.show()
        assert opened == []
        monkeypatch.setenv("DISPLAY", ":0")
        own.show()
        assert opened == [], "whoever has redirected what is printed sits elsewhere"
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        own.show()
        assert len(opened) == 1
        monkeypatch.delenv("DISPLAY")
        monkeypatch.setenv("BROWSER", "lynx")
        own.show()
    found = addresses(capsys.readouterr().out)
    assert opened == found[2:]
    assert len(set(found)) == 4, "each address has a code of its own"


def test_a_console_of_ones_own_is_for_this_machine_alone() -> None:
    public = Listening(ListenAddress(0, "0.0.0.0"), is_public=True)
    with pytest.raises(ConfigurationError, match="--console"):
        ServeOptions(public, opens=True)


def test_the_command_that_opens_the_console_again_is_one_that_serve_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shell.shutil, "which", lambda name: f"/usr/bin/{name}")
    home = tmp_path / "my demo's home"
    _, name, *words = shlex.split(console_command(home))
    given = get_group(app).commands[name].make_context(name, words).params
    assert (given["console"], given["home"], given["spec"]) == (True, home, ["card-fraud"])
    assert given["listen"] == "0", "another server may be at the usual port"
