"""Topics with holes in their offsets, with the broker's own stamps, and with transactions that do not end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from pyspark.sql import SparkSession

from schemas.subscription import Subscription
from streaming.home.brokers import connection
from streaming.home.settings import Settings
from streaming.kafka.open_transactions import LASTING, OpenTransactions
from streaming.kafka.topic import committed_messages
from streaming.kafka.topic_facts import TopicFacts
from streaming.testing.drivers import wait_until
from streaming.testing.streams import Stream
from tests.integration.test_main_job import Job, event, new_job

pytestmark = pytest.mark.timeout(300)
Topic = Callable[[str], str]
_COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.001",
    "delete.retention.ms": "100",
    "max.compaction.lag.ms": "100",
}


def payment(number: int, **changes: object) -> bytes:
    moment = datetime.now(UTC) - timedelta(hours=1) + timedelta(seconds=number)
    return event(tx_id=f"p{number}", event_time=moment.isoformat(), **changes)


def produced(bootstrap: str, topic: str, payments: dict[int, bytes], **settings: Any) -> Producer:
    producer = Producer({**connection(bootstrap), "enable.idempotence": True, **settings})
    for key, value in payments.items():
        producer.produce(topic, value, str(key % 20).encode())
    assert producer.flush(30) == 0
    return producer


@contextmanager
def transaction(bootstrap: str, topic: str, payments: dict[int, bytes]) -> Iterator[Producer]:
    """Payments in a transaction that has not ended; it is aborted unless somebody has committed it."""
    producer = Producer({**connection(bootstrap), "transactional.id": f"{topic}-sender"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for value in payments.values():
        producer.produce(topic, value, partition=0)
    assert producer.flush(30) == 0
    yield producer


def offsets_held(bootstrap: str, topic: str) -> list[int]:
    return sorted(message.offset() or 0 for message in committed_messages(bootstrap, topic))


def test_holes_that_compaction_leaves_are_passed_over(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic
) -> None:
    job = new_job(spark, settings, bootstrap, topic, source_config=_COMPACTED)
    for first in (0, 100, 200):
        produced(bootstrap, job.source, {number: payment(number) for number in range(first, first + 100)})

    def compacted() -> bool:
        # The cleaner leaves the newest segment alone, so another record lets it go on.
        produced(bootstrap, job.source, {0: payment(300)})
        held = offsets_held(bootstrap, job.source)
        return len(held) < held[-1] + 1 - 200

    wait_until(compacted, 120, "the cleaner of the log")
    held = {message.value() for message in committed_messages(bootstrap, job.source)}
    job.run()
    rows = job.table("transactions", "sequence")
    assert set(rows["transaction_id"].to_pylist()) == {json.loads(each or b"")["tx_id"] for each in held}
    (watched,) = TopicFacts(bootstrap, Subscription((job.source,))).bounds()[job.source].values()
    newest = job.table("batches", "closed_at").to_pylist()[-1]
    assert json.loads(newest["offsets"]) == {job.source: {"0": watched[1]}}
    produced(bootstrap, job.source, {number: payment(number) for number in range(400, 450)})
    job.run()
    assert job.table("transactions", "sequence").num_rows == rows.num_rows + 50
    assert job.reconciled().differences == 0


def test_aborted_and_committed_transactions_leave_holes_that_are_passed_over(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic
) -> None:
    job = new_job(spark, settings, bootstrap, topic)
    with transaction(bootstrap, job.source, {number: payment(number) for number in range(40)}) as producer:
        producer.abort_transaction(30)
    with transaction(
        bootstrap, job.source, {number: payment(number) for number in range(50, 90)}
    ) as producer:
        producer.commit_transaction(30)
    job.run()
    stored = job.table("transactions", "sequence")["transaction_id"].to_pylist()
    assert sorted(stored) == sorted(f"p{number}" for number in range(50, 90))
    assert job.reconciled().differences == 0


def test_the_broker_s_own_stamps_are_what_is_stored(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic
) -> None:
    by_broker = {"message.timestamp.type": "LogAppendTime"}
    job = new_job(spark, settings, bootstrap, topic, source_config=by_broker)
    before = datetime.now(UTC) - timedelta(seconds=1)
    producer = Producer(connection(bootstrap))
    for number in range(50):
        producer.produce(job.source, payment(number), timestamp=1_000_000_000_000)
    assert producer.flush(30) == 0
    stream = Stream(bootstrap, job.source)
    stream.send(100)
    job.run()
    rows = job.table("transactions", "sequence")
    assert rows.num_rows == 150
    assert all(before < each <= datetime.now(UTC) for each in rows["kafka_timestamp"].to_pylist())
    assert job.table("duplicates", "offset").num_rows == stream.redelivered
    assert job.reconciled().differences == 0


def test_a_transaction_is_told_once_it_has_been_open_for_a_while(bootstrap: str, topic: Topic) -> None:
    name = topic("held")
    produced(bootstrap, name, {number: payment(number) for number in range(5)}, partitioner="consistent")
    facts = TopicFacts(bootstrap, Subscription((name,)))
    moment = datetime.now(UTC)
    watch = OpenTransactions(bootstrap, facts, clock=lambda: moment)
    assert watch.lasting(facts.bounds()) == ()
    with transaction(bootstrap, name, {number: payment(number) for number in range(5, 12)}) as producer:
        began = datetime.now(UTC)
        assert watch.lasting(facts.bounds()) == ()
        moment += LASTING
        (found,) = watch.lasting(facts.bounds())
        assert (found.topic, found.partition, found.records) == (name, 0, 7)
        assert abs(found.since - began) < timedelta(seconds=30)
        assert f"{found.since:%Y-%m-%d %H:%M:%S}Z ({name}/0, offset {found.offset})" in str(found)
        late = OpenTransactions(bootstrap, facts, clock=lambda: moment + LASTING)
        (seen_once,) = late.now(facts.bounds())
        assert (seen_once.offset, seen_once.records) == (found.offset, found.records)
        assert abs(seen_once.since - began) < timedelta(seconds=30)
        producer.commit_transaction(30)
    assert watch.lasting(facts.bounds()) == ()


@contextmanager
def command(
    bootstrap: str, home: Path, *arguments: object
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A command as a process of its own, and the lines it has printed so far."""
    program = [sys.executable, "-c", "from streaming.cli.root import main; main()"]
    child = subprocess.Popen(
        [*program, *map(str, arguments), "--home", str(home), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "FLAGSTREAM_KAFKA": bootstrap},
    )
    lines = list[str]()
    assert child.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(child.stdout or ()))
    reader.start()
    try:
        yield child, lines
    finally:
        child.terminate()
        child.wait(60)
        reader.join()
        child.stdout.close()


