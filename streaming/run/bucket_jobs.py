"""Buckets on the executors of a Spark cluster: orders are parts of tasks, and each task has its place.

A cached value on each executor, its mark, is what Spark goes by when it chooses where a task runs. That it
chooses the same place again is no promise, and nothing rests on it: a process that does not hold what an
order names says so.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from py4j.protocol import Py4JError
from pyspark import RDD
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from streaming.batch.stream_faults import StopRequestedError
from streaming.output.log import log
from streaming.profiles.bucket_task import BucketAnswer, BucketOrder, task_of_buckets
from streaming.run.executors import executors_of

_GRACE_SECONDS = 10.0
_CHECK_SECONDS = 0.2
_GROUP = "spark.jobGroup.id"


class BucketJobs:
    """Has orders carried out by executors.

    Args:
        session: of the cluster.
        stop: set when the run is to end: executors then get ten seconds for what is under way.
    """

    def __init__(self, session: SparkSession, stop: threading.Event) -> None:
        self.run = uuid.uuid4().hex
        self._session, self._turn = session, threading.Lock()
        self._patience = StopPatience(stop)
        self._marks: RDD[int] | None = None
        self._executors = 0

    def carry(self, orders: Sequence[BucketOrder]) -> Sequence[BucketAnswer]:
        """Have each order carried out in one job; see BucketCarrier.

        Raises:
            StopRequestedError: the run is to end, and executors do not answer.
        """
        with self._turn, self._cancelled_on_stop():
            marks = self._marked()
            parts: list[list[BucketOrder]] = [[] for _ in range(self._executors)]
            for order in orders:
                parts[sum(order.name) % self._executors].append(order)
            sent = self._session.sparkContext.parallelize(parts, self._executors)
            return marks.zip(sent).mapPartitions(task_of_buckets()).collect()

    @contextmanager
    def _cancelled_on_stop(self) -> Iterator[None]:
        context = self._session.sparkContext
        before = context.getLocalProperty(_GROUP)
        context.setLocalProperty(_GROUP, self.run)
        try:
            with self._patience.over(lambda: context.cancelJobGroup(self.run)):
                yield
        except (Py4JError, PySparkException) as fault:
            if self._patience.has_ended:
                raise StopRequestedError from fault
            raise
        finally:
            with suppress(Py4JError, OSError):  # a JVM that has ended keeps no property
                context.setLocalProperty(_GROUP, before)  # type: ignore[arg-type]  # None takes it away

    def _marked(self) -> RDD[int]:
        """Return one mark for each executor; where one comes or goes, buckets find other places."""
        there = max(executors_of(self._session) or 0, 1)
        if self._marks is None or there != self._executors:
            if self._marks is not None:
                self._marks.unpersist()
            self._executors = there
            self._marks = self._session.sparkContext.parallelize([*range(there)], there).cache()
        return self._marks


class StopPatience:
    """How long work is waited for that others do, once a stop was asked for.

    Args:
        stop: set when that is so.
        seconds: that all of it gets from then on.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        stop: threading.Event,
        seconds: float = _GRACE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stop, self._seconds, self._clock = stop, seconds, clock
        self._since: float | None = None
        self.has_ended = False

    @contextmanager
    def over(self, give_up: Callable[[], object]) -> Iterator[None]:
        """Have `give_up` called, again and again, where the block takes longer than there is patience."""
        done = threading.Event()
        # No worker: it ends with the block, and what it meets ends with the work that it gives up.
        watching = threading.Thread(target=self._watch, args=(done, give_up), daemon=True)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()

    def _watch(self, done: threading.Event, give_up: Callable[[], object]) -> None:
        while not done.wait(_CHECK_SECONDS):
            if self._is_over():
                give_up()

    def _is_over(self) -> bool:
        if not self._stop.is_set():
            return False
        self._since = self._clock() if self._since is None else self._since
        if not self.has_ended and self._clock() >= self._since + self._seconds:
            self.has_ended = True
            said = "executors do not answer, and a stop was asked for; the next run finishes what is decided"
            log("executors_given_up", said, level=logging.WARNING)
        return self.has_ended
