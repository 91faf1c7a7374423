"""What a run knows of the executors of its Spark cluster: how many there are, and how their tasks go on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from schemas.counts import count_of
from schemas.errors import MachineError
from streaming.batch.stream_faults import ExecutorEndedError
from streaming.profiles.entity_buckets import BucketFacts
from streaming.service.health import Condition, Health, is_running
from streaming.store.whole_files import replace_file

_CHECK_SECONDS = 1.0
_PATIENCE_SECONDS = 10.0
_LOST_SECONDS = 60.0
_STALLED_SECONDS = 60.0
_MOST_ATTEMPTS = 3


@dataclass(frozen=True)
class TaskCounts:
    """Tasks of the jobs that run now: how many work, are done, and have failed, which are run again."""

    active: int
    completed: int
    failed: int


@dataclass(frozen=True)
class ClusterFacts:
    """What a run says of its cluster.

    Attributes:
        executors: how many work for it, None where it works without.
        buckets: those that they hold, None where they hold none.
    """

    executors: int | None = None
    buckets: BucketFacts | None = None


class ExecutorWatch:
    """Counts executors and their tasks now and then, and says where there are none, or they do not go on.

    Args:
        count: how many there are; None where nobody can tell.
        tasks: those of jobs that run; None where nobody can tell.
        health: hears of it.
        file: of the agent's conditions; the number is kept beside it.
        lost: called once where there were some and have been none for a minute: a master that was started
            again knows of no application, and gives it none any more.
        clock: seconds of a clock that never goes back.
        facts: of the buckets that executors hold, None where they hold none.
    """

    def __init__(
        self,
        count: Callable[[], int | None],
        tasks: Callable[[], TaskCounts | None],
        health: Health,
        file: Path,
        lost: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        facts: BucketFacts | None = None,
    ) -> None:
        self._count, self._tasks, self._health = count, tasks, health
        self._file, self._clock = file, clock
        self._lost, self._had_some = lost, False
        self._checked_at, self._there = -_CHECK_SECONDS, clock()
        self._seen, self._moved = TaskCounts(0, 0, 0), clock()
        self._facts = facts
        self._written = b""

    def check(self) -> None:
        """Count them, at most once a second."""
        now = self._clock()
        if now < self._checked_at + _CHECK_SECONDS:
            return
        self._checked_at, found, tasks = now, self._count(), self._tasks()
        if tasks is not None:
            self._health.update(Condition.EXECUTORS_FAILING, self._fault_of(tasks, now))
        if found is not None:
            self._counted(found, now)

    def _counted(self, found: int, now: float) -> None:
        if found:
            self._there, self._had_some = now, True
        elif self._had_some and now >= self._there + _LOST_SECONDS:
            self._had_some = False
            self._lost()
        self._health.update(Condition.CLUSTER_AWAY, self._fault(now))
        content = json.dumps(asdict(ClusterFacts(found, self._facts))).encode()
        if content != self._written:
            self._written = content
            with suppress(OSError):  # of a disk that takes nothing: another condition says so
                replace_file(_beside(self._file), content)

    def _fault(self, now: float) -> str | None:
        if now < self._there + _PATIENCE_SECONDS:
            return None
        return "no executor works for this agent: has the cluster no core free, or no memory?"

    def _fault_of(self, tasks: TaskCounts, now: float) -> str | None:
        if tasks != self._seen or not tasks.active:
            self._seen, self._moved = tasks, now
        if tasks.failed:
            return f"{count_of(tasks.failed, 'task')} of this batch failed on executors, and are run again"
        if now < self._moved + _STALLED_SECONDS:
            return None
        return (
            f"{count_of(tasks.active, 'task')} of this batch have not come to an end for a minute; a Python "
            "process that says nothing for cluster.task_timeout is ended, and its task is run again"
        )


class EndedExecutors:
    """Bounds how often a batch is tried that executors do not survive; Spark runs a task four times each."""

    def __init__(self) -> None:
        self._attempts = 0

    def closed(self) -> None:
        """A batch was closed, so that executors do survive."""
        self._attempts = 0

    def weigh(self, fault: ExecutorEndedError) -> NoReturn:
        """Count an attempt that has failed; the next one may have more luck.

        Raises:
            ExecutorEndedError: the same.
            MachineError: it is the third in a row.
        """
        self._attempts += 1
        if self._attempts < _MOST_ATTEMPTS:
            raise fault
        raise MachineError(
            f"{fault}, in {_MOST_ATTEMPTS} attempts of this batch, and nothing is lost: give executors more "
            "memory (cluster.memory, three times max_bytes_per_batch), or run with execution: local until it "
            "is closed; the executors' stderr, on the master's page, says more"
        ) from fault


def executors_of(session: SparkSession) -> int | None:
    """Return how many executors a session has, None where its JVM does not say."""
    with suppress(Py4JError, OSError, AttributeError):
        return int(session.sparkContext._jsc.sc().getExecutorMemoryStatus().size()) - 1
    return None


def tasks_of(session: SparkSession) -> TaskCounts | None:
    """Count the tasks of a session's jobs that run now, None where its JVM does not say."""
    with suppress(Py4JError, OSError, AttributeError):
        tracker = session.sparkContext.statusTracker()
        stages = [tracker.getStageInfo(each) for each in tracker.getActiveStageIds()]
        known = [each for each in stages if each is not None]
        return TaskCounts(
            sum(each.numActiveTasks for each in known),
            sum(each.numCompletedTasks for each in known),
            sum(each.numFailedTasks for each in known),
        )
    return None


def read_cluster(file: Path) -> ClusterFacts:
    """Return what the agent says of its cluster that keeps this file of conditions."""
    if not is_running(file):
        return ClusterFacts()
    with suppress(OSError, ValueError, LookupError, TypeError):
        found = json.loads(_beside(file).read_text(encoding="utf-8"))
        buckets = found["buckets"]
        return ClusterFacts(found["executors"], None if buckets is None else BucketFacts(**buckets))
    return ClusterFacts()


def forget_executors(file: Path) -> None:
    """Remove what an earlier run has kept."""
    with suppress(OSError):
        _beside(file).unlink(missing_ok=True)


def _beside(file: Path) -> Path:
    return file.with_suffix(".executors.json")
