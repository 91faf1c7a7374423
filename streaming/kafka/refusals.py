"""Faults of Kafka that repeating cannot cure, as distinct from those that pass."""

from __future__ import annotations

import re
from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException

from schemas.errors import ConfigurationError, FencedError
from streaming.kafka.grants import Grant, raise_if_unauthorized

_REFUSED_CODES = {
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "have the cluster admit it",
    KafkaError.INVALID_RECORD: "the topic's configuration says what it takes",
    KafkaError.TOPIC_EXCEPTION: "name a topic that Kafka admits",
    KafkaError._AUTHENTICATION: "check the login in the client.properties that is named",
}
NOT_ALLOWED = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})
_TOO_LARGE_CODES = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_FENCED_CODES = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})


_THIS_TIME = re.compile(r" \(after \d+ms in state (?:[^()]|\([^()]*\))*\)")


class TooLargeError(Exception):
    """What was sent at once is more than the topic admits."""


def words_of(fault: Exception) -> str:
    """Return what Kafka, or its client, says of a fault, for people: the same each time that it comes."""
    error = fault.args[0] if fault.args else None
    return said_by(error) if isinstance(error, KafkaError) else str(fault) or "no answer in time"


def said_by(error: KafkaError) -> str:
    """Return what Kafka's client says, without how many milliseconds it took this time."""
    return _THIS_TIME.sub("", str(error.str()))


def raise_if_fenced(error: KafkaError) -> None:
    """Raise when a successor has taken the transactional id over.

    Raises:
        FencedError: it has.
    """
    if error.code() in _FENCED_CODES:
        raise FencedError(f"another driver publishes for this agent now: {error.str()}")


def raise_if_refused(fault: KafkaException, topic: str, grants: Mapping[int, Grant], bootstrap: str) -> None:
    """Raise when repeating what led to a fault would end the same way.

    Args:
        fault: as raised by the client.
        topic: that was written to.
        grants: what would do where a right is missing, by the code of the fault.
        bootstrap: address of the broker.

    Raises:
        TooLargeError: less at once may do.
        ConfigurationError: the broker does not allow it.
    """
    code, where = fault.args[0].code(), f"publishing to {topic}"
    if code in _TOO_LARGE_CODES:
        raise TooLargeError
    raise_if_unauthorized(fault, grants, bootstrap, where)
    if code in _REFUSED_CODES:
        problem = f"the broker refuses it: {words_of(fault)}; {_REFUSED_CODES[code]}, then start again"
        raise ConfigurationError(problem, where=where) from fault
