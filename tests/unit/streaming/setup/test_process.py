"""A process is made fit for an agent, or it is said what it lacks; each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import MachineError
from streaming.setup.machine_checks import check_state
from streaming.setup.process import prepare_process
from tests.sandbox import Sandbox, require_namespaces

ROOT = Path(__file__).resolve().parents[4]
RAISED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (128, {hard}))
from streaming.setup.process import raise_open_files
print(raise_open_files(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
PLACED = """
import tempfile
tempfile._candidate_tempdir_list = lambda: [{places}]
from pathlib import Path
from streaming.setup.process import use_temporary_folder
use_temporary_folder(Path({home!r}))
import os
print(tempfile.gettempdir(), os.environ.get("TMPDIR", "-"))
"""
PREPARED = """
from pathlib import Path
from streaming.setup.process import prepare_process
prepare_process(Path({home!r}))
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TMPDIR", None)
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_limit_of_open_files_is_raised_as_far_as_it_may() -> None:
    assert run(RAISED.format(hard=4096)).stdout.split() == ["4096", "4096"]


def test_a_limit_that_is_too_low_is_named_with_what_raises_it() -> None:
    said = run(RAISED.format(hard=256)).stderr.splitlines()[-1]
    assert "may open 256 files, 1024 are needed" in said
    assert "ulimit -n" in said


def test_temporary_files_lie_below_the_home_where_the_machine_has_no_place(tmp_path: Path) -> None:
    own = tmp_path / "scratch"
    done = run(PLACED.format(places="'/proc/nowhere'", home=str(tmp_path)))
    assert done.stdout.split() == [str(own), str(own)], done.stderr
    usual = run(PLACED.format(places=repr(str(own)), home=str(tmp_path)))
    assert usual.stdout.split() == [str(own), "-"], usual.stderr


def test_a_home_that_this_user_may_not_write_is_named(tmp_path: Path) -> None:
    require_namespaces()
    tmp_path.chmod(0o555)
    for home in (tmp_path, tmp_path / "var"):
        done = Sandbox(nameless=True).run(sys.executable, "-c", PREPARED.format(home=str(home)))
        assert f"{home}: Permission denied" in done.stderr.splitlines()[-1], done.stderr
        assert "--home or FLAGSTREAM_HOME" in done.stderr


@pytest.mark.parametrize("home", ["file", "file/x", "nowhere", "n" * 300])
def test_a_home_that_cannot_be_is_named_by_a_run_and_by_doctor(tmp_path: Path, home: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(MachineError, match="all state is kept there") as refused:
        prepare_process(tmp_path / home)
    found = check_state(tmp_path / home)
    assert not found.ok
    assert str(refused.value).startswith(f"{found.found}: ")
    for said in (str(refused.value), found.advice):
        assert "--home or FLAGSTREAM_HOME" in said


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=4), st.integers(1, 4), st.booleans())
def test_doctor_says_what_a_run_would(parts: list[str], until: int, is_file: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home, there = Path(folder, *parts), Path(folder, *parts[:until])
        there.parent.mkdir(parents=True, exist_ok=True)
        there.touch() if is_file else there.mkdir()
        said = check_state(home).ok
        assert said is not is_file
        with nullcontext() if said else pytest.raises(MachineError):
            prepare_process(home)
        assert home.is_dir() is said


def test_a_home_is_made_where_it_may_be(tmp_path: Path) -> None:
    assert run(PREPARED.format(home=str(tmp_path / "a" / "b"))).returncode == 0
    assert (tmp_path / "a" / "b").is_dir()
