"""The alerts of a topic from given places on, for one route; the places are kept by whoever reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from schemas.errors import RetryableError
from streaming.consume.received import PassedRecord, Received, received_of
from streaming.home.brokers import connection
from streaming.kafka.refusals import words_of
from streaming.kafka.topic import PASSING, partitions_of, reading_fault, topic_exists

_CALL_SECONDS = 10.0
_WAIT_SECONDS = 0.2
_FETCHED = 64
_CHECK_SECONDS = 30.0


class PlacedReader:
    """Committed alerts of a topic, read without a group's help.

    Args:
        bootstrap: address of the broker.
        topic: that alerts leave on.
        agent: whose alerts are read.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self, bootstrap: str, topic: str, agent: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bootstrap, self._topic, self._agent, self._clock = bootstrap, topic, agent, clock
        self._consumer = Consumer(_reading(bootstrap))
        self._assigned = set[int]()
        self._checked_at = clock()

    def ends(self) -> dict[int, int]:
        """Return where each partition ends now; none where the topic is not there yet.

        Raises:
            RetryableError: the broker does not answer.
        """
        return {each: high for each, (_, high) in self._bounds().items()}

    def begin(self, places: Mapping[int, int]) -> dict[int, int]:
        """Read on from these places, other partitions from their beginning.

        Returns:
            The places where reading begins: one that the topic does not hold any more is its beginning.

        Raises:
            RetryableError: the broker does not answer, or there is no such topic.
        """
        try:
            partitions_of(self._consumer, self._topic, self._bootstrap)
            bounds = self._bounds()
        except KafkaException as fault:
            raise reading_fault(self._topic, self._bootstrap, fault) from fault
        begins = {
            each: places[each] if each in places and low <= places[each] <= high else low
            for each, (low, high) in bounds.items()
        }
        self._consumer.assign([TopicPartition(self._topic, *each) for each in begins.items()])
        self._assigned, self._checked_at = set(begins), self._clock()
        return begins

    def fetch(self) -> list[Received | PassedRecord]:
        """Return what has come, waiting a moment for the first.

        Raises:
            ConfigurationError: a right is missing, or an alert is of a later version.
            RetryableError: the broker does not answer.
        """
        try:
            first = self._consumer.poll(_WAIT_SECONDS)
            records = [] if first is None else [first, *self._consumer.consume(_FETCHED - 1, timeout=0.0)]
            return [found for each in records if (found := self._understood(each)) is not None]
        except KafkaException as fault:
            raise reading_fault(self._topic, self._bootstrap, fault) from fault

    def has_grown(self) -> bool:
        """Say, asking the broker now and then, whether the topic has partitions that are not read."""
        if self._clock() - self._checked_at < _CHECK_SECONDS:
            return False
        self._checked_at = self._clock()
        return bool(self._bounds().keys() - self._assigned)

    def waiting(self, places: Mapping[int, int]) -> int:
        """Return how many records lie behind these places, marks of transactions included."""
        bounds = self._bounds()
        return sum(max(0, high - max(low, places.get(each, low))) for each, (low, high) in bounds.items())

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

    def _understood(self, record: Message) -> Received | PassedRecord | None:
        fault = record.error()
        if fault is None:
            return received_of(record, self._agent)
        if fault.fatal() or fault.code() not in PASSING:
            raise KafkaException(fault)
        return None

    def _bounds(self) -> dict[int, tuple[int, int]]:
        if not topic_exists(self._bootstrap, self._topic):
            return {}
        try:
            places = partitions_of(self._consumer, self._topic, self._bootstrap)
            return {each.partition: self._bounds_of(each.partition) for each in places}
        except KafkaException as fault:
            raise RetryableError(f"reading {self._topic}: {words_of(fault)}") from fault

    def _bounds_of(self, partition: int) -> tuple[int, int]:
        place = TopicPartition(self._topic, partition)
        low, high = self._consumer.get_watermark_offsets(place, timeout=_CALL_SECONDS)
        return low, high


def _reading(bootstrap: str) -> dict[str, Any]:
    return {
        **connection(bootstrap),
        "group.id": "flagstream-notify",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 100,
    }
