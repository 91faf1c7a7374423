"""Asks, in a few seconds and changing nothing, whether a broker is there."""

from __future__ import annotations

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streaming.kafka.refusals import words_of
from streaming.kafka.topic import connection

_SECONDS = 3.0


def broker_away(bootstrap: str) -> str | None:
    """Return why no broker can be reached, None when one answers."""
    try:
        AdminClient(connection(bootstrap)).list_topics(timeout=_SECONDS)
    except KafkaException as fault:
        return f"no broker answers at {bootstrap} ({words_of(fault)}); `flagstream doctor` checks it"
    return None
