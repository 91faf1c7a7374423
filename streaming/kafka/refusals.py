"""Faults of Kafka that repeating cannot cure, as distinct from those that pass."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from schemas.errors import ConfigurationError, FencedError

_REFUSED_CODES = frozenset(
    {
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.INVALID_RECORD,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError._AUTHENTICATION,
    }
)
NOT_ALLOWED = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})
_TOO_LARGE_CODES = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_FENCED_CODES = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})


class TooLargeError(Exception):
    """What was sent at once is more than the topic admits."""


def words_of(fault: Exception) -> str:
    """Return what Kafka, or its client, says of a fault, for people."""
    error = fault.args[0] if fault.args else None
    return str(error.str()) if isinstance(error, KafkaError) else str(fault) or "no answer in time"


def raise_if_fenced(error: KafkaError) -> None:
    """Raise when a successor has taken the transactional id over.

    Raises:
        FencedError: it has.
    """
    if error.code() in _FENCED_CODES:
        raise FencedError(f"another driver publishes for this agent now: {error.str()}")


def raise_if_refused(fault: KafkaException, topic: str) -> None:
    """Raise when repeating what led to a fault would end the same way.

    Args:
        fault: as raised by the client.
        topic: that was written to.

    Raises:
        TooLargeError: less at once may do.
        ConfigurationError: the broker does not allow it.
    """
    code = fault.args[0].code()
    if code in _TOO_LARGE_CODES:
        raise TooLargeError
    if code in _REFUSED_CODES:
        raise ConfigurationError(
            f"the broker refuses it: {words_of(fault)}; grant the agent what it needs on its topics, "
            "transactional id and consumer group, then start it again",
            where=f"publishing to {topic}",
        ) from fault
