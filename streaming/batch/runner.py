"""Drives the pipeline from a Structured Streaming query: start, watch, stop between batches."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from py4j.protocol import Py4JError
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from schemas.errors import DataLossError, FlagstreamError, RetryableError
from streaming.batch.pipeline import ClosedBatch, Pipeline
from streaming.batch.queries import LOSS, new_query
from streaming.batch.resuming import Loss, Resumption, no_records, resume, set_aside
from streaming.batch.store import Origin
from streaming.kafka.intake import Intake, planned_records
from streaming.kafka.source import offsets_of, query_id_of, read_stream
from streaming.kafka.topic import TopicFacts

_POLL_SECONDS = 0.1
_CALL_SECONDS = 10.0
_IDLE_SECONDS = 1.0
_RECORD_AT, _STAMP_OVERFLOWS = "Record at topic", "that overflows when converting to"
_RECORDS_LOST = "Some data may have been lost because they are not available in Kafka"


@dataclass(frozen=True)
class StreamSettings:
    """What the query reads and where Spark keeps its checkpoint.

    Attributes:
        starting: where it begins without a checkpoint, for Spark.
        reached: partition → next offset to read by the newest batch, None before the first.
        topic_id: of the topic that the newest batch was read from, None where that is not on record.
        superseded: what the checkpoint was to read has been given up since.
        accept_loss: why records that the topic no longer holds may be given up, None where they may not.
    """

    bootstrap: str
    topic: str
    checkpoint: Path
    max_records: int
    max_bytes: int
    starting: str
    reached: Mapping[str, int] | None = None
    topic_id: str | None = None
    superseded: bool = False
    accept_loss: str | None = None


class StopRequestedError(Exception):
    """Refuses a micro-batch that Spark hands over after a stop was asked for."""


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
    """

    def __init__(
        self,
        session: SparkSession,
        pipeline: Pipeline,
        settings: StreamSettings,
        on_batch: Callable[[ClosedBatch], None] = lambda _: None,
        requested: Requested | None = None,
    ) -> None:
        self._session, self._pipeline, self._settings = session, pipeline, settings
        self._requested, self._on_batch = requested, on_batch
        self._watch: TopicWatch | None = None
        self._facts, self._origin = TopicFacts(settings.bootstrap, settings.topic), Origin()
        self._intake = Intake(settings.bootstrap, settings.topic, settings.max_bytes)
        self._in_hand = threading.Lock()
        self._stopping = threading.Event()
        self._failure: BaseException | None = None

    def run(self, stop: threading.Event, *, until_idle: bool = False) -> None:
        """Process batches until `stop` is set, or until everything on the topic was processed.

        The current batch is always finished first.

        Raises:
            FlagstreamError: whatever made a batch fail.
        """
        with closing(self._facts):
            failure = self._run(self._start(), stop, until_idle=until_idle)
        self._raise_failure(failure)

    def _run(self, query: StreamingQuery, stop: threading.Event, *, until_idle: bool) -> BaseException | None:
        """Watch over a query; return what has ended it, None where it was stopped."""
        passing: RetryableError | None = None
        try:
            while query.isActive and not stop.is_set():
                if self._requested is not None and self._requested.waits():
                    self._take(self._requested)
                elif until_idle and self._topic().caught_up():
                    break
                self._pipeline.check()
                stop.wait(_POLL_SECONDS)
        except RetryableError as fault:
            passing = fault  # may be what a worse one in the current batch has left behind
        finally:
            # Asked before stopping: afterwards the refusal of the next batch would pass for a failure.
            ended_by = None if query.isActive else query.exception()
            self._stop(query)
            if self._watch is not None:
                self._watch.close()
        return ended_by or passing

    def _start(self) -> StreamingQuery:
        settings, starting = self._settings, self._resume()
        frame = read_stream(
            self._session,
            settings.bootstrap,
            settings.topic,
            max_records=settings.max_records,
            starting=starting,
        )
        writer = self._intake.bounded(frame).writeStream.foreachBatch(self._on_micro_batch)
        return writer.option("checkpointLocation", str(settings.checkpoint)).start()

    def _resume(self) -> str:
        """Return where the query begins, once nothing that it was to read is gone or that is on record."""
        settings, found = self._settings, self._facts.state()
        if found.topic_id is not None:
            self._origin = Origin({settings.topic: found.topic_id})
        place = resume(settings.reached, settings.topic_id, found)
        if place.lost and settings.accept_loss is None:
            raise DataLossError(place.refusal(settings.topic))
        if place.lost:
            self._record_loss(place, settings.accept_loss or "")
        if place.lost or settings.superseded:
            set_aside(settings.checkpoint)
        return settings.starting if place.starts is None else json.dumps({settings.topic: place.starts})

    def _record_loss(self, place: Resumption, why: str) -> None:
        """A batch of no records says what was given up and moves the stream to what is there."""
        loss = Loss(why, self._settings.topic, place.lost)
        offsets = {self._settings.topic: dict(place.starts or {})}
        origin = replace(self._origin, lost=loss.to_metadata())
        name = new_query(LOSS)
        closed = self._pipeline.process(no_records, name, 0, lambda: offsets, origin=origin)
        if closed is not None:
            self._on_batch(closed)

    def _planned(self, batch_id: int) -> dict[str, dict[str, int]]:
        """Return the end offsets of a batch that was read, if its topic is still the one it began with."""
        known = (self._origin.topic_ids or {}).get(self._settings.topic)
        if known is not None and self._facts.topic_id() != known:
            raise DataLossError(
                f"topic {self._settings.topic} was deleted and created anew while it was read: start again, "
                "which names the offsets that are gone and what to do"
            )
        return offsets_of(self._settings.checkpoint, batch_id)

    def _on_micro_batch(self, frame: DataFrame, batch_id: int) -> None:
        checkpoint, topic = self._settings.checkpoint, self._settings.topic
        with self._in_hand:
            if self._stopping.is_set():
                raise StopRequestedError
            try:
                closed = self._pipeline.process(
                    lambda: self._intake.take(frame, planned_records(checkpoint, batch_id, topic)),
                    query_id_of(checkpoint) or "",
                    batch_id,
                    lambda: self._planned(batch_id),
                    origin=self._origin,
                )
            except BaseException as fault:
                self._failure = fault
                raise
        if closed is not None:
            self._on_batch(closed)

    def _take(self, requested: Requested) -> None:
        """Decide one requested batch, unless it is not known yet at which time of the broker it comes."""
        moment = self._arrival()
        if moment is None:
            return
        with self._in_hand:
            try:
                closed = requested.take(moment)
            except BaseException:
                self._stopping.set()  # the pipeline is not to be used again
                raise
        if closed is not None:
            self._on_batch(closed)

    def _arrival(self) -> datetime | None:
        try:
            behind = self._topic().unread() > 0
        except RetryableError:
            return None
        return arrival(datetime.now(UTC), self._pipeline.stream_time, behind=behind)

    def _topic(self) -> TopicWatch:
        if self._watch is None:
            self._watch = TopicWatch(self._settings)
        return self._watch

    def _stop(self, query: StreamingQuery) -> None:
        """Let the current batch finish, refuse the next one, then stop.

        Spark 4.2 overflows its stack over the text of the refusal and would log that at length.
        """
        self._stopping.set()
        with self._in_hand:
            self._session.sparkContext.setLogLevel("OFF")
        query.stop()
        self._session.sparkContext.setLogLevel("WARN")

    def _raise_failure(self, fault: BaseException | None) -> None:
        failure = self._failure or fault
        if isinstance(failure, Py4JError | StreamingQueryException):
            raise _as_project_error(failure) from failure
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


