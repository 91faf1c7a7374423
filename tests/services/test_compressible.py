"""Records that compress a thousandfold, and any mixture of sizes: the JVM survives, all are stored."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Producer

from schemas.spec import load_spec
from streaming.delta.stored import open_version
from streaming.delta.whole_tables import read_stored
from streaming.home.brokers import connection
from streaming.home.settings import Settings
from streaming.kafka.topic_admin import ensure_topic
from streaming.testing.drivers import Drivers, wait_until
from streaming.testing.streams import stored, write_spec

pytestmark = pytest.mark.timeout(900)
PARTITIONS = 4
LARGEST = 900_000
TOPIC_BYTES = 1_000_000  # what a topic admits of a batch, compressed
HELD_BYTES = 256 << 20  # by the producer, so that a test needs no more memory than an agent


@dataclass(frozen=True)
class Mixture:
    """Payments whose memo makes them large.

    Attributes:
        count: of payments.
        codec: that the sender compresses batches with.
        batch_bytes: of a batch before it is compressed.
        sizes: of the memos, in bytes, at random one of these.
        random_share: of the memos cannot be compressed.
        max_bytes: of the agent's batch.
        partitions: that they are sent to, one after the other.
    """

    count: int
    codec: str
    batch_bytes: int
    sizes: tuple[int, ...]
    random_share: float = 0.0
    max_bytes: int = 512 << 20
    partitions: int = PARTITIONS

    def values(self) -> Iterator[tuple[str, bytes]]:
        rng, begun = random.Random(5), datetime.now(UTC) - timedelta(hours=6)
        for number in range(self.count):
            size = rng.choice(self.sizes)
            memo = rng.randbytes(size // 2).hex() if rng.random() < self.random_share else "x" * size
            name = f"t{number:06d}"
            event = {
                "tx_id": name,
                "event_time": (begun + timedelta(seconds=number)).isoformat(),
                "customer_id": f"c{rng.randint(0, 40)}",
                "terminal_id": f"m{rng.randint(0, 60)}",
                "amount": round(rng.lognormvariate(3, 0.5), 2),
                "currency": "EUR",
                "memo": memo,
            }
            yield name, json.dumps(event).encode()


MIXTURES = {
    "one byte repeated": Mixture(3_000, "zstd", 128 << 20, (LARGEST,)),
    "one byte repeated, small batches of the agent": Mixture(
        2_000, "gzip", 32 << 20, (LARGEST,), max_bytes=64 << 20
    ),
    "every size": Mixture(
        4_000, "lz4", TOPIC_BYTES, (10, 100, 5_000, 120_000, 140_000, LARGEST), random_share=0.3
    ),
}


def send(bootstrap: str, topic: str, mixture: Mixture) -> list[str]:
    """Send a mixture; return the ids of its payments."""
    producer = Producer(
        {
            **connection(bootstrap),
            "enable.idempotence": True,
            "compression.type": mixture.codec,
            "linger.ms": 2_000,
            "batch.size": mixture.batch_bytes,
            "message.max.bytes": mixture.batch_bytes,
            "queue.buffering.max.kbytes": 2 * HELD_BYTES >> 10,
        }
    )
    sent, held, refused = list[str](), 0, list[str]()

    def note(error: KafkaError | None, _: object) -> None:
        if error is not None:
            refused.append(error.str())

    for number, (name, value) in enumerate(mixture.values()):
        place = number * mixture.partitions // mixture.count
        producer.produce(topic, value, name.encode(), partition=place, on_delivery=note)
        sent.append(name)
        held += len(value)
        if held > HELD_BYTES:
            assert producer.flush(120) == 0
            held = 0
    assert producer.flush(120) == 0
    assert refused == []
    return sent


FAR_LARGER = 24_000_000


def test_records_far_larger_than_a_topic_admits_are_read_a_few_at_once(
    settings: Settings, bootstrap: str, tmp_path: Path, topic: Callable[[str], str]
) -> None:
    """A poll unpacks to more than the JVM has: it ends, and the batch is read again by fewer."""
    name = topic("events")
    source = {"contract": "simulator", "topic": name}
    spec_file = write_spec(tmp_path, topic, data_sources={"transactions": source})
    ensure_topic(bootstrap, name, PARTITIONS)
    small = Mixture(500, "zstd", 128 << 20, (10,))
    large = Mixture(140, "zstd", 128 << 20, (FAR_LARGER,), partitions=1)
    ids = send(bootstrap, name, small)
    send(bootstrap, name, large)
    drivers = Drivers(settings, bootstrap, seconds=800)
    driver = drivers.start(spec_file, endless=True)
    try:
        wait_until(lambda: count_of_rows(settings, "quarantine") == large.count, 700, "all to be read")
        driver.send_signal(signal.SIGINT)
        assert drivers.outcome(driver) == 0, drivers.outputs[-1]
    finally:
        drivers.end()
    assert "Spark's JVM has ended" in drivers.outputs[-1]
    lake = settings.lake("tester")
    rows = stored(lake, "transactions", "sequence")
    # Without their values, which are more than one column can hold in memory.
    rejected = read_stored(lake / "quarantine", ["partition", "offset", "reason"])
    assert rejected is not None
    assert sorted(rows["transaction_id"].to_pylist()) == ids
    assert set(rejected["reason"].to_pylist()) == {"oversized_record"}
    places = zip(*(rejected[each].to_pylist() for each in ("partition", "offset")), strict=True)
    assert len(set(places)) == large.count
    batches = stored(lake, "batches", "next_sequence")
    assert sum(batches["read"].to_pylist()) == small.count + large.count


def count_of_rows(settings: Settings, table: str) -> int:
    found = open_version(settings.lake("tester") / table)
    return 0 if found is None else found.count()


@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
def test_no_mixture_of_records_costs_the_jvm(
    mixture: Mixture, settings: Settings, bootstrap: str, tmp_path: Path, topic: Callable[[str], str]
) -> None:
    name = topic("events")
    source = {"contract": "simulator", "topic": name, "max_bytes_per_batch": mixture.max_bytes}
    spec_file = write_spec(tmp_path, topic, data_sources={"transactions": source})
    spec = load_spec(spec_file)
    ensure_topic(bootstrap, name, PARTITIONS)
    sent = send(bootstrap, name, mixture)
    drivers = Drivers(settings, bootstrap, seconds=600)
    try:
        assert drivers.run(spec_file, patience=0) == 0, drivers.outputs[-1]
    finally:
        drivers.end()
    rows = stored(settings.lake(spec.name), "transactions", "sequence")
    places = list(zip(*(rows[column].to_pylist() for column in ("partition", "offset")), strict=True))
    assert sorted(rows["transaction_id"].to_pylist()) == sent
    assert len(places) == len(set(places)) == mixture.count
    assert rows["sequence"].to_pylist() == list(range(mixture.count))
