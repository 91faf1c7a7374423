"""Reads the alerts of a topic for a consumer group, which keeps its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.errors import RetryableError
from streaming.consume.received import PassedRecord, Received, received_of
from streaming.home.brokers import connection
from streaming.kafka.grants import Grant, raise_if_unauthorized, reading
from streaming.kafka.refusals import words_of
from streaming.kafka.topic import PASSING, topic_exists

_FETCHED = 64
_WAIT_SECONDS = 0.2
_LONGEST_WORK_SECONDS = 1_800  # of a program on the alerts fetched together, before its group gives them away


class AlertReader:
    """The alerts of a topic for one consumer group, which keeps its place.

    Args:
        bootstrap: address of the broker.
        topic: that alerts leave on.
        group: consumer group.
        agent: whose alerts are read, None for all.
        follow: wait for more when the topic ends.
    """

    def __init__(self, bootstrap: str, topic: str, group: str, agent: str | None, *, follow: bool) -> None:
        if not follow and not topic_exists(bootstrap, topic):
            raise RetryableError(f"there is no topic {topic}")
        self._bootstrap, self._topic, self._group, self._follow = bootstrap, topic, group, follow
        self._agent = agent
        self._assigned: set[int] | None = None
        self._ended = set[int]()
        self._consumer = Consumer(_reading(bootstrap, group))
        self._consumer.subscribe([topic], on_assign=self._assign, on_revoke=self._revoke)

    @property
    def at_end(self) -> bool:
        """Whether all partitions that are this reader's have been read, and no more is waited for."""
        return not self._follow and self._assigned is not None and self._assigned <= self._ended

    def fetch(self) -> list[Received | PassedRecord]:
        """Return what has come, waiting a moment for the first.

        Raises:
            ConfigurationError: a right is missing, or an alert is of a later version.
            RetryableError: the broker does not answer.
        """
        try:
            first = self._consumer.poll(_WAIT_SECONDS)
            if first is None:
                return []
            records = [first, *self._consumer.consume(_FETCHED - 1, timeout=0.0)]
            return [found for record in records if (found := self._understood(record)) is not None]
        except KafkaException as fault:
            self._raise_if_refused(fault)
            raise RetryableError(f"reading {self._topic}: {words_of(fault)}") from fault

    def done(self, record: Received | PassedRecord) -> None:
        """Count a record as done, and with it all before it in its partition."""
        place = TopicPartition(self._topic, record.partition, record.offset + 1)
        with suppress(KafkaException):  # the partition is another's by now, who gets the alert again
            self._consumer.store_offsets(offsets=[place])

    def close(self) -> None:
        """Commit what is done, and leave the group."""
        self._consumer.close()

    def _understood(self, record: Message) -> Received | PassedRecord | None:
        fault, partition = record.error(), record.partition() or 0
        if fault is None:
            self._ended.discard(partition)
            return received_of(record, self._agent)
        if fault.code() == KafkaError._PARTITION_EOF:
            self._ended.add(partition)
        elif fault.fatal() or fault.code() not in PASSING:
            raise KafkaException(fault)
        return None

    def _assign(self, _: Consumer, places: Sequence[TopicPartition]) -> None:
        self._assigned = {each.partition for each in places}
        self._ended &= self._assigned

    def _revoke(self, _: Consumer, __: Sequence[TopicPartition]) -> None:
        self._assigned = None

    def _raise_if_refused(self, fault: KafkaException) -> None:
        grants: Mapping[int, Grant] = {
            KafkaError.TOPIC_AUTHORIZATION_FAILED: reading(self._topic),
            KafkaError.GROUP_AUTHORIZATION_FAILED: Grant(
                "group", self._group, False, ("Read",), "keep its place"
            ),
        }
        raise_if_unauthorized(fault, grants, self._bootstrap, f"reading {self._topic}")


def _reading(bootstrap: str, group: str) -> dict[str, Any]:
    return {
        **connection(bootstrap),
        "group.id": group,
        # What `done` has stored is committed: each second, when partitions change hands, and at the end.
        "enable.auto.commit": True,
        "auto.commit.interval.ms": 1_000,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "max.poll.interval.ms": _LONGEST_WORK_SECONDS * 1_000,
        "fetch.wait.max.ms": 100,
    }
