"""The demo as a newcomer runs it: a real broker, Spark and the local model, on a machine without any key."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

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
    for command in last["next"]:
        done = subprocess.run(
            ["bash", "-c", command], env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"


@pytest.mark.timeout(300)
def test_a_demo_that_nobody_watches_on_a_terminal_says_a_line_every_five_seconds(tmp_path: Path) -> None:
    ran = flagstream("demo", "--llm", "none", "--seconds", "15", "--home", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert not [line for line in ran.stdout.splitlines() if line.startswith("{")]
    moments = [
        3600 * int(found[1]) + 60 * int(found[2]) + int(found[3])
        for found in map(_TIME.match, ran.stdout.splitlines())
        if found
    ]
    gaps = [(after - before) % 86_400 for before, after in pairwise(moments)]
    assert len(gaps) >= 3
    assert max(gaps) <= LONGEST_SILENCE, ran.stdout
    assert "Planted frauds" in ran.stdout
    assert "Go on with:" in ran.stdout
    (address,) = [line for line in ran.stdout.splitlines() if line.startswith("The report: ")]
    assert Path(unquote(urlsplit(address.removeprefix("The report: ")).path)).is_file()
    assert re.search(r"metrics at http://127\.0\.0\.1:\d+/metrics", ran.stderr)
    shown = " ".join(ran.stdout.split())
    assert re.search(r"flagstream run --spec card-fraud --home \S+ --metrics-port", shown), shown
