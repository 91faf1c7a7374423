"""The demo as a newcomer runs it: a real broker, Spark and the local model, on a machine without any key."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx2
import pytest

from streaming.testing.drivers import Child, wait_until
from tests.browser_session import SAME_ORIGIN

PAYMENTS = 12_000  # a minute of 200 a second
ENTRY = "from streaming.cli.root import main; main()"
LONGEST_SILENCE = 7.5  # seconds; a line is due every five
_TIME = re.compile(r"^(\d\d):(\d\d):(\d\d)Z ")


def environment() -> dict[str, str]:
    """Without a broker of one's own, and without flagstream on the path."""
    known = {name: value for name, value in os.environ.items() if name != "FLAGSTREAM_KAFKA"}
    folders = known["PATH"].split(os.pathsep)
    return known | {
        "PATH": os.pathsep.join(each for each in folders if not (Path(each) / "flagstream").exists())
    }


def flagstream(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ENTRY, *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.timeout(900)
def test_the_demo_catches_planted_frauds_has_alerts_classified_and_can_be_gone_on_with(
    tmp_path: Path,
) -> None:
    ran = flagstream("demo", "--llm", "local", "--json", "--home", tmp_path)
    assert ran.returncode == 0, ran.stderr
    last = json.loads(ran.stdout.splitlines()[-1])
    found = last["demo"]
    assert found["events"] == PAYMENTS
    assert found["frauds"] <= 3 * found["caught"]
    assert found["llm_due"] >= 0.9 * found["due"] > 0
    assert found["alerts"] <= found["events"] / 20
    assert sum(kind["planted"] for kind in found["kinds"]) == found["frauds"]
    for kind in found["kinds"]:
        missed = kind["planted"] - kind["caught"]
        assert sum(kind["signs"].values()) == missed
        assert missed == 0 or kind["highest_missed"] < kind["threshold"]
    compared = flagstream("reconcile", "--home", tmp_path / "demo", "--json")
    assert compared.returncode == 0, compared.stdout + compared.stderr
    report = Path(unquote(urlsplit(last["report"]).path)).read_text(encoding="utf-8")
    assert report.count("<tr>") > found["alerts"]
    assert "<svg" in report
    assert len(last["next"]) == 3
    check_console(last["console"])
    for command in last["next"]:
        done = subprocess.run(
            ["bash", "-c", command], env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"


def started(command: Sequence[str]) -> Child:
    """Start a command on a machine without a screen."""
    return Child(
        command, apart=True, env={**environment(), "BROWSER": "", "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    )


def sign_in(address: str) -> str:
    """Sign in at an address that was printed; return the inbox of cases."""
    server, _, code = address.partition("/console/sign-in?code=")
    with httpx2.Client(base_url=server, timeout=60) as browser:
        answer = browser.post("/console/sign-in", data={"code": code}, headers=SAME_ORIGIN)
        assert answer.status_code == 303, answer.text
        assert browser.get("/console/system").status_code == 200
        return browser.get("/console/cases").text


def addresses(child: Child) -> list[str]:
    """The addresses of the console that were printed so far."""
    return [line.split()[-1] for line in child.said if line.startswith("The console: ")]


def check_console(command: str) -> None:
    """See that the command that opens the console can be pasted, and shows what the demo has found."""
    child = started(["bash", "-c", f"exec {command}"])
    try:
        child.wait_for(lambda line: line.startswith("The console: "))
        assert 'class="row"' in sign_in(addresses(child)[0])
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0
    finally:
        child.kill()


@pytest.mark.timeout(300)
def test_a_demo_that_nobody_watches_on_a_terminal_says_a_line_every_five_seconds(tmp_path: Path) -> None:
    words = ["demo", "--llm", "none", "--seconds", "15", "--home", str(tmp_path), "--console"]
    child = started([sys.executable, "-c", ENTRY, *words])
    try:
        child.wait_for(lambda line: line.startswith("The console: "))
        assert "card-fraud" in sign_in(addresses(child)[0])
        child.wait_for(lambda line: line.startswith("The console stays until Ctrl-C."))
        wait_until(lambda: len(addresses(child)) == 2, 30, "another address")
        assert 'class="row"' in sign_in(addresses(child)[1])
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 0, err
    assert not [line for line in out.splitlines() if line.startswith("{")]
    moments = [
        3600 * int(found[1]) + 60 * int(found[2]) + int(found[3])
        for found in map(_TIME.match, out.splitlines())
        if found
    ]
    gaps = [(after - before) % 86_400 for before, after in pairwise(moments)]
    assert len(gaps) >= 3
    assert max(gaps) <= LONGEST_SILENCE, out
    assert "Planted frauds" in out
    assert "Next:" in out
    (address,) = [line for line in out.splitlines() if line.startswith("The report: ")]
    assert Path(unquote(urlsplit(address.removeprefix("The report: ")).path)).is_file()
    assert re.search(r"metrics at http://127\.0\.0\.1:\d+/metrics", err)
    shown = " ".join(out.split())
    assert re.search(r"flagstream run --spec card-fraud --home \S+ --metrics-port", shown), shown
