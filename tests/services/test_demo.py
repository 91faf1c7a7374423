"""The demo as a newcomer runs it: a real broker, Spark and the local model, on a machine without any key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PAYMENTS = 12_000  # a minute of 200 a second
ENTRY = "from streaming.cli.root import main; main()"


def flagstream(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "FLAGSTREAM_KAFKA"}
    command = [sys.executable, "-c", ENTRY, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.timeout(600)
def test_the_demo_catches_planted_frauds_has_alerts_classified_and_loses_nothing(tmp_path: Path) -> None:
    ran = flagstream("demo", "--llm", "local", "--json", "--home", tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])["demo"]
    assert found["events"] == PAYMENTS
    assert found["frauds"] <= 3 * found["caught"]
    assert 0 < found["llm_alerts"] <= found["alerts"] <= found["events"] / 20
    compared = flagstream("reconcile", "--home", tmp_path / "demo", "--json")
    assert compared.returncode == 0, compared.stdout + compared.stderr
