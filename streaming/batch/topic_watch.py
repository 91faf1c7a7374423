"""Measures how far a stream is behind its topics."""

from __future__ import annotations

import time

from confluent_kafka import TopicPartition

from streaming.batch.stream_settings import Offsets, StreamSettings
from streaming.kafka.open_transactions import OpenTransaction, OpenTransactions
from streaming.kafka.source import committed_offsets
from streaming.kafka.topic import sample_sizes
from streaming.kafka.topic_facts import Bounds, TopicFacts

_CALL_SECONDS = 10.0
_IDLE_SECONDS = 1.0


class TopicWatch:
    """Measures how far the stream is behind its topics.

    Args:
        settings: the topics, and where Spark keeps how far it has come.
        call_seconds: how long the broker may take for an answer.

    Raises:
        RetryableError: from looking, when the broker does not answer.
    """

    def __init__(self, settings: StreamSettings, call_seconds: float = _CALL_SECONDS) -> None:
        self._settings = settings
        self._quiet_since: float | None = None
        self._facts = TopicFacts(settings.bootstrap, settings.reads, call_seconds)
        self._open = OpenTransactions(settings.bootstrap, self._facts, call_seconds)
        self._begin: Offsets | None = None
        self._bounds: Bounds = {}
        self._unread: Offsets = {}

    def unread(self) -> int:
        """Return how many offsets that may be read lie beyond Spark's newest committed batch."""
        return sum(count for within in self.unread_by_partition().values() for count in within.values())

    def sample_unread(self, most: int) -> list[int]:
        """Return the bytes of each of some records that were unread at the last call of `unread`."""
        places = [
            TopicPartition(topic, int(each), self._bounds[topic][each][1] - count)
            for topic, within in self._unread.items()
            for each, count in within.items()
            if count > 0
        ]
        return sample_sizes(self._settings.bootstrap, places, most) if places else []

    def unread_by_partition(self) -> Offsets:
        """Return the same by topic and partition."""
        done = committed_offsets(self._settings.checkpoint)
        self._bounds = self._facts.bounds()
        if self._begin is None:
            self._begin = _begin(self._bounds, self._settings)
        begin = self._begin
        self._unread = {
            topic: {
                each: high - max(low, done.get(topic, {}).get(each, begin.get(topic, {}).get(each, low)))
                for each, (low, high) in within.items()
            }
            for topic, within in self._bounds.items()
        }
        return self._unread

    def open_transactions(self) -> tuple[OpenTransaction, ...]:
        """Return what keeps records from being read, as of the last call of `unread`."""
        return self._open.lasting(self._bounds)

    def caught_up(self) -> bool:
        """Return True once nothing was unread for a second."""
        if self.unread() > 0:
            self._quiet_since = None
            return False
        if self._quiet_since is None:
            self._quiet_since = time.monotonic()
        return time.monotonic() - self._quiet_since >= _IDLE_SECONDS


def _begin(bounds: Bounds, settings: StreamSettings) -> Offsets:
    """Return where the query begins: a checkpoint that holds no batch yet does not say."""
    reached, from_end = settings.reached or {}, settings.starting == "latest"
    return {
        topic: {
            each: reached[topic][each]
            if reached.get(topic, {}).get(each, high + 1) <= high
            else (high if from_end else low)
            for each, (low, high) in within.items()
        }
        for topic, within in bounds.items()
    }
