"""What is published: one alert on its way, the lane that it leaves on, and how it is known there."""

from __future__ import annotations

from dataclasses import dataclass

from confluent_kafka import (
    Message,
)

from schemas.errors import ConfigurationError
from streaming.kafka.grants import Grant, to_publish
from streaming.kafka.topic import headers_of

SEQUENCE_HEADER = "outbox_seq"
AGENT_HEADER = "agent"
REPLAY_HEADER = "replay"
Headers = tuple[tuple[str, bytes], ...]
_FRAME_BYTES = 1_024  # headers, and what Kafka writes around a record


@dataclass(frozen=True)
class OutboxRecord:
    """One alert as it goes out: its place in the lane, the Kafka key and value, and further headers."""

    outbox_seq: int
    key: bytes
    value: bytes
    headers: Headers = ()


@dataclass(frozen=True)
class PublisherSettings:
    """Where and under which names alerts are published.

    Attributes:
        replay: which span is sent once more, None for the agent's own lane; it is the replay header's value.
        first: the lowest outbox_seq that leaves on this topic.
    """

    bootstrap: str
    topic: str
    agent: str
    deadline_s: float = 60.0
    replay: str | None = None
    first: int = 0

    @property
    def transactional_id(self) -> str:
        """Fixed id: whoever initialises it fences the previous holder."""
        return f"flagstream-{self.agent}" + (f"-replay-{self.replay}" if self.replay else "")

    @property
    def marker_group(self) -> str:
        """Consumer group whose committed offset on partition 0 is the marker."""
        return f"{self.transactional_id}-marker"

    @property
    def grants(self) -> dict[int, Grant]:
        """Which grant each refusal of the broker asks for."""
        return to_publish(self.topic, self.agent)

    @property
    def marks(self) -> dict[str, bytes]:
        """The headers that tell this lane's alerts from others on the topic."""
        replay = {} if self.replay is None else {REPLAY_HEADER: self.replay.encode()}
        return {AGENT_HEADER: self.agent.encode(), **replay}


def sequence_of(message: Message, lane: PublisherSettings) -> int:
    """Return the outbox_seq header of one of this lane's alerts, -1 for any other message."""
    headers = dict(headers_of(message))
    value = headers.get(SEQUENCE_HEADER)
    marks = {name: headers[name] for name in (AGENT_HEADER, REPLAY_HEADER) if name in headers}
    return -1 if value is None or marks != lane.marks else int(value)


def too_large(record: OutboxRecord, topic: str) -> ConfigurationError:
    """Return the fault of an alert that the topic does not admit."""
    size = len(record.key) + len(record.value)
    return ConfigurationError(
        f"alert {record.outbox_seq} takes {size:,} bytes, more than the topic admits: raise its "
        f"max.message.bytes to {size + _FRAME_BYTES} and start the agent again. alerts.max_bytes of the spec "
        "bounds the alerts decided from then on",
        where=f"publishing to {topic}",
    )
