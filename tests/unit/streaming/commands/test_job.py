"""The entry point of tasks: a platform takes any exit for a failure, so it returns or raises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from streaming.cli.job import main
from streaming.commands.job import TaskFailedError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLAGSTREAM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_command_that_has_done_its_work_returns(capsys: pytest.CaptureFixture[str]) -> None:
    main(["spec", "validate", "card-fraud", "--json"])
    assert json.loads(capsys.readouterr().out)["valid"]


def test_commands_follow_each_other_until_one_fails(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["spec", "validate", "card-fraud", "--json", "--then", "spec", "validate", "absent", "--then"]
    with pytest.raises(TaskFailedError, match="`flagstream spec validate absent` ended with exit code 2"):
        main([*words, "spec", "validate", "handbook", "--json"])
    printed = capsys.readouterr()
    assert "card-fraud" in printed.out
    assert "handbook" not in printed.out
    assert "no spec named 'absent'" in printed.err


@pytest.mark.parametrize("words", [["no-such-command"], ["run", "--no-such-option"], ["labels"]])
def test_what_cannot_be_parsed_fails(words: list[str]) -> None:
    with pytest.raises(TaskFailedError, match="exit code 2"):
        main(words)


def test_a_task_has_the_state_that_is_kept_and_keeps_none_of_its_own(tmp_path: Path, home: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "llm").mkdir(parents=True)
    (kept / "llm" / "endpoints.json").write_bytes(b"of the agent")
    main(["--kept", str(kept), "spec", "validate", "card-fraud", "--json"])
    assert (home / "llm" / "endpoints.json").read_bytes() == b"of the agent"
    (home / "llm" / "endpoints.json").write_bytes(b"changed here")
    main(["--kept", str(kept), "spec", "validate", "card-fraud", "--json"])
    assert (kept / "llm" / "endpoints.json").read_bytes() == b"of the agent"


def test_beside_the_main_thread_signals_are_left_to_it() -> None:
    code = (
        "import threading; from streaming.cli.job import main; failed = []\n"
        "def run():\n"
        "    try: main(['spec', 'validate', 'card-fraud', '--json'])\n"
        "    except BaseException as fault: failed.append(fault)\n"
        "thread = threading.Thread(target=run); thread.start(); thread.join(); assert not failed, failed"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert '"valid": true' in done.stdout
