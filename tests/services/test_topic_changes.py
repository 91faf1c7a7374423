"""An input topic that loses records, is created anew or grows, under an agent that was away meanwhile."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from pyspark.sql import SparkSession

from schemas.errors import DataLossError, RetryableError
from schemas.subscription import Subscription
from streaming.batch.runner import StreamRunner
from streaming.delta.lake_reader import AgentLake
from streaming.home.brokers import connection
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.topic_admin import ensure_topic
from streaming.kafka.topic_facts import TopicFacts
from streaming.run.opening import open_agent
from streaming.run.status import read_status
from streaming.testing.streams import Stream, folded_scores
from streaming.versions.clients import Clients
from tests.integration.test_main_job import Job, new_job

CALL_SECONDS = 30.0
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def job(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Callable[[str], str]
) -> tuple[Job, Stream]:
    """An agent that has read 300 payments from two partitions."""
    made = new_job(spark, settings, bootstrap, topic, partitions=2)
    stream = Stream(bootstrap, made.source)
    stream.send(300)
    made.run()
    return made, stream


def run(job: Job, accept_loss: str | None = None) -> None:
    with (
        Clients(job.settings, "none") as clients,
        open_agent(PlacedAgent(job.settings, job.spec), job.bootstrap, clients) as agent,
    ):
        settings = replace(agent.stream, accept_loss=accept_loss)
        StreamRunner(job.spark, agent.pipeline, settings).run(threading.Event(), until_idle=True)


def ends(job: Job) -> dict[str, int]:
    bounds = TopicFacts(job.bootstrap, Subscription((job.source,))).bounds()[job.source]
    return {partition: high for partition, (_, high) in bounds.items()}


def retain_from(job: Job, offsets: dict[str, int]) -> None:
    """Have the topic forget what is older, as its retention would."""
    places = [TopicPartition(job.source, int(partition), at) for partition, at in offsets.items()]
    admin = AdminClient(connection(job.bootstrap))
    for future in admin.delete_records(places).values():
        future.result(CALL_SECONDS)


def recreate(job: Job, partitions: int) -> None:
    admin = AdminClient(connection(job.bootstrap))
    for future in admin.delete_topics([job.source]).values():
        future.result(CALL_SECONDS)
    ensure_topic(job.bootstrap, job.source, partitions)


def stored_ids(job: Job) -> list[str]:
    ids: list[str] = job.table("transactions", "sequence")["transaction_id"].to_pylist()
    return ids


def test_records_that_retention_has_taken_are_refused_then_given_up_on_record(
    job: tuple[Job, Stream],
) -> None:
    agent, stream = job
    read, before = ends(agent), stored_ids(agent)
    stream.send(200)
    middle = {partition: (read[partition] + end) // 2 for partition, end in ends(agent).items()}
    retain_from(agent, middle)
    with pytest.raises(DataLossError, match="--accept-loss") as refused:
        run(agent)
    for partition in read:
        span = f"offsets {read[partition]} to {middle[partition] - 1} of partition {partition}"
        assert span in str(refused.value)
    run(agent, accept_loss="the topic kept too little")
    lost = sum(middle[partition] - at for partition, at in read.items())
    ids = stored_ids(agent)
    assert ids[: len(before)] == before
    assert 200 - lost <= len(ids) - len(before) < 200
    batches = agent.table("batches", "closed_at").to_pylist()
    assert [each["query_id"].startswith("loss-") for each in batches if each["lost"]] == [True]
    assert f'"records": {lost}' in next(each["lost"] for each in batches if each["lost"])
    found = agent.reconciled()
    assert (found.differences, found.lost) == (0, lost)
    lake = agent.settings.lake(agent.spec.name)
    assert read_status(AgentLake(lake, agent.spec), None).lost == lost
    told = [each["detail"] for each in agent.audited("action")]
    assert [(each["why"], each["lost"]) for each in told] == [("the topic kept too little", lost)]
    assert agent.scores() == folded_scores(agent.spec, agent.table("transactions", "sequence"), lake)
    stream.send(50)
    run(agent)
    assert len(stored_ids(agent)) == len(ids) + 50
    assert agent.reconciled().differences == 0


def test_a_topic_created_anew_and_filled_past_the_old_offsets_is_noticed(job: tuple[Job, Stream]) -> None:
    agent, stream = job
    recreate(agent, 2)
    stream.send(500)
    with pytest.raises(DataLossError, match="deleted and created anew"):
        run(agent)
    run(agent, accept_loss="the cluster was rebuilt")
    assert sorted(stored_ids(agent)) == sorted(stream.sent_ids)
    assert agent.reconciled().differences == 0


def test_a_topic_created_anew_while_it_is_read_is_noticed(job: tuple[Job, Stream]) -> None:
    agent, stream = job
    changed = threading.Event()

    def change(*_: object) -> None:
        if not changed.is_set():
            changed.set()
            recreate(agent, 2)
            stream.send(500)

    stream.send(100)
    with (
        Clients(agent.settings, "none") as clients,
        open_agent(PlacedAgent(agent.settings, agent.spec), agent.bootstrap, clients) as on,
    ):
        runner, stop = StreamRunner(agent.spark, on.pipeline, on.stream, change), threading.Event()
        timer = threading.Timer(120, stop.set)
        timer.start()
        # For a moment there is no such topic, so that the broker may be asked in vain.
        with pytest.raises((DataLossError, RetryableError)):
            runner.run(stop)
        timer.cancel()
    with pytest.raises(DataLossError, match="deleted and created anew"):
        run(agent)
    assert len(stored_ids(agent)) == 400


def test_partitions_that_came_while_the_checkpoint_was_lost_are_read_from_their_beginning(
    job: tuple[Job, Stream],
) -> None:
    agent, stream = job
    admin = AdminClient(connection(agent.bootstrap))
    for future in admin.create_partitions([NewPartitions(agent.source, 4)]).values():
        future.result(CALL_SECONDS)
    stream.send(200)
    assert min(ends(agent)[partition] for partition in ("2", "3")) > 0
    shutil.rmtree(agent.settings.checkpoint(agent.spec.name))
    run(agent)
    assert sorted(stored_ids(agent)) == sorted(stream.sent_ids)
    assert agent.reconciled().differences == 0
