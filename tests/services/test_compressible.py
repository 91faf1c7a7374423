"""Records that compress a thousandfold, and any mixture of sizes: the JVM survives, all are stored."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Producer

from schemas.spec import load_spec
from streaming.home.brokers import connection
from streaming.home.settings import Settings
from streaming.kafka.broker import ensure_topic
from streaming.testing.drivers import Drivers
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
    """

    count: int
    codec: str
    batch_bytes: int
    sizes: tuple[int, ...]
    random_share: float = 0.0
    max_bytes: int = 512 << 20

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
        place = number * PARTITIONS // mixture.count
        producer.produce(topic, value, name.encode(), partition=place, on_delivery=note)
        sent.append(name)
        held += len(value)
        if held > HELD_BYTES:
            assert producer.flush(120) == 0
            held = 0
    assert producer.flush(120) == 0
    assert refused == []
    return sent


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