class TopicWatch:
    """Measures how far the stream is behind the topic.

    Args:
        settings: the topic, and where Spark keeps how far it has come.
        call_seconds: how long the broker may take for an answer.

    Raises:
        RetryableError: from looking, when the broker does not answer.
    """

    def __init__(self, settings: StreamSettings, call_seconds: float = _CALL_SECONDS) -> None:
        self._settings = settings
        self._quiet_since: float | None = None
        self._facts = TopicFacts(settings.bootstrap, settings.topic, call_seconds)
        self._begin: dict[str, int] | None = None

    def unread(self) -> int:
        """Return how many offsets of the topic lie beyond Spark's newest committed batch."""
        done = committed_offsets(self._settings.checkpoint).get(self._settings.topic, {})
        bounds = self._facts.bounds()
        if self._begin is None:
            from_end = self._settings.starting == "latest"
            self._begin = {place: high if from_end else low for place, (low, high) in bounds.items()}
        return sum(
            high - max(low, done.get(partition, self._begin.get(partition, low)))
            for partition, (low, high) in bounds.items()
        )

    def caught_up(self) -> bool:
        """Return True once nothing was unread for a second."""
        if self.unread() > 0:
            self._quiet_since = None
            return False
        if self._quiet_since is None:
            self._quiet_since = time.monotonic()
        return time.monotonic() - self._quiet_since >= _IDLE_SECONDS

    def close(self) -> None:
        """Let go of the broker."""
        self._facts.close()


