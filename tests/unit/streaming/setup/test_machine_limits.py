"""What a process may use is what its control groups grant, of either version, whatever the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.setup.machine_limits import MachineLimits, machine_limits

GIB = 2**30
WHOLE_CORES = len(os.sched_getaffinity(0))
WHOLE_MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
UNLIMITED_V1 = "9223372036854771712\n"


def machine(root: Path, groups: str, **files: str) -> MachineLimits:
    """Read the limits of a machine with these control groups; files are named `folder/file`."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return machine_limits(root)


def test_without_control_groups_it_is_the_machine(tmp_path: Path) -> None:
    found = machine_limits(tmp_path)
    assert (found.cores, found.memory) == (WHOLE_CORES, WHOLE_MEMORY)
    assert (found.shared_cores, found.shared_memory) == (os.cpu_count(), WHOLE_MEMORY)


def test_version_2_in_a_container_of_its_own(tmp_path: Path) -> None:
    found = machine(tmp_path, "0::/\n", **{"cpu.max": "100000 100000\n", "memory.max": f"{GIB}\n"})
    assert (found.cores, found.memory) == (1, GIB)


def test_version_2_takes_the_narrowest_of_all_groups_above(tmp_path: Path) -> None:
    found = machine(
        tmp_path,
        "0::/pods/pod1/app\n",
        **{
            "pods/pod1/app/cpu.max": "max 100000\n",
            "pods/pod1/app/memory.max": f"{3 * GIB}\n",
            "pods/pod1/cpu.max": "50000 100000\n",
            "pods/memory.max": f"{2 * GIB}\n",
            "pods/memory.high": "max\n",
        },
    )
    assert (found.cores, found.memory) == (1, 2 * GIB)


def test_version_1_with_joined_controllers(tmp_path: Path) -> None:
    groups = "12:memory:/docker/abc\n5:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"
    found = machine(
        tmp_path,
        groups,
        **{
            "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "100000\n",
            "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            "memory/docker/abc/memory.limit_in_bytes": f"{GIB}\n",
            "memory/memory.limit_in_bytes": UNLIMITED_V1,
        },
    )
    assert (found.cores, found.memory) == (1, GIB)


def test_version_1_where_the_container_sees_its_own_group_as_the_mount(tmp_path: Path) -> None:
    found = machine(
        tmp_path,
        "6:memory:/kubepods/burstable/pod7\n4:cpu:/kubepods/burstable/pod7\n",
        **{
            "cpu/cpu.cfs_quota_us": "20000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": f"{GIB}\n",
        },
    )
    assert (found.cores, found.memory) == (1, GIB)


def test_version_1_without_limits(tmp_path: Path) -> None:
    found = machine(
        tmp_path,
        "6:memory:/\n4:cpu,cpuacct:/\n",
        **{
            "cpu/cpu.cfs_quota_us": "-1\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": UNLIMITED_V1,
        },
    )
    assert (found.cores, found.memory) == (WHOLE_CORES, WHOLE_MEMORY)


@pytest.mark.parametrize("nonsense", ["", "max", "0 0", "-1 100000", "many 1", "\x00", "1 2 3"])
def test_what_cannot_be_read_is_no_limit(tmp_path: Path, nonsense: str) -> None:
    found = machine(tmp_path, "0::/\n", **{"cpu.max": nonsense, "memory.max": nonsense})
    assert (found.cores, found.memory) == (WHOLE_CORES, WHOLE_MEMORY)


@given(memory=st.integers(2**20, 2**44), cores=st.integers(1, 512))
def test_heap_and_tasks_fit_what_there_is(memory: int, cores: int) -> None:
    limits = MachineLimits(cores, memory, 512, 2**44)
    assert limits.heap.endswith("m")
    assert 512 <= int(limits.heap[:-1]) <= 3072
    assert int(limits.heap[:-1]) << 20 <= max(memory // 2, 512 << 20)
    assert 1 <= limits.tasks <= cores


def test_threads_follow_a_container_s_cores_and_leave_a_whole_machine_alone() -> None:
    narrow: dict[str, str] = {"OMP_NUM_THREADS": "7"}
    MachineLimits(2, GIB, 64, GIB).keep_threads(narrow)
    assert narrow["POLARS_MAX_THREADS"] == "2"
    assert narrow["OMP_NUM_THREADS"] == "7", "what somebody has chosen stays"
    whole: dict[str, str] = {}
    MachineLimits(64, GIB, 64, GIB).keep_threads(whole)
    assert whole == {}


@pytest.mark.parametrize(("cores", "left"), [(1, "1"), (2, "1"), (3, "1"), (16, "8")])
def test_what_works_beside_an_agent_leaves_it_half_of_the_cores(cores: int, left: str) -> None:
    beside: dict[str, str] = {"TOKIO_WORKER_THREADS": "7"}
    MachineLimits(cores, GIB, cores, GIB).keep_threads(beside, is_beside=True)
    if cores > 1:
        assert beside["POLARS_MAX_THREADS"] == beside["NUMBA_NUM_THREADS"] == left
    assert beside["TOKIO_WORKER_THREADS"] == "7", "what somebody has chosen stays"