def stored_ids(job: Job) -> list[str]:
    folder = job.settings.lake(job.spec.name) / "transactions"
    if not folder.path.is_dir():
        return []
    found: list[str] = job.table("transactions", "sequence")["transaction_id"].to_pylist()
    return found


def test_a_run_and_its_status_say_what_they_wait_for(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic
) -> None:
    job = new_job(spark, settings, bootstrap, topic)
    spec = settings.home.parent / "spec-1.0.0.yaml"
    produced(bootstrap, job.source, {number: payment(number) for number in range(20)})
    with transaction(
        bootstrap, job.source, {number: payment(number) for number in range(20, 30)}
    ) as producer:
        produced(bootstrap, job.source, {number: payment(number) for number in range(30, 40)})
        with command(bootstrap, settings.home, "run", "--spec", spec, "--llm", "none") as (_, lines):

            def told() -> list[dict[str, Any]]:
                found = [json.loads(line)["condition"] for line in tuple(lines) if '"condition": {' in line]
                return [each for each in found if each["name"] == "transaction_open"]

            wait_until(lambda: bool(told()), 120, "the condition")
            wait_until(lambda: len(stored_ids(job)) == 20, 60, "the records before it")
            assert told()[0]["cause"].startswith("waiting for a transaction that has been open since ")
            assert f"({job.source}/0, offset 20)" in told()[0]["cause"]
            with command(bootstrap, settings.home, "status", "--spec", spec) as (child, said):
                assert child.wait(120) == 0
            status = json.loads("".join(said))
            assert status["lag"] == 0
            assert [(each["offset"], each["records"]) for each in status["open_transactions"]] == [(20, 20)]
            assert "transaction_open" in {each["condition"] for each in status["conditions"]}
            producer.commit_transaction(30)
            wait_until(lambda: len(stored_ids(job)) == 40, 60, "the records behind it")
            wait_until(lambda: told()[-1]["cause"] is None, 60, "its end")
