"""What set-up says of a machine before it downloads anything: nothing, or one line that names the cure."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAID = 'openjdk version "{}" 2026-01-20'


def machine(folder: Path, *arguments: str, **programs: str) -> subprocess.CompletedProcess[str]:
    """Check the machine with programs of this content before all others on the path."""
    folder.mkdir(exist_ok=True)
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    # As somebody enters it, not as a part of the `make` that runs the tests.
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment = {**own, "PATH": f"{folder}:{os.environ['PATH']}", "JAVA_HOME": ""}
    command = ["make", "machine", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def java(version: str) -> str:
    return f"echo '{SAID.format(version)}' >&2"


@pytest.mark.parametrize("version", ["17.0.9", "21", "25-ea", "25.0.1"])
def test_a_machine_that_will_do_is_passed_over_in_silence(tmp_path: Path, version: str) -> None:
    done = machine(tmp_path / "bin", java=java(version))
    assert (done.returncode, done.stderr) == (0, "")


def df(row: str) -> str:
    return f"echo 'Filesystem 1024-blocks Used Available Capacity Mounted on'; echo '{row}'"


@pytest.mark.parametrize(
    ("row", "arguments"),
    [
        ("//host/my share 9000000 8 3200000 70% /mnt/my share 5 2% x", ("STAMPS=none",)),
        ("overlay - - - - /", ("STAMPS=none",)),
        ("/dev/sda1 9 8 2000000 99% /", ("STAMPS={begun}",)),
    ],
    ids=["blanks in names", "an unknown size", "a set-up that has begun"],
)
def test_a_disk_stops_no_set_up_without_need(tmp_path: Path, row: str, arguments: tuple[str, ...]) -> None:
    (tmp_path / "stamps").mkdir()
    (tmp_path / "stamps" / "venv").touch()
    filled = [each.format(begun=tmp_path / "stamps") for each in arguments]
    done = machine(tmp_path / "bin", *filled, java=java("17"), df=df(row))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("programs", "arguments", "said"),
    [
        ({"java": java("11.0.2")}, (), "a JDK 17 to 25"),
        ({"java": java("1.8.0_392")}, (), "a JDK 17 to 25"),
        ({"java": java("26")}, (), "a JDK 17 to 25"),
        ({"java": "exit 127"}, (), "a JDK 17 to 25"),
        ({"java": java("17"), "other": "exit 1"}, ("PYTHON=other",), "Python 3.11 to 3.14"),
        ({"java": java("17")}, ("PYTHON=no-such-python",), "Python 3.11 to 3.14"),
        ({"java": java("17"), "df": df("x 9 8 3100000 1% /")}, ("STAMPS=none",), "3.2 GB on disk"),
        ({"java": java("17"), "df": df("my disk 1 9 8 2000000 1% /a b")}, ("STAMPS=none",), "3.2 GB on disk"),
    ],
)
def test_what_will_not_do_is_one_line_with_the_cure(
    tmp_path: Path, programs: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
    done = machine(tmp_path / "bin", *arguments, **programs)
    assert done.returncode != 0
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert said in line
