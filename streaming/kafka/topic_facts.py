"""What a broker says of the topics of a stream: their ids, and which offsets they hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec, TopicDescription

from schemas.errors import RetryableError
from schemas.subscription import Subscription
from streaming.home.brokers import connection
from streaming.kafka.grants import raise_if_unauthorized, to_read
from streaming.kafka.refusals import words_of

Result = TypeVar("Result")
Bounds = dict[str, dict[str, tuple[int, int]]]
Ends = dict[str, dict[str, int]]
_CALL_SECONDS = 10.0
_PAUSE_SECONDS = 0.1
_UNSETTLED = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
    }
)
_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # sixteen zeros
_EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the library's stubs leave it out
_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # as above


class _UnsettledError(RetryableError):
    """A topic or partition is on its way in or out."""


@dataclass(frozen=True)
class TopicState:
    """What a broker says of a topic.

    Attributes:
        topic_id: no other topic ever has it, not even one of the same name; None from an old broker.
        bounds: partition → first offset it holds and the one after the last that consumers may read.
    """

    topic_id: str | None
    bounds: Mapping[str, tuple[int, int]]


class TopicFacts:
    """Asks a broker about the topics of a stream, over a connection that it keeps.

    Consumers may read up to the first record of the oldest transaction that is still open.

    Raises:
        ConfigurationError: from any call, when this login may not read a topic.
        RetryableError: from any call, when the broker does not answer or a named topic is not there.
    """

    def __init__(self, bootstrap: str, reads: Subscription, call_seconds: float = _CALL_SECONDS) -> None:
        self._reads, self._call_seconds, self._bootstrap = reads, call_seconds, bootstrap
        self._admin = AdminClient(connection(bootstrap))

    def state(self) -> dict[str, TopicState]:
        """Return ids and bounds by topic; of a pattern those that match now."""
        described, bounds = self._settled()
        return {name: TopicState(_id_of(topic), bounds[name]) for name, topic in described.items()}

    def topic_ids(self, names: Iterable[str]) -> dict[str, str]:
        """Return the ids of some topics, as far as the broker has any to tell."""
        found = {name: _id_of(topic) for name, topic in self._described(names, "id").items()}
        return {name: each for name, each in found.items() if each is not None}

    def bounds(self) -> Bounds:
        """Return, by topic and partition, the first offset and the one after the last to be read."""
        return self._settled()[1]

    def ends(self, bounds: Bounds) -> Ends:
        """Return the offsets after the last records, those in open transactions included.

        Args:
            bounds: the topics and partitions that are asked about.
        """
        places = [(name, int(each)) for name, within in bounds.items() for each in within]
        return self._listed(places, _LATEST, IsolationLevel.READ_UNCOMMITTED)

    def _settled(self) -> tuple[dict[str, TopicDescription], Bounds]:
        """Ask again where topics or partitions come or go: not every broker knows of it at once."""
        deadline = time.monotonic() + self._call_seconds
        while True:
            try:
                described = self._described(self._names(), "offsets")
                return described, self._bounds(described)
            except _UnsettledError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_SECONDS)

    def _names(self) -> list[str]:
        if self._reads.pattern is None:
            return list(self._reads.names)
        return self._reads.among(
            self._answer(lambda: self._admin.list_topics(timeout=self._call_seconds)).topics
        )

    def _described(self, names: Iterable[str], what: str) -> dict[str, TopicDescription]:
        wanted = list(names)
        if not wanted:
            return {}
        asked = self._admin.describe_topics(TopicCollection(wanted), request_timeout=self._call_seconds)
        return {name: self._result(future, name, what) for name, future in asked.items()}

    def _bounds(self, described: Mapping[str, TopicDescription]) -> Bounds:
        places = [(name, each.id) for name, topic in described.items() for each in topic.partitions]
        lows = self._listed(places, _EARLIEST, IsolationLevel.READ_COMMITTED)
        highs = self._listed(places, _LATEST, IsolationLevel.READ_COMMITTED)
        return {
            name: {each: (low, highs[name][each]) for each, low in lows.get(name, {}).items()}
            for name in described
        }

    def _listed(self, places: Iterable[tuple[str, int]], spec: Any, level: IsolationLevel) -> Ends:
        wanted = {TopicPartition(*place): spec for place in places}
        found: Ends = {}
        if not wanted:
            return found
        asked = self._admin.list_offsets(wanted, isolation_level=level, request_timeout=self._call_seconds)
        for place, future in asked.items():
            offset = self._result(future, place.topic, "offsets").offset
            found.setdefault(place.topic, {})[str(place.partition)] = offset
        return found

    def _result(self, future: Future[Result], topic: str, what: str) -> Result:
        return self._answer(lambda: future.result(self._call_seconds), topic, what)

    def _answer(self, call: Callable[[], Result], topic: str = "", what: str = "names") -> Result:
        about = f"topic {topic}" if topic else "topics"
        asked = f"asking {self._bootstrap} for the {what} of {about}"
        try:
            return call()
        except (KafkaException, TimeoutError) as fault:
            raise_if_unauthorized(fault, to_read(topic), self._bootstrap, asked)
            kind = _UnsettledError if _code_of(fault) in _UNSETTLED else RetryableError
            raise kind(f"{asked}: {words_of(fault)}") from fault


def _code_of(fault: Exception) -> int | None:
    error = fault.args[0] if fault.args else None
    return error.code() if isinstance(error, KafkaError) else None


def _id_of(topic: TopicDescription) -> str | None:
    found = topic.topic_id
    return None if found is None or str(found) == _NO_ID else str(found)
