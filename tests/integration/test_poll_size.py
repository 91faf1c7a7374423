"""A query that goes on with polls of another size loses no record and takes none twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from schemas.errors import DataLossError
from streaming.batch import batch_intake, runner
from streaming.batch.topic_watch import TopicWatch
from streaming.events.decode import Decoded
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka import poll_size
from streaming.kafka.source import read_stream
from streaming.run.opening import open_agent
from streaming.testing.streams import Stream
from streaming.versions.clients import Clients
from tests.integration.test_main_job import Job, event, new_job, send

SMALL, FEW, LARGE = 900, 10, 100_000


@pytest.fixture
def read_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes of polls of the queries that are begun; 50 records show what a stream is like."""
    sizes: list[int] = []

    def noted(*given: Any, most_at_once: int, **named: Any) -> DataFrame:
        sizes.append(most_at_once)
        return read_stream(*given, most_at_once=most_at_once, **named)

    monkeypatch.setattr(poll_size, "_ENOUGH", 50)
    monkeypatch.setattr(runner, "read_stream", noted)
    yield sizes


@pytest.fixture
def unknown_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sample comes in time, so batches alone show what a stream is like."""
    monkeypatch.setattr(TopicWatch, "sample_unread", lambda *_: [])


def job_of(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Callable[[str], str]
) -> tuple[Job, Stream]:
    job = new_job(spark, settings, bootstrap, topic, partitions=2)
    source = job.spec.data_sources.transactions.model_copy(update={"max_records_per_batch": 200})
    sources = job.spec.data_sources.model_copy(update={"transactions": source})
    object.__setattr__(job, "spec", job.spec.model_copy(update={"data_sources": sources}))
    return job, Stream(bootstrap, job.source)


@pytest.mark.usefixtures("unknown_at_first")
def test_polls_grow_and_shrink_between_batches(
    spark: SparkSession,
    settings: Settings,
    bootstrap: str,
    topic: Callable[[str], str],
    read_with: list[int],
) -> None:
    job, stream = job_of(spark, settings, bootstrap, topic)
    nothing_lost_over_large_ones(job, stream, bootstrap)
    assert read_with == [poll_size.FEW_AT_ONCE, poll_size.MANY_AT_ONCE, poll_size.FEW_AT_ONCE]


def test_polls_are_as_large_from_the_start_as_what_waits_allows(
    spark: SparkSession,
    settings: Settings,
    bootstrap: str,
    topic: Callable[[str], str],
    read_with: list[int],
) -> None:
    job, stream = job_of(spark, settings, bootstrap, topic)
    nothing_lost_over_large_ones(job, stream, bootstrap)
    assert read_with == [poll_size.MANY_AT_ONCE, poll_size.FEW_AT_ONCE]


def nothing_lost_over_large_ones(job: Job, stream: Stream, bootstrap: str) -> None:
    """Send small records, then large ones, then small ones, and run over them."""
    stream.send(SMALL)
    send(bootstrap, job.source, [event(tx_id=f"large-{n}", memo="x" * LARGE) for n in range(FEW)])
    stream.send(SMALL)
    job.run()
    ids = job.table("transactions", "sequence")["transaction_id"].to_pylist()
    assert sorted(ids) == sorted([*stream.sent_ids, *(f"large-{n}" for n in range(FEW))])
    batches = job.table("batches", "batch_id").to_pylist()
    assert len({each["query_id"] for each in batches}) == 1
    assert [each["batch_id"] for each in batches] == list(range(len(batches)))
    assert job.reconciled().differences == 0


@dataclass
class Interrupted:
    """An agent whose batch is interrupted when the size of polls is to change."""

    spark: SparkSession
    settings: Settings
    bootstrap: str
    job: Job
    stream: Stream

    def run(self, stop: threading.Event) -> None:
        """Run it; all that was sent waits on its topic."""
        self.stream.send(SMALL)
        with (
            Clients(self.settings, "none") as clients,
            open_agent(PlacedAgent(self.settings, self.job.spec), self.bootstrap, clients) as agent,
        ):
            runner.StreamRunner(self.spark, agent.pipeline, agent.stream).run(stop)

    def goes_on(self) -> None:
        """Another run stores what is left, and all of it once."""
        self.job.run()
        ids = self.job.table("transactions", "sequence")["transaction_id"].to_pylist()
        assert sorted(ids) == sorted(self.stream.sent_ids)


@pytest.fixture
def interrupted(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Callable[[str], str]
) -> Interrupted:
    return Interrupted(spark, settings, bootstrap, *job_of(spark, settings, bootstrap, topic))


def in_the_batch(monkeypatch: pytest.MonkeyPatch, strike: Callable[[], object]) -> None:
    """Have something happen in the batch that shows other sizes, once the query is about to begin anew."""
    begins_anew, stop, decode = threading.Event(), runner.StreamRunner._stop, batch_intake.decode

    def stopping(on: runner.StreamRunner, query: StreamingQuery) -> None:
        begins_anew.set()
        stop(on, query)

    def struck(*given: Any) -> Decoded:
        assert begins_anew.wait(60.0)
        strike()
        return decode(*given)

    monkeypatch.setattr(batch_intake, "decode", struck)
    monkeypatch.setattr(runner.StreamRunner, "_stop", stopping)


@pytest.mark.usefixtures("unknown_at_first")
def test_a_stop_that_comes_with_another_size_is_no_failure(
    interrupted: Interrupted, read_with: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, learn = threading.Event(), poll_size.PollSize.learn

    def stopping(polls: poll_size.PollSize, records: int, size: int) -> None:
        stop.set()
        learn(polls, records, size)

    with monkeypatch.context() as patched:
        patched.setattr(poll_size.PollSize, "learn", stopping)
        interrupted.run(stop)
    assert interrupted.job.table("batches", "batch_id").num_rows == 1
    interrupted.goes_on()
    assert read_with[0] == read_with[1] == poll_size.FEW_AT_ONCE


@pytest.mark.usefixtures("unknown_at_first")
def test_a_stop_while_the_query_is_about_to_begin_anew_begins_no_other(
    interrupted: Interrupted, read_with: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch that is being decided is the last."""
    stop = threading.Event()
    with monkeypatch.context() as patched:
        in_the_batch(patched, stop.set)
        interrupted.run(stop)
    assert interrupted.job.table("batches", "batch_id").num_rows == 1
    assert read_with == [poll_size.FEW_AT_ONCE]
    interrupted.goes_on()


@pytest.mark.usefixtures("unknown_at_first")
def test_a_batch_that_fails_while_polls_are_to_grow_ends_the_run(
    interrupted: Interrupted, read_with: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pipeline is not used again, though another query was about to begin."""

    def fail() -> None:
        raise DataLossError("what was read is gone")

    with monkeypatch.context() as patched, pytest.raises(DataLossError, match="what was read is gone"):
        in_the_batch(patched, fail)
        interrupted.run(threading.Event())
    assert read_with == [poll_size.FEW_AT_ONCE]
    interrupted.goes_on()
