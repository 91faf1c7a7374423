"""What this process may use of the machine: the cores and the memory of its container, where it is in one.

Read from the control groups themselves, of version 1 and 2: libraries see the whole machine and start a
thread per core of it, and a heap of fixed size is killed where the container has less.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_MOST_HEAP_MIB, _LEAST_HEAP_MIB = 3072, 512
_HEAP_SHARE = 0.4  # beside the driver's arrays, the local model and the embedded broker
_MOST_TASKS = 8
_NO_LIMIT = 2**60  # version 1 writes the largest number of whole pages
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "TOKIO_WORKER_THREADS",
)


@dataclass(frozen=True)
class MachineLimits:
    """Cores and memory of this process.

    Attributes:
        cores: how many it may keep busy at once, at least 1.
        memory: bytes.
        shared_cores: of the machine.
        shared_memory: of the machine.
    """

    cores: int
    memory: int
    shared_cores: int
    shared_memory: int

    @property
    def heap(self) -> str:
        """How large Spark's JVM may become, for -Xmx: two fifths of the memory, 3 GiB at most."""
        fitting = int(self.memory * _HEAP_SHARE) >> 20
        return f"{min(max(fitting, _LEAST_HEAP_MIB), _MOST_HEAP_MIB)}m"

    @property
    def tasks(self) -> int:
        """How many tasks Spark runs at once."""
        return min(self.cores, _MOST_TASKS)

    def keep_threads(
        self, environ: MutableMapping[str, str] = os.environ, *, is_beside: bool = False
    ) -> None:
        """Have libraries that are imported from now on start as many threads as there are cores for them.

        Args:
            environ: what they read; what somebody has chosen stays.
            is_beside: this process works beside an agent, and leaves it half of the cores.
        """
        cores = max(self.cores // 2, 1) if is_beside else self.cores
        if cores < self.shared_cores:
            for name in _THREADS:
                environ.setdefault(name, str(cores))


def machine_limits(root: Path = Path("/")) -> MachineLimits:
    """Return what this process may use.

    Args:
        root: where `proc` and `sys` are found.
    """
    allowed, all_cores = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = [math.ceil(each) for each in _cpu_quotas(root)]
    return MachineLimits(
        max(min([allowed, *cores]), 1), min([memory, *_memory_limits(root)]), all_cores, memory
    )


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Yield the cores that each control group above this process grants."""
    for folder in _groups(root, "cpu"):
        quota = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        with suppress(ValueError, ZeroDivisionError):
            granted, period = map(int, quota)
            if granted > 0:
                yield granted / period


def _memory_limits(root: Path) -> Iterator[int]:
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            with suppress(ValueError):
                (limit,) = map(int, _words(folder / name))
                if 0 < limit < _NO_LIMIT:
                    yield limit


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control groups for a controller, up to where they are mounted.

    A container that has no view of its own names groups of the machine that are not there: its mount is its
    group then.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, names, place = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        mounted = root / "sys/fs/cgroup"
        if names:
            mounted = next(
                (mounted / each for each in (names, controller) if (mounted / each).is_dir()), mounted
            )
        own = mounted / place.strip().lstrip("/")
        yield from (each for each in (own, *own.parents) if each.is_relative_to(mounted))


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []
