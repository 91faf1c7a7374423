"""Drives the pipeline from a Structured Streaming query: start, watch, stop between batches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from schemas.errors import RetryableError
from streaming.batch.finisher import Finisher
from streaming.batch.pipeline import ClosedBatch, Pipeline
from streaming.batch.stream_faults import StopRequestedError, as_project_error
from streaming.batch.stream_settings import StreamSettings
from streaming.batch.stream_topics import StreamTopics
from streaming.batch.topic_watch import TopicWatch
from streaming.kafka.executor_intake import ExecutorIntake
from streaming.kafka.intake import Intake, Taken
from streaming.kafka.planned import planned_records
from streaming.kafka.poll_size import SAMPLE, PollSize
from streaming.kafka.source import query_id_of, read_stream

_POLL_SECONDS = 0.1
_READING_SECONDS = 5.0


class Requested(Protocol):
    """Batches that people ask for beside the stream, one of which is decided between two of its own."""

    def waits(self) -> bool:
        """Whether there is one."""

    def take(self, moment: datetime) -> ClosedBatch | None:
        """Decide the next one, its records stamped with a moment."""


class StreamRunner:
    """One streaming query over one pipeline.

    Args:
        session: the Spark session.
        pipeline: started by the caller.
        settings: source and checkpoint.
        on_batch: called with every batch that closed.
        requested: what is decided between two batches of the stream, None for nothing.
        polled: called several times a second as long as the query is watched.
    """

    def __init__(
        self,
        session: SparkSession,
        pipeline: Pipeline,
        settings: StreamSettings,
        on_batch: Callable[[ClosedBatch], None] = lambda _: None,
        requested: Requested | None = None,
        polled: Callable[[], None] = lambda: None,
    ) -> None:
        self._session, self._pipeline, self._settings = session, pipeline, settings
        self._requested, self._on_batch, self._polled = requested, on_batch, polled
        self._watch: TopicWatch | None = None
        self._topics = StreamTopics(settings, pipeline, on_batch)
        intake = Intake(settings.bootstrap, settings.reads, settings.max_bytes)
        self._intake = ExecutorIntake(intake, pipeline.contract) if settings.on_executors else intake
        self._finisher = Finisher(pipeline.finish, on_batch)
        self._deciding = threading.Lock()
        self._stopping, self._given_up = threading.Event(), threading.Event()
        self._has_read = False
        can_grow = settings.may_take_more and not settings.is_careful
        self._polls = PollSize(settings.most_at_once, may_grow=can_grow)
        self._polled_at_once = self._polls.at_once
        self._failure: BaseException | None = None

    def run(self, stop: threading.Event, *, until_idle: bool = False) -> None:
        """Process batches until `stop` is set, or until everything on the topic was processed.

        The current batch is always finished first. Where few records are taken at once, it is the only one.
        While one is scored, alerted on and closed, Spark takes the next, which is not decided earlier.

        Raises:
            FlagstreamError: whatever made a batch fail.
        """
        starting = self._topics.begin()
        watch = self._topic_watch()
        self._polls.expect(watch.unread, lambda: watch.sample_unread(SAMPLE))
        failure = self._run(starting, stop, until_idle=until_idle)
        self._raise_failure(failure)

    def _run(self, starting: str, stop: threading.Event, *, until_idle: bool) -> BaseException | None:
        """Watch over the query; return what has ended it, None where it was stopped."""
        passing: RetryableError | None = None
        query = self._start(starting)
        try:
            while (query.isActive or self._begins_anew) and not stop.is_set():
                if self._begins_anew:
                    query = self._begun_anew(query, starting, stop)
                elif self._requested is not None and self._requested.waits():
                    self._take(self._requested)
                elif self._is_done(until_idle=until_idle):
                    break
                self._pipeline.check()
                self._finisher.check()
                self._polled()
                stop.wait(_POLL_SECONDS)
        except RetryableError as fault:
            passing = fault  # may be what a worse one in the current batch has left behind
        finally:
            try:
                # Asked before stopping: afterwards the refusal of the next batch would pass for a failure.
                ended_by = None if query.isActive or self._begins_anew else query.exception()
                self._stop(query)
            finally:  # also where Spark's JVM has ended, and with it what it can be asked
                self._finish()
        return ended_by or passing

    def _is_done(self, *, until_idle: bool) -> bool:
        read_carefully = self._has_read and self._settings.is_careful
        return read_carefully or (until_idle and self._topic_watch().caught_up())

    def _finish(self) -> None:
        """Finish what is decided; what goes wrong with it ends the run, unless something else did before."""
        self._stopping.set()
        with self._deciding:
            try:
                self._finisher.settle()
            except StopRequestedError:
                pass  # the next run finishes what is decided
            except BaseException as fault:
                self._failure = self._failure or fault
            finally:
                self._finisher.close()

    @property
    def _begins_anew(self) -> bool:
        """Whether the query is to have polls of another size, and nothing has failed."""
        return self._polls.at_once != self._polled_at_once and self._failure is None

    def _begun_anew(self, query: StreamingQuery, starting: str, stop: threading.Event) -> StreamingQuery:
        """Go on where the query stands: it keeps the size of its polls as long as it runs.

        A pipeline in which the batch meanwhile failed is not used again.
        """
        self._stop(query)
        if self._failure is not None or stop.is_set():
            return query
        self._stopping.clear()
        return self._start(starting)

    def _start(self, starting: str) -> StreamingQuery:
        settings, self._polled_at_once = self._settings, self._polls.at_once
        frame = read_stream(
            self._session,
            settings.bootstrap,
            settings.reads,
            max_records=settings.max_records,
            starting=starting,
            most_at_once=self._polled_at_once,
        )
        writer = self._intake.bounded(frame).writeStream.foreachBatch(self._on_micro_batch)
        return writer.option("checkpointLocation", settings.checkpoint_location).start()

    def _on_micro_batch(self, frame: DataFrame, batch_id: int) -> None:
        checkpoint = self._settings.checkpoint
        with self._deciding:
            if self._stopping.is_set():
                raise StopRequestedError
            try:
                self._topics.expect(batch_id)
                decided = self._pipeline.decide(
                    lambda: self._taken(frame, planned_records(checkpoint, batch_id)),
                    query_id_of(checkpoint) or "",
                    batch_id,
                    lambda: self._topics.reached_by(batch_id),
                    origin=self._topics.origin,
                    settle=self._finisher.settle,
                )
            except StopRequestedError:
                raise
            except BaseException as fault:
                if self._given_up.is_set() and isinstance(fault, Py4JError | PySparkException):
                    raise StopRequestedError from fault
                self._failure = self._failure or fault
                raise
            if decided is not None:
                self._finisher.begin(decided)
                self._has_read = True

    def _taken(self, frame: DataFrame, planned: int) -> Taken:
        taken = self._intake.take(frame, planned)
        self._polls.learn(taken.places.num_rows, taken.size)
        if self._begins_anew:
            self._refuse_others()
        return taken

    def _take(self, requested: Requested) -> None:
        """Decide one requested batch, unless it is not known yet at which time of the broker it comes."""
        moment = self._arrival()
        if moment is None:
            return
        with self._deciding:
            try:
                self._finisher.settle()
                closed = requested.take(moment)
            except BaseException:
                self._stopping.set()  # the pipeline is not to be used again
                raise
        if closed is not None:
            self._on_batch(closed)

    def _arrival(self) -> datetime | None:
        try:
            behind = self._topic_watch().unread() > 0
        except RetryableError:
            return None
        return arrival(datetime.now(UTC), self._pipeline.stream_time, behind=behind)

    def _topic_watch(self) -> TopicWatch:
        if self._watch is None:
            self._watch = TopicWatch(self._settings)
        return self._watch

    def _stop(self, query: StreamingQuery) -> None:
        """Let the current batch finish, refuse the next one, then stop."""
        self._stopping.set()
        if self._settings.on_executors:
            self._give_up_reading(query)
        with self._deciding:
            self._refuse_others()
        query.stop()
        self._session.sparkContext.setLogLevel("WARN")

    def _give_up_reading(self, query: StreamingQuery) -> None:
        """Wait for the current batch, but not for executors: there may be none that takes its tasks.

        What they read is not decided yet, so it is read again by whoever comes next.
        """
        while not self._deciding.acquire(timeout=_READING_SECONDS):
            self._given_up.set()
            self._session.sparkContext.setLogLevel("OFF")
            # Spark runs all jobs of a query in this group; the thread that has begun them hears of it.
            self._session.sparkContext.cancelJobGroup(str(query.runId))
        self._deciding.release()

    def _refuse_others(self) -> None:
        """Take no batch after the current one.

        Spark 4.2 overflows its stack over the text of the refusal and would log that at length.
        """
        self._stopping.set()
        self._session.sparkContext.setLogLevel("OFF")

    def _raise_failure(self, fault: BaseException | None) -> None:
        failure = self._failure or fault
        if isinstance(failure, Py4JError | PySparkException):
            raise as_project_error(failure, self._settings.bootstrap) from failure
        if failure is not None:
            raise failure


def arrival(now: datetime, read: datetime | None, *, behind: bool) -> datetime | None:
    """Return the broker's time of what arrives now, None where nobody can tell yet.

    While the stream is behind, that is the time of its newest batch: what is still to be read, and is
    compared with what arrives, is older than now. A broker ahead of this machine's clock has the say.

    Args:
        now: by this machine's clock.
        read: the broker's time of the newest batch, None before the first.
        behind: whether the topic holds records that are not read yet.
    """
    return read if behind else max(now, read or now)
