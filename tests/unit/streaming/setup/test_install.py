"""Set-up says how far pip has come, whatever pip's lines are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.setup.install import PipProgress, pinned_names

ROOT = Path(__file__).parents[4]
PIP = """\
Ignoring colorama: markers 'sys_platform == "win32"' don't match your environment
Collecting annotated-doc==0.0.7 (from -r requirements/lock.txt (line 2))
  Downloading annotated_doc-0.0.7-py3-none-any.whl (5.3 kB)
Collecting pyspark==4.0.1 (from -r requirements/lock.txt (line 900))
  Downloading https://files.example.org/packages/ab/pyspark-4.0.1.tar.gz (434.2 MB)
  Preparing metadata (pyproject.toml): started
Requirement already satisfied: pip in ./.venv/lib/python3.11/site-packages (23.2.1)
Collecting numpy==2.3.3 (from -r requirements/lock.txt (line 950))
  Using cached numpy-2.3.3-cp311-cp311-manylinux_2_28_x86_64.whl (16.9 MB)
"""


def course(lines: str, whole: int = 5) -> PipProgress:
    found = PipProgress(whole)
    for line in lines.splitlines(keepends=True):
        found.take(line)
    return found


def test_packages_and_megabytes_are_counted_as_pip_says_them() -> None:
    found = course(PIP)
    assert (found.whole, found.collected) == (4, 4)
    assert found.megabytes == pytest.approx(451.1, abs=0.1)
    assert (
        found.line(0, 31.4)
        == "4 of 4 packages, 451 MB, 31 s  numpy-2.3.3-cp311-cp311-manylinux_2_28_x86_64.wh"
    )
    assert not found.is_installing


def test_installing_goes_on_where_downloading_has_ended() -> None:
    before, after = course(PIP), course(f"{PIP}Installing collected packages: a, b, c, d\n")
    assert before.bar(0, 1).count("#") == after.bar(0, 1).count("#") == 15
    assert after.bar(4, 1).count("#") == 30
    assert after.line(2, 40) == "installed 2 of 4 packages, 40 s"


@pytest.mark.parametrize(
    "lines", ["", PIP, "Collecting a\n" * 50, "\x1b[31mERROR: \n\n", "Downloading (MB)\n"]
)
@pytest.mark.parametrize("installed", [-3, 0, 7, 10_000])
def test_a_line_fits_the_terminal_whatever_pip_says(lines: str, installed: int) -> None:
    for whole in (0, 1, 105):
        found = course(lines, whole)
        assert len(found.line(installed, 1e4)) <= 79
        assert len(found.bar(installed, 1e4)) <= 79


@given(st.lists(st.text(max_size=40)), st.text(st.characters(exclude_categories=["Z"]), max_size=20))
def test_nothing_that_pip_says_steers_a_terminal(lines: list[str], name: str) -> None:
    found = course("\n".join([*lines, f"  Downloading {name} (1 MB)"]))
    assert "".join([found.line(0, 1), found.bar(0, 1), *found.said]).isprintable()


def test_packages_for_other_platforms_are_not_promised(tmp_path: Path) -> None:
    file = tmp_path / "lock.txt"
    file.write_text(f"colorama==0.4.6 ; sys_platform == 'win32' --hash=sha256:{'0' * 64}\n")
    command = [sys.executable, str(ROOT / "streaming" / "setup" / "install.py"), str(file), "about 1 MB"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{file}: about 1 MB"
    assert "1 package" not in done.stdout


def test_only_what_a_file_pins_is_counted() -> None:
    lines = [
        "# a==1",
        "a==1.0 \\",
        "    --hash=sha256:00",
        "    # via b==2",
        "uvicorn[standard]==0.3 ; python_version < '4'",
    ]
    assert pinned_names(lines) == ["a", "uvicorn"]
    lock = (ROOT / "requirements" / "lock.txt").read_text(encoding="utf-8").splitlines()
    assert len(pinned_names(lock)) > 80
