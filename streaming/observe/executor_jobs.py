"""What the executors of a Spark cluster did for batches: their jobs, as Spark's own figures have them.

Spark keeps them in the driver's JVM, also where its page is off; they are asked for as the JSON with which
its monitoring API would answer. Nothing is sent to executors, and none of them knows that it is watched.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JError

from schemas.batch_key import BatchKey
from schemas.instants import micros_of
from streaming.batch.steps import StepTime
from streaming.observe.metric import OTHER

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MOST_TASKS = 64
_MOST_KEPT = 1_000
_MICRO_NS = 1_000
_BATCH = re.compile(r"^id = (?P<query>\S+)$.*^batch = (?P<batch>\d+)$", re.MULTILINE | re.DOTALL)
_Figures = dict[str, Any]


@dataclass(frozen=True)
class ExecutorTask:
    """One attempt at a task, as the driver saw it; times in nanoseconds since 1970 UTC."""

    executor: str
    began_ns: int
    ended_ns: int
    failed: bool


@dataclass(frozen=True)
class ExecutorJob:
    """A job that has ended.

    Attributes:
        batch: of the stream for which it was done, None where Spark names none.
        began_ns, ended_ns: nanoseconds since 1970 UTC.
        waited: seconds until an executor took up the first task.
        done, failed: attempts at tasks.
        seconds: that executors took for tasks, together.
        result_bytes: sent back to the driver.
        tasks: the longest ones, at most `MOST_TASKS`.
    """

    batch: BatchKey | None
    began_ns: int
    ended_ns: int
    waited: float
    done: int
    failed: int
    seconds: float
    result_bytes: int
    tasks: Sequence[ExecutorTask]

    @property
    def skew(self) -> float | None:
        """How many times the mean of all tasks the longest one took; None where nothing was done."""
        if not self.tasks or not self.done or not self.seconds:
            return None
        longest = max(each.ended_ns - each.began_ns for each in self.tasks) / 1e9
        return longest / (self.seconds / self.done)


class ExecutorJobs:
    """Reads each job once, when the batch for which it was done is over. Any thread may call.

    Args:
        session: whose jobs they are; those before are not counted.
    """

    def __init__(self, session: SparkSession) -> None:
        self._spark, self._lock = _SparkFigures(session), threading.Lock()
        self._next, self._running = self._spark.jobs(), list[int]()
        self._ended: list[ExecutorJob] = []

    def of(self, batch: BatchKey) -> list[ExecutorJob]:
        """Return the jobs that were done for a batch, or for those before it, and are over."""
        # A JVM that has ended says nothing any more; whoever waits for its answers says so.
        with self._lock, suppress(Py4JError, OSError):
            self._read()
        with self._lock:
            found = [each for each in self._ended if _is_over(each, batch)]
            self._ended = [each for each in self._ended if not _is_over(each, batch)][-_MOST_KEPT:]
        return found

    def _read(self) -> None:
        until = self._spark.jobs()
        numbers, self._running = [*self._running, *range(self._next, until)], []
        self._next = until
        for number in numbers:
            job = self._spark.job(number)
            if job is None or job["status"] == "RUNNING":
                self._running = [*self._running, number][-_MOST_KEPT:]
            else:
                self._ended.append(_job(job, list(self._stages(job))))

    def _stages(self, job: _Figures) -> Iterator[tuple[_Figures, Sequence[_Figures]]]:
        for number in job["stageIds"]:
            stage = self._spark.stage(number)
            if stage is not None:
                yield stage, self._spark.tasks(number, stage["attemptId"])


class _SparkFigures:
    """Asks the driver's JVM; what it does not know, or not any more, is None."""

    def __init__(self, session: SparkSession) -> None:
        context = session.sparkContext
        jvm: Any = context._jvm
        api = jvm.org.apache.spark.status.api.v1
        self._context: Any = context._jsc.sc()
        self._store, self._mapper = self._context.statusStore(), api.JacksonMessageWriter().mapper()
        self._longest_first, self._all = api.TaskSorting.DECREASING_RUNTIME, jvm.java.util.ArrayList()

    def jobs(self) -> int:
        """Return how many jobs were begun so far."""
        return int(self._context.dagScheduler().numTotalJobs())

    def job(self, number: int) -> _Figures | None:
        found: _Figures | None = self._asked(lambda: self._store.job(number))
        return found

    def stage(self, number: int) -> _Figures | None:
        found: _Figures | None = self._asked(lambda: self._store.lastStageAttempt(number))
        return found

    def tasks(self, stage: int, attempt: int) -> Sequence[_Figures]:
        asked = (stage, attempt, 0, MOST_TASKS, self._longest_first, self._all)
        return self._asked(lambda: self._store.taskList(*asked)) or ()

    def _asked(self, ask: Any) -> Any:
        try:
            found = ask()
        except Py4JError:
            return None
        return json.loads(self._mapper.writeValueAsString(found))


def step_of(times: Iterable[StepTime], job: ExecutorJob) -> str:
    """Return the step of a batch in which a job was done: that around its middle."""
    middle = (job.began_ns + job.ended_ns) // 2
    return next((str(each.step) for each in times if each.began_ns <= middle <= each.ended_ns), OTHER)


def _is_over(job: ExecutorJob, batch: BatchKey) -> bool:
    """Whether a job belongs to a batch that is over, or to one before it; executors may be at the next."""
    if job.batch is None:
        return True
    return job.batch.query_id == batch.query_id and job.batch.batch_id <= batch.batch_id


def _job(job: _Figures, stages: Sequence[tuple[_Figures, Sequence[_Figures]]]) -> ExecutorJob:
    ran = [stage for stage, _ in stages]
    began = _nanos(job["submissionTime"])
    launched = [_nanos(each["firstTaskLaunchedTime"]) for each in ran if each.get("firstTaskLaunchedTime")]
    tasks = [_task(each) for _, tasks in stages for each in tasks if each.get("duration") is not None]
    return ExecutorJob(
        batch=_batch(job.get("description") or ""),
        began_ns=began,
        ended_ns=_nanos(job["completionTime"]),
        waited=max(min(launched, default=began) - began, 0) / 1e9,
        done=sum(each["numCompleteTasks"] for each in ran),
        failed=sum(each["numFailedTasks"] + each["numKilledTasks"] for each in ran),
        seconds=sum(each["executorRunTime"] for each in ran) / 1e3,
        result_bytes=sum(each["resultSize"] for each in ran),
        tasks=tuple(tasks),
    )


def _task(task: _Figures) -> ExecutorTask:
    began = _nanos(task["launchTime"])
    ended = began + task["duration"] * 1_000_000
    return ExecutorTask(task["executorId"], began, ended, failed=task["status"] != "SUCCESS")


def _batch(description: str) -> BatchKey | None:
    """Spark describes the jobs of a streaming query so, in lines of their own."""
    found = _BATCH.search(description)
    return None if found is None else BatchKey(found["query"], int(found["batch"]))


def _nanos(moment: str) -> int:
    """Read the form of Spark's monitoring API, to the millisecond."""
    at = datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%fGMT").replace(tzinfo=UTC)
    return micros_of(at) * _MICRO_NS
