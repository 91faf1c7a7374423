"""Large records through Spark: never more held than the limit, and all of them taken."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from confluent_kafka import Producer
from pyspark.sql import SparkSession

from schemas.subscription import Subscription
from streaming.batch import batch_intake, pipeline
from streaming.events.decode import decode
from streaming.home.brokers import connection
from streaming.home.settings import Settings
from streaming.kafka import shading, source
from streaming.kafka.intake import Intake
from streaming.kafka.source import options_in, reader_options
from streaming.kafka.topic_admin import ensure_topic
from streaming.testing.streams import Stream
from tests.integration.test_main_job import new_job

LIMIT = 4 * 1024 * 1024
LARGE = 700_000


def send(bootstrap: str, topic: str, count: int) -> int:
    """Send small records with large ones among them: by value, key or headers; return their bytes."""
    rng, producer = random.Random(3), Producer({**connection(bootstrap), "enable.idempotence": True})
    total = 0
    for number in range(count):
        large = rng.random() < 0.2
        value = f'{{"number": {number}'.encode() + b"x" * (LARGE if large and number % 3 == 0 else 20)
        key = b"k" * (LARGE if large and number % 3 == 1 else 3)
        header = b"h" * (LARGE if large and number % 3 == 2 else 3)
        producer.produce(topic, value, key, headers=[("trace", header)], partition=number % 2)
        producer.poll(0)
        total += len(value) + len(key) + len(header)
    assert producer.flush(60) == 0
    return total


@pytest.mark.parametrize("planned", [300, 20_000])
def test_pieces_are_bounded_and_hold_every_record(
    spark: SparkSession, bootstrap: str, topic: Callable[[str], str], planned: int
) -> None:
    name, count = topic("large"), 300
    ensure_topic(bootstrap, name, 2)
    total = send(bootstrap, name, count)
    assert total > 8 * LIMIT
    reader = spark.read.format("kafka").options(**reader_options(bootstrap)).option("subscribe", name)
    frame = reader.load()
    intake = Intake(bootstrap, Subscription((name,)), LIMIT)
    taken = intake.take(intake.bounded(frame), planned)
    pieces = [taken.rows, *taken.more]
    assert len(pieces) > 8
    assert max(piece.nbytes for piece in pieces) < LIMIT + count * 200
    kept = ["key", "value", "headers", "partition", "offset", "timestamp", "topic"]
    order = [("partition", "ascending"), ("offset", "ascending")]
    whole = frame.select(*kept).toArrow().cast(taken.rows.select(kept).schema).sort_by(order)
    assert pa.concat_tables(pieces).select(kept).sort_by(order).equals(whole)
    places = ["partition", "offset", "timestamp"]
    assert taken.places.select(places).sort_by(order).equals(whole.select(places))


def test_a_batch_of_large_records_is_one_batch(
    spark: SparkSession,
    bootstrap: str,
    topic: Callable[[str], str],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[int] = []

    def weighed(records: pa.Table, *arguments: object) -> object:
        held.append(records.nbytes)
        return decode(records, *arguments)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(batch_intake, "decode", weighed)
    job = new_job(spark, settings, bootstrap, topic, partitions=2)
    source = job.spec.data_sources.transactions.model_copy(update={"max_bytes_per_batch": LIMIT})
    sources = job.spec.data_sources.model_copy(update={"transactions": source})
    object.__setattr__(job, "spec", job.spec.model_copy(update={"data_sources": sources}))
    total = send(bootstrap, job.source, 200)
    job.run()
    (batch,) = job.table("batches", "batch_id").to_pylist()
    assert (batch["read"], batch["quarantined"]) == (200, 200)
    assert total > 4 * LIMIT
    assert max(held) < LIMIT + 200 * 200
    assert job.reconciled().differences == 0


@pytest.mark.parametrize(("stamped_by", "stored"), [("LogAppendTime", 5), ("CreateTime", 0)])
def test_stamps_that_are_the_brokers_own_judge_from_the_first_record_on(
    stamped_by: str,
    stored: int,
    spark: SparkSession,
    bootstrap: str,
    topic: Callable[[str], str],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    behind = timedelta(minutes=6)
    monkeypatch.setitem(
        pipeline.Pipeline.__init__.__kwdefaults__, "clock", lambda: datetime.now(UTC) - behind
    )
    job = new_job(spark, settings, bootstrap, topic, source_config={"message.timestamp.type": stamped_by})
    Stream(bootstrap, job.source).send(5)
    job.run()
    assert job.table("transactions", "sequence").num_rows == stored


def test_a_login_is_named_as_the_classes_of_the_jvm_are(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = "org.apache.kafka.common.security.plain.PlainLoginModule"
    given = {"kafka.sasl.jaas.config": f"{usual} required;"}
    monkeypatch.setattr(source, "reader_options", lambda _: given)
    assert options_in(spark, "unused") == given
    # A JVM that has the probed class: this one, if the probe is what it has.
    monkeypatch.setitem(shading._PROBES, "org.apache.kafka.", usual)
    assert options_in(spark, "unused") == {"kafka.sasl.jaas.config": f"kafkashaded.{usual} required;"}
