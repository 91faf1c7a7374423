"""A real control group of one core and four gibibytes: what an agent in it sees, and that it works."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from streaming.testing.drivers import wait_until
from tests.sandbox import FLAGSTREAM

MOUNTED = Path("/sys/fs/cgroup")
MEMORY = 4 << 30
LIMITS = {
    "memory": {"memory.limit_in_bytes": MEMORY},
    "cpu": {"cpu.cfs_period_us": 100_000, "cpu.cfs_quota_us": 100_000},
}
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def groups() -> Iterator[list[Path]]:
    """One group per controller, of version 1; removed when nothing runs in it any more."""
    try:
        made = made_below(MOUNTED)
    except OSError as fault:
        pytest.skip(f"no control groups of version 1 can be made here: {fault}")
    yield made
    for folder in made:
        wait_until(partial(_is_empty, folder), 60, "its processes to end")
        folder.rmdir()


def made_below(mounted: Path) -> list[Path]:
    """Make them, or none of them.

    Raises:
        OSError: one of them cannot be made, or takes no such limit.
    """
    folders = {mounted / name / f"flagstream-{uuid.uuid4().hex}": each for name, each in LIMITS.items()}
    with ExitStack() as undone:
        for folder in folders:
            folder.mkdir()
            undone.callback(folder.rmdir)
        for folder, limits in folders.items():
            for name, value in limits.items():
                (folder / name).write_text(str(value), encoding="ascii")
        undone.pop_all()
    return list(folders)


def _is_empty(group: Path) -> bool:
    return not (group / "cgroup.procs").read_text(encoding="ascii")


def inside(groups: list[Path], *arguments: object) -> list[str]:
    """Return a command of flagstream that enters the groups first."""
    enter = " && ".join(f"echo $$ > {folder}/cgroup.procs" for folder in groups)
    return ["sh", "-c", f'{enter} && exec "$@"', "sh", *FLAGSTREAM, *map(str, arguments)]


def test_where_one_group_cannot_be_made_the_other_one_does_not_stay(tmp_path: Path) -> None:
    first, *_ = LIMITS
    (tmp_path / first).mkdir()
    with pytest.raises(FileNotFoundError):
        made_below(tmp_path)
    assert list((tmp_path / first).iterdir()) == []


def test_doctor_sees_the_cores_and_the_memory_of_its_group(groups: list[Path], tmp_path: Path) -> None:
    command = inside(groups, "doctor", "--json", "--home", tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    checks = {each["name"]: each["found"] for each in json.loads(done.stdout)}
    assert checks["cores"].startswith("1 core of "), checks
    assert checks["memory"].startswith("4.0 GiB granted to this container"), checks


def test_a_demo_works_within_its_group_and_the_jvm_takes_two_fifths(
    groups: list[Path], tmp_path: Path
) -> None:
    command = inside(groups, "demo", "--seconds", 6, "--llm", "none", "--json", "--home", tmp_path)
    heaps = set[int]()

    def note_heaps() -> bool:
        for process in (groups[0] / "cgroup.procs").read_text().split():
            try:
                said = (Path("/proc") / process / "cmdline").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            if "SparkSubmit" in said:
                heaps.update(map(int, re.findall(r"-Xmx(\d+)m", said)))
        return running.poll() is not None

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        wait_until(note_heaps, 240, "the demo's end")
        said, complaints = running.communicate()
    assert running.returncode == 0, complaints
    assert json.loads(said.splitlines()[-1])["demo"]["events"] == 1_200
    assert heaps == {int(MEMORY * 0.4) >> 20}, "of this machine's whole memory it would take more"
    assert int((groups[0] / "memory.max_usage_in_bytes").read_text()) <= MEMORY
