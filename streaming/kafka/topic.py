"""Reading a Kafka topic as its consumers see it: committed records only, from the beginning."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.errors import RetryableError
from streaming.home.brokers import connection
from streaming.kafka.grants import raise_if_unauthorized, to_read
from streaming.kafka.presence import metadata_of
from streaming.kafka.refusals import words_of

_CALL_SECONDS = 10.0
_PAUSE_SECONDS = 0.1
_SETTLING_SECONDS = 3.0
_SAMPLE_SECONDS, _SAMPLE_BYTES = 2.0, 65_536
PASSING = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
)


def headers_of(message: Message) -> list[tuple[str, bytes | None]]:
    """Return a record's headers in their order; a name may repeat.

    None of them where a name is not UTF-8: the client gives no header of such a record.
    """
    try:
        # Typed as if it could be a mapping; read from a topic it is a list, since names may repeat.
        return cast("list[tuple[str, bytes | None]] | None", message.headers()) or []
    except (SystemError, UnicodeError):
        return []


def committed_messages(
    bootstrap: str, topic: str, *, follow: bool = False, stop: Callable[[], bool] = lambda: False
) -> Iterator[Message]:
    """Yield every committed message of a topic; with `follow`, go on waiting for more until `stop`.

    A broker answers a commit before readers see the transaction. Without `follow`, the end is therefore where
    the topic ended at the call, open transactions included; those are waited for some seconds.

    Raises:
        RetryableError: the broker does not answer, or the topic does not exist.
    """
    consumer = Consumer(
        {
            **connection(bootstrap),
            "group.id": "flagstream-reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
        }
    )
    try:
        places = partitions_of(consumer, topic, bootstrap)
        consumer.assign(places)
        ends = {} if follow else _ends_of(bootstrap, places)
        yield from _drain(consumer, ends, follow, stop)
    except KafkaException as fault:
        raise reading_fault(topic, bootstrap, fault) from fault
    finally:
        consumer.close()


def newest_messages(bootstrap: str, topic: str, most: int) -> list[Message]:
    """Return about the last `most` committed messages of a topic, as many of each partition.

    Raises:
        RetryableError: the broker does not answer, or the topic does not exist.
    """
    consumer = Consumer(
        {
            **connection(bootstrap),
            "group.id": "flagstream-sample",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    try:
        places = partitions_of(consumer, topic, bootstrap)
        ends = _ends_of(bootstrap, places)
        for place in places:
            low, _ = consumer.get_watermark_offsets(place, timeout=_CALL_SECONDS)
            place.offset = max(low, ends[place.partition] - -(-most // len(places)))
        consumer.assign(places)
        return list(_drain(consumer, ends, False, lambda: False))
    except KafkaException as fault:
        raise reading_fault(topic, bootstrap, fault) from fault
    finally:
        consumer.close()


def sample_sizes(bootstrap: str, places: Sequence[TopicPartition], most: int) -> list[int]:
    """Return the bytes of each of the first records from some places on, without their headers.

    Few records are fetched at once: what is small on the topic can unpack to a thousand times as much.

    Args:
        places: where records are that can be read.
        most: records that are asked for; fewer where the broker takes its time.

    Raises:
        ConfigurationError: a right is missing; named with the command that grants it.
        RetryableError: the broker does not answer.
    """
    consumer = Consumer(
        {
            **connection(bootstrap),
            "group.id": "flagstream-sample",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.message.max.bytes": _SAMPLE_BYTES,
            "queued.min.messages": most,
        }
    )
    try:
        consumer.assign(list(places))
        found = consumer.consume(most, _SAMPLE_SECONDS)
        return [len(each.key() or b"") + len(each.value() or b"") for each in found if each.error() is None]
    except KafkaException as fault:
        raise reading_fault(places[0].topic, bootstrap, fault) from fault
    finally:
        consumer.close()


def topic_exists(bootstrap: str, topic: str) -> bool:
    """Say whether a topic is there.

    Raises:
        RetryableError: the broker does not answer.
    """
    return topic in metadata_of(bootstrap, _CALL_SECONDS).topics


def reading_fault(topic: str, bootstrap: str, fault: KafkaException) -> RetryableError:
    """Return what passes of a fault in reading a topic.

    Raises:
        ConfigurationError: a right is missing; named with the command that grants it.
    """
    raise_if_unauthorized(fault, to_read(topic), bootstrap, f"reading {topic}")
    return RetryableError(f"reading {topic} from {bootstrap}: {words_of(fault)}")


def partitions_of(consumer: Consumer, topic: str, bootstrap: str) -> list[TopicPartition]:
    """Return the partitions of a topic, each from its beginning.

    One made a moment ago may not be known to the broker yet, so it is asked for a while.

    Raises:
        ConfigurationError: this login may not read it.
        RetryableError: there is no such topic.
    """
    deadline = time.monotonic() + _CALL_SECONDS
    found = consumer.list_topics(topic, _CALL_SECONDS).topics[topic]
    while found.error is not None:
        raise_if_unauthorized(KafkaException(found.error), to_read(topic), bootstrap, f"reading {topic}")
        if time.monotonic() > deadline:
            raise RetryableError(f"topic {topic}: {found.error}")
        consumer.poll(_PAUSE_SECONDS)
        found = consumer.list_topics(topic, _CALL_SECONDS).topics[topic]
    return [TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in found.partitions]


def _ends_of(bootstrap: str, places: Sequence[TopicPartition]) -> dict[int, int]:
    """Return, by partition, the offset after the last record, whether or not its transaction is settled."""
    admin = AdminClient(connection(bootstrap))
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the library's stubs leave it out
    asked = admin.list_offsets(
        {TopicPartition(place.topic, place.partition): latest for place in places},
        isolation_level=IsolationLevel.READ_UNCOMMITTED,
        request_timeout=_CALL_SECONDS,
    )
    return {place.partition: answer.result(_CALL_SECONDS).offset for place, answer in asked.items()}


def _drain(
    consumer: Consumer, ends: Mapping[int, int], follow: bool, stop: Callable[[], bool]
) -> Iterator[Message]:
    reached: dict[int, int] = {}
    answered = time.monotonic()
    while not stop() and (follow or not _all_reached(reached, ends, time.monotonic() - answered)):
        message = consumer.poll(0.2)
        if message is None:
            if not follow and time.monotonic() - answered > 6 * _CALL_SECONDS:
                raise RetryableError("the broker sent neither records nor the end of the topic for a minute")
            continue
        answered = time.monotonic()
        fault = message.error()
        if fault is None:
            yield message
        elif fault.code() == KafkaError._PARTITION_EOF:
            reached[message.partition() or 0] = message.offset() or 0
        elif fault.fatal() or fault.code() not in PASSING:
            raise KafkaException(fault)


def _all_reached(reached: Mapping[int, int], ends: Mapping[int, int], silent_s: float) -> bool:
    if reached.keys() != ends.keys():
        return False
    return silent_s > _SETTLING_SECONDS or all(reached[each] >= end for each, end in ends.items())