def committed_offsets(checkpoint: Path) -> dict[str, dict[str, int]]:
    """Return the end offsets of the newest batch that Spark has committed, empty for none."""
    newest = last_committed(checkpoint)
    return {} if newest is None else offsets_of(checkpoint, newest)


def last_committed(checkpoint: Path) -> int | None:
    """Return the number of the newest batch in Spark's commit log."""
    folder = checkpoint / "commits"
    numbers = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    return max(numbers, default=None)


def starting_offsets(
    checkpoint: Path, closed: dict[str, int], newest_offsets: str | None, configured: str
) -> str:
    """Decide where the source starts, and refuse a checkpoint and a lake that do not belong together.

    Args:
        checkpoint: Spark's checkpoint folder.
        closed: query id → highest closed batch id, from the `batches` table.
        newest_offsets: offsets JSON of the newest closed batch, None when there is none.
        configured: what the spec says for a fresh start.

    Raises:
        DataLossError: Spark has committed batches that the lake does not know.
    """
    committed, query_id = last_committed(checkpoint), query_id_of(checkpoint)
    if committed is not None and closed.get(query_id or "", -1) < committed:
        raise DataLossError(
            f"{checkpoint}: Spark committed batch {committed}, which the lake has not closed; "
            "restore the lake that belongs to this checkpoint or, when the lake is whole and the checkpoint "
            "another's, remove the checkpoint to resume from the lake's own offsets"
        )
    if newest_offsets is not None:
        return json.dumps(json.loads(newest_offsets))
    return configured


def _as_project_error(fault: BaseException) -> FlagstreamError:
    """Say in a line what Spark says in a stack trace."""
    lines = str(fault).splitlines() or [type(fault).__name__]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    if any(_RECORDS_LOST in line for line in lines):
        where = next((line for line in lines if line.startswith("Reason: ")), "")
        advice = "start again, which names the offsets that are gone and what to do"
        return DataLossError(f"records left the topic before they were read: {advice}. {where}".rstrip())
    stamped = next((line for line in lines if _STAMP_OVERFLOWS in line), None)
    if stamped is not None:
        record = stamped[stamped.find(_RECORD_AT) :].rstrip(".")
        return DataLossError(
            f"a stamp that Spark cannot read: {record}; have the broker delete the records of that partition "
            "up to this one (kafka-delete-records), then start once with `flagstream run --accept-loss "
            '"why"`; message.timestamp.after.max.ms of the topic keeps such records out'
        )
    return RetryableError(f"the streaming query failed: {(causes or lines)[0]}")
