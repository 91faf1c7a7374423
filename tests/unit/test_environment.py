from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOSTILE = {
    **{"TERM": "dumb", "TZ": "Asia/Kolkata", "LC_ALL": "C", "COLUMNS": "31", "LINES": "7"},
    **{"NO_COLOR": "1", "FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TTY_COMPATIBLE": "1"},
}
SEEN = {"TERM": "xterm", "TZ": "UTC", "LC_ALL": "C.UTF-8"}


def test_whoever_runs_the_tests_they_see_one_environment() -> None:
    assert {name: os.environ.get(name) for name in HOSTILE} == {name: SEEN.get(name) for name in HOSTILE}
    assert time.timezone == 0
    assert time.tzname[0] == "UTC"


@pytest.mark.skipif(os.environ.get("FLAGSTREAM_TESTED_TWICE") == "1", reason="the child of the test below")
def test_the_environment_is_the_same_when_another_one_is_given() -> None:
    environment = {**os.environ, **HOSTILE, "FLAGSTREAM_TESTED_TWICE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stdout
    assert "1 passed, 1 skipped" in child.stdout
