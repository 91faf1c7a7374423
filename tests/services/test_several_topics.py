"""Several topics under one contract in one agent: one order, and every topic and partition by itself."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from pyspark.sql import SparkSession

from schemas.errors import DataLossError
from schemas.spec import load_spec
from streaming.batch.runner import StreamRunner
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.home.brokers import connection
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.topic_admin import ensure_topic
from streaming.kafka.topic_facts import TopicFacts
from streaming.run.input_now import read_input
from streaming.run.opening import open_agent
from streaming.run.status import read_status
from streaming.testing.streams import Stream, folded_scores, write_spec
from streaming.versions.clients import Clients
from tests.integration.test_intake import send as send_large
from tests.integration.test_main_job import Job

CALL_SECONDS = 30.0
pytestmark = pytest.mark.timeout(300)
Topic = Callable[[str], str]


def source(**changes: object) -> dict[str, object]:
    return {"transactions": {"contract": "simulator", "max_records_per_batch": 400, **changes}}


class Place:
    """An agent whose spec is written anew between its runs, and the events of all its topics."""

    def __init__(self, spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic) -> None:
        self.spark, self.settings, self.bootstrap, self.topic = spark, settings, bootstrap, topic
        self.stream = Stream(bootstrap, topic("a"))
        ensure_topic(bootstrap, topic("alerts"), 1)

    def send(self, name: str, count: int) -> None:
        self.stream.topic = self.topic(name)
        self.stream.send(count)

    def job(self, **changes: object) -> Job:
        folder = self.settings.home.parent
        name = self.topic("tester")
        spec = load_spec(write_spec(folder, self.topic, name=name, data_sources=source(**changes)))
        return Job(self.spark, self.settings, spec, self.bootstrap)

    def named(self, *names: str) -> Job:
        return self.job(topics=[self.topic(name) for name in names])

    def matching(self) -> Job:
        return self.job(topic_pattern=self.topic("[ab]").replace(".", r"\."))


@pytest.fixture
def place(spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic) -> Place:
    found = Place(spark, settings, bootstrap, topic)
    ensure_topic(bootstrap, topic("a"), 2)
    ensure_topic(bootstrap, topic("b"), 1)
    return found


def run(job: Job, accept_loss: str | None = None, first: Callable[[], None] = lambda: None) -> None:
    """Run until everything is read; `first` is called once, when a batch has closed."""
    called = list[bool]()

    def closed(_: object) -> None:
        if not called:
            called.append(True)
            first()

    with (
        Clients(job.settings, "none") as clients,
        open_agent(PlacedAgent(job.settings, job.spec), job.bootstrap, clients) as agent,
    ):
        settings = replace(agent.stream, accept_loss=accept_loss)
        StreamRunner(job.spark, agent.pipeline, settings, closed).run(threading.Event(), until_idle=True)


def ids(job: Job) -> list[str]:
    found: list[str] = job.table("transactions", "sequence")["transaction_id"].to_pylist()
    return found


def assert_whole(job: Job, sent: Sequence[str]) -> None:
    """All that was sent is stored once, in an order without gaps, and scored as if it were one topic."""
    rows = job.table("transactions", "sequence")
    assert Counter(rows["transaction_id"].to_pylist()) == Counter(sent)
    assert rows["sequence"].to_pylist() == list(range(rows.num_rows))
    assert job.reconciled().differences == 0
    assert job.scores() == folded_scores(job.spec, rows, job.settings.lake(job.spec.name))


def forget_before(bootstrap: str, topic: str, offsets: dict[int, int]) -> None:
    """Have a topic forget what is older, as its retention would."""
    places = [TopicPartition(topic, partition, at) for partition, at in offsets.items()]
    admin = AdminClient(connection(bootstrap))
    for future in admin.delete_records(places).values():
        future.result(CALL_SECONDS)


def delete(bootstrap: str, topic: str) -> None:
    admin = AdminClient(connection(bootstrap))
    for future in admin.delete_topics([topic]).values():
        future.result(CALL_SECONDS)


def test_topics_are_decided_as_one_stream(place: Place) -> None:
    job = place.named("a", "b")
    for name in ("a", "b", "a"):
        place.send(name, 150)
    run(job)
    place.send("b", 100)
    run(job)
    assert_whole(job, place.stream.sent_ids)
    rows = job.table("transactions", "sequence")
    names = {place.topic("a"), place.topic("b")}
    assert set(rows["topic"].to_pylist()) == names
    quarantine = job.table("quarantine", "offset")
    assert Counter(quarantine["topic"].to_pylist()) == {place.topic("a"): 6, place.topic("b"): 6}
    repeats = job.table("duplicates", "offset")
    assert repeats.num_rows == place.stream.redelivered
    newest = job.table("batches", "closed_at").to_pylist()[-1]
    reads = job.spec.data_sources.transactions.subscription
    bounds = TopicFacts(place.bootstrap, reads).bounds()
    ends = {name: {each: high for each, (_, high) in within.items()} for name, within in bounds.items()}
    assert json.loads(newest["offsets"]) == ends
    assert json.loads(newest["topic_ids"]).keys() == names
    place.send("b", 50)
    settings = replace(place.settings, kafka=place.bootstrap)
    status = read_status(PlacedAgent(settings, job.spec), read_input(settings, reads))
    assert status.lag_by_topic == {place.topic("a"): 0, place.topic("b"): 55}
    assert status.lag == 55


def test_topics_and_partitions_that_come_while_it_runs_are_read_from_their_beginning(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic
) -> None:
    place = Place(spark, settings, bootstrap, topic)
    ensure_topic(bootstrap, topic("a"), 1)
    place.send("a", 100)
    job = place.matching()

    def come() -> None:
        ensure_topic(bootstrap, topic("b"), 2)
        place.send("b", 100)
        admin = AdminClient(connection(bootstrap))
        for future in admin.create_partitions([NewPartitions(topic("a"), 3)]).values():
            future.result(CALL_SECONDS)
        place.send("a", 100)

    run(job, first=come)
    assert_whole(job, place.stream.sent_ids)
    rows = job.table("transactions", "sequence")
    assert set(zip(rows["topic"].to_pylist(), rows["partition"].to_pylist(), strict=True)) == {
        *((topic("a"), each) for each in range(3)),
        *((topic("b"), each) for each in range(2)),
    }
    (query,) = set(job.table("batches", "batch_id")["query_id"].to_pylist())
    place.send("b", 50)
    run(job)
    assert_whole(job, place.stream.sent_ids)
    assert set(job.table("batches", "batch_id")["query_id"].to_pylist()) == {query}


def test_a_topic_that_is_named_no_more_keeps_its_place(place: Place) -> None:
    place.send("a", 100)
    run(place.job(topic=place.topic("a")))
    place.send("b", 100)
    run(place.named("a", "b"))
    place.send("a", 50)
    read = len(place.stream.sent_ids)
    place.send("b", 50)
    job = place.named("b")
    run(job)
    assert len(ids(job)) == read - 50 + 50
    again = place.named("a", "b")
    run(again)
    assert_whole(again, place.stream.sent_ids)


def test_a_topic_that_joins_late_is_read_from_where_it_begins(place: Place) -> None:
    place.send("a", 100)
    run(place.job(topic=place.topic("a")))
    known = list(place.stream.sent_ids)
    place.send("b", 100)
    forget_before(place.bootstrap, place.topic("b"), {0: 105})
    place.send("b", 60)
    job = place.named("a", "b")
    run(job)
    found = Counter(ids(job))
    assert found.keys() >= {*known, *place.stream.sent_ids[200:]}
    assert max(found.values()) == 1
    assert job.reconciled().differences == 0


def test_what_each_topic_has_lost_is_named_and_recorded(place: Place) -> None:
    job = place.matching()
    for name in ("a", "b"):
        place.send(name, 100)
    run(job)
    bounds = TopicFacts(place.bootstrap, job.spec.data_sources.transactions.subscription).bounds()
    place.send("a", 100)
    read = bounds[place.topic("a")]
    forget_before(place.bootstrap, place.topic("a"), {0: read["0"][1] + 7})
    delete(place.bootstrap, place.topic("b"))
    with pytest.raises(DataLossError, match="--accept-loss") as refused:
        run(job)
    assert f"topic {place.topic('a')} no longer holds offsets {read['0'][1]} to" in str(refused.value)
    assert f"topic {place.topic('b')} was deleted, and with it offsets" in str(refused.value)
    run(job, accept_loss="cleaned up")
    losses = [json.loads(each) for each in job.table("batches", "closed_at")["lost"].to_pylist() if each]
    assert {each["topic"]: each["records"] for each in losses} == {place.topic("a"): 7, place.topic("b"): 0}
    assert job.reconciled().differences == 0
    ensure_topic(place.bootstrap, place.topic("b"), 1)
    place.send("b", 80)
    run(job)
    assert set(ids(job)) >= set(place.stream.sent_ids[-80:])
    assert job.reconciled().differences == 0


def test_large_records_of_several_topics_are_taken_in_slices(place: Place) -> None:
    total = send_large(place.bootstrap, place.topic("a"), 60)
    ensure_topic(place.bootstrap, place.topic("c"), 2)
    total += send_large(place.bootstrap, place.topic("c"), 60)
    limit = 4 * 1024 * 1024
    assert total > 2 * limit
    job = place.job(topics=[place.topic("a"), place.topic("c")], max_bytes_per_batch=limit)
    run(job)
    rows = job.table("quarantine", "offset")
    places = {tuple(row.values()) for row in rows.select(["topic", "partition", "offset"]).to_pylist()}
    assert len(places) == rows.num_rows == 120
    assert job.reconciled().differences == 0


def test_a_replay_of_several_topics_decides_the_same(place: Place) -> None:
    job = place.named("a", "b")
    for name in ("a", "b"):
        place.send(name, 120)
    run(job)
    assert run_replay(PlacedAgent(job.settings, job.spec), ReplaySpan()).differences == ()
