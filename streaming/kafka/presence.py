"""Asks, in a few seconds and changing nothing, whether a broker is there and lets this login in."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata

from schemas.errors import RetryableError
from streaming.home.brokers import connection
from streaming.kafka.refusals import said_by, words_of

_SECONDS = 3.0
_ADVICE = "; FLAGSTREAM_KAFKA or `kafka` of the spec names the address, `flagstream doctor` checks it"
# What says why no broker was reached; that none was is all that the call itself says.
_CAUSES = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._RESOLVE})


def metadata_of(bootstrap: str, seconds: float = _SECONDS, advice: str = _ADVICE) -> ClusterMetadata:
    """Return the brokers and topics that this login sees.

    Args:
        seconds: how long an answer is waited for.
        advice: what the error ends with.

    Raises:
        RetryableError: none answers within so many seconds, or the login is refused; saying which.
    """
    seen = list[KafkaError]()
    settings: dict[str, Any] = {**connection(bootstrap), "error_cb": seen.append}
    admin = AdminClient(settings)
    try:
        return admin.list_topics(timeout=seconds)
    except KafkaException as fault:
        admin.poll(1.0)
        causes = [each for each in seen if each.code() in _CAUSES]
        said = said_by(causes[0]) if causes else words_of(fault)
        raise RetryableError(f"no broker answers at {bootstrap}: {said}{advice}") from fault


def broker_away(bootstrap: str) -> str | None:
    """Return why no broker can be reached, None when one answers."""
    try:
        metadata_of(bootstrap)
    except RetryableError as fault:
        return str(fault)
    return None
