"""Transactions on the topics that are read, which hold up all records behind their first one.

Consumers of committed records read a partition up to the first record of its oldest open transaction. Where
its producer has died, or forgotten it, everything behind waits until the broker ends it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaException, TopicPartition

from schemas.instants import Clock, utc_now
from streaming.home.brokers import connection
from streaming.kafka.topic_facts import Bounds, TopicFacts

LASTING = timedelta(seconds=5)
_CALL_SECONDS = 10.0
_Place = tuple[str, str, int]


@dataclass(frozen=True)
class OpenTransaction:
    """What holds up a partition.

    Attributes:
        offset: of its first record, the first that cannot be read.
        records: offsets from there to the end of the partition.
        since: when its first record was stamped, or it was first seen where that came before.
    """

    topic: str
    partition: int
    offset: int
    records: int
    since: datetime

    def __str__(self) -> str:
        """Return it in words."""
        where = f"{self.topic}/{self.partition}, offset {self.offset}"
        return f"a transaction that has been open since {self.since:%Y-%m-%d %H:%M:%S}Z ({where})"


class OpenTransactions:
    """Looks for open transactions, and remembers when each was first seen.

    Args:
        bootstrap: address of the broker.
        facts: what the broker says of the topics.
        call_seconds: how long the broker may take for an answer.
        clock: current time.

    Raises:
        RetryableError: from looking, when the broker does not answer.
    """

    def __init__(
        self,
        bootstrap: str,
        facts: TopicFacts,
        call_seconds: float = _CALL_SECONDS,
        clock: Clock = utc_now,
    ) -> None:
        self._bootstrap, self._facts, self._call_seconds, self._clock = bootstrap, facts, call_seconds, clock
        self._seen: dict[_Place, datetime] = {}
        self._stamps: dict[_Place, datetime] = {}

    def lasting(self, bounds: Bounds) -> tuple[OpenTransaction, ...]:
        """Return those that were seen for five seconds; transactions that come and go are none's business.

        Args:
            bounds: by topic and partition, what may be read.
        """
        now, found = self._clock(), self._held(bounds)
        self._seen = {place: self._seen.get(place, now) for place in found}
        self._stamps = {place: stamp for place, stamp in self._stamps.items() if place in found}
        lasting = [place for place in found if now - self._seen[place] >= LASTING]
        return tuple(self._opened(place, found[place]) for place in lasting)

    def now(self, bounds: Bounds) -> tuple[OpenTransaction, ...]:
        """Return all whose first record was stamped five seconds ago or more; for whoever looks only once.

        Args:
            bounds: by topic and partition, what may be read.
        """
        now, found = self._clock(), self._held(bounds)
        self._seen = dict.fromkeys(found, now)
        opened = (self._opened(place, end) for place, end in found.items())
        return tuple(each for each in opened if now - each.since >= LASTING)

    def _held(self, bounds: Bounds) -> dict[_Place, int]:
        """Return, by topic, partition and the offset that may not be read, where the partition ends."""
        ends = self._facts.ends(bounds)
        return {
            (topic, partition, high): ends[topic][partition]
            for topic, within in bounds.items()
            for partition, (_, high) in within.items()
            if ends[topic][partition] > high
        }

    def _opened(self, place: _Place, end: int) -> OpenTransaction:
        topic, partition, offset = place
        if place not in self._stamps:
            stamp = _stamp_of(self._bootstrap, place, self._call_seconds)
            self._stamps[place] = min(stamp or self._seen[place], self._seen[place])
        return OpenTransaction(topic, int(partition), offset, end - offset, self._stamps[place])


def waiting_for(found: Sequence[OpenTransaction]) -> str | None:
    """Say what records wait for, None where they wait for nothing."""
    if not found:
        return None
    oldest = min(found, key=lambda each: each.since)
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    until = "records behind it cannot be read until its producer or the broker ends it"
    return f"waiting for {oldest}{more}: {until}"


def _stamp_of(bootstrap: str, place: _Place, seconds: float) -> datetime | None:
    """Return the stamp of a record that is not committed, None where it cannot be had in time."""
    topic, partition, offset = place
    settings: dict[str, Any] = {
        **connection(bootstrap),
        "group.id": "flagstream-watch",
        "enable.auto.commit": False,
        "isolation.level": "read_uncommitted",
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 20,
    }
    consumer, deadline = Consumer(settings), time.monotonic() + seconds
    try:
        consumer.assign([TopicPartition(topic, int(partition), offset)])
        while time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                kind, stamp = message.timestamp()
                return None if kind == TIMESTAMP_NOT_AVAILABLE else _moment(stamp)
    except KafkaException:
        return None
    finally:
        consumer.close()
    return None


def _moment(milliseconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
