"""What a record of the alerts topic holds: an alert, or nothing for whoever reads."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import orjson
from confluent_kafka import Message

from schemas.alert import ALERT_VERSION
from schemas.errors import ConfigurationError
from streaming.kafka.outbox_record import AGENT_HEADER
from streaming.kafka.topic import headers_of
from streaming.output.log import log

Alert = dict[str, Any]


@dataclass(frozen=True)
class PassedRecord:
    """A record that is passed over.

    Attributes:
        partition: of the topic.
        offset: in the partition.
        no_alert: whether it is no alert at all; else it is one of an agent that nobody has asked for.
    """

    partition: int
    offset: int
    no_alert: bool


@dataclass(frozen=True)
class Received:
    """An alert as it lies on the topic.

    Attributes:
        alert: its document.
        document: the same, byte for byte.
        partition: of the topic.
        offset: in the partition.
    """

    alert: Alert
    document: bytes
    partition: int
    offset: int

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from all others: its id, and its revision."""
        return self.alert["alert_id"], self.alert["revision"]


def received_of(record: Message, wanted: str | None) -> Received | PassedRecord:
    """Return the alert that a record holds, or that there is none to be read.

    Of what another agent writes only its name is read.

    Args:
        record: of the topic.
        wanted: whose alerts are read, None for all.

    Raises:
        ConfigurationError: the alert is of a later version than is known here.
    """
    partition, offset = record.partition() or 0, record.offset() or 0
    document = record.value() or b""
    place, content = f"{record.topic()}/{partition}/{offset}", _object_in(document)
    agent = None if wanted is None else _agent_of(record, content)
    if agent != wanted and agent is not None:
        return PassedRecord(partition, offset, no_alert=False)
    if agent != wanted or content is None or not _is_alert(content, place):
        log("no_alert", "a record that is no alert is passed over", level=logging.WARNING, record=place)
        return PassedRecord(partition, offset, no_alert=True)
    return Received(content, document, partition, offset)


def _is_alert(content: Alert, place: str) -> bool:
    version = content.get("alert_version")
    if type(version) is int and version > ALERT_VERSION:
        problem = f"an alert of version {version}, and version {ALERT_VERSION} is known here"
        raise ConfigurationError(f"{problem}: update flagstream", where=place)
    named = type(content.get("alert_id")) is str and type(content.get("revision")) is int
    return version == ALERT_VERSION and named


def _agent_of(record: Message, content: Alert | None) -> str | None:
    """Return who has raised an alert: by the record's header, else by what it says itself."""
    named = dict(headers_of(record)).get(AGENT_HEADER)
    if isinstance(named, bytes):
        return named.decode("utf-8", "replace")
    said = None if content is None else content.get("agent")
    return said if isinstance(said, str) else None


def _object_in(document: bytes) -> Alert | None:
    try:
        content = orjson.loads(document)
    except orjson.JSONDecodeError:
        return None
    return content if isinstance(content, dict) else None
