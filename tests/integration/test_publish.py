"""The publisher on a real broker: every alert once, whatever happened to a predecessor or the marker."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from schemas.errors import ConfigurationError, DataLossError, FencedError
from streaming.home.brokers import connection
from streaming.kafka.outbox_record import (
    AGENT_HEADER,
    SEQUENCE_HEADER,
    OutboxRecord,
    PublisherSettings,
    sequence_of,
)
from streaming.kafka.publish import Publisher
from streaming.kafka.topic import committed_messages
from streaming.kafka.topic_admin import ensure_topic

CALL_SECONDS = 30.0


@pytest.fixture
def lane(bootstrap: str, topic: Callable[[str], str]) -> PublisherSettings:
    """An alerts topic of one partition, and names of its own."""
    name = topic("alerts")
    ensure_topic(bootstrap, name, partitions=1)
    return PublisherSettings(bootstrap, name, f"agent-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def opened() -> Iterator[Callable[..., Publisher]]:
    """Open publishers, and close them in the end."""
    publishers: list[Publisher] = []

    def open_one(lane: PublisherSettings, stored_next: int = 0) -> Publisher:
        publisher = Publisher(lane)
        publishers.append(publisher)
        publisher.open(stored_next)
        return publisher

    yield open_one
    for publisher in publishers:
        publisher.close()


def outbox(first: int, count: int) -> list[OutboxRecord]:
    return [
        OutboxRecord(number, f"t{number}".encode(), f'{{"n": {number}}}'.encode())
        for number in range(first, first + count)
    ]


def seen(lane: PublisherSettings) -> list[int]:
    return [sequence_of(message, lane) for message in committed_messages(lane.bootstrap, lane.topic)]


def marker_of(lane: PublisherSettings) -> int:
    """Read the marker as any other tool would: the group's committed offset."""
    consumer = Consumer({**connection(lane.bootstrap), "group.id": lane.marker_group})
    try:
        return consumer.committed([TopicPartition(lane.topic, 0)], timeout=CALL_SECONDS)[0].offset
    finally:
        consumer.close()


def predecessor(lane: PublisherSettings, records: Sequence[OutboxRecord]) -> Producer:
    """A driver that has put records on the broker and dies before it commits them."""
    producer = Producer({**connection(lane.bootstrap), "transactional.id": lane.transactional_id})
    producer.init_transactions(CALL_SECONDS)
    producer.begin_transaction()
    for record in records:
        header: list[tuple[str, str | bytes | None]] = [
            (AGENT_HEADER, lane.agent.encode()),
            (SEQUENCE_HEADER, str(record.outbox_seq).encode()),
        ]
        producer.produce(lane.topic, record.value, record.key, headers=header)
    assert producer.flush(CALL_SECONDS) == 0
    return producer


def lose_marker(lane: PublisherSettings) -> None:
    admin = AdminClient(connection(lane.bootstrap))
    for future in admin.delete_consumer_groups([lane.marker_group]).values():
        future.result(CALL_SECONDS)
    assert marker_of(lane) < 0


def empty_topic(lane: PublisherSettings) -> None:
    admin = AdminClient(connection(lane.bootstrap))
    for future in admin.delete_records([TopicPartition(lane.topic, 0, -1)]).values():
        future.result(CALL_SECONDS)


def test_the_marker_moves_with_the_alerts(lane: PublisherSettings, opened: Callable[..., Publisher]) -> None:
    publisher = opened(lane)
    assert publisher.marker == 0
    assert publisher.publish(outbox(0, 3)) == 3
    assert publisher.publish(outbox(0, 5)) == 2, "what went out before is not sent again"
    assert publisher.marker == marker_of(lane) == 5
    assert seen(lane) == [0, 1, 2, 3, 4]
    assert [message.key() for message in committed_messages(lane.bootstrap, lane.topic)] == [
        record.key for record in outbox(0, 5)
    ]


def test_neither_alerts_nor_marker_move_before_the_commit(lane: PublisherSettings) -> None:
    witnessed: list[tuple[int, list[int]]] = []
    publisher = Publisher(lane, before_commit=lambda _: witnessed.append((marker_of(lane), seen(lane))))
    publisher.open(0)
    publisher.publish(outbox(0, 3))
    publisher.publish(outbox(3, 2))
    publisher.close()
    assert witnessed[0][0] < 0
    assert [alerts for _, alerts in witnessed] == [[], [0, 1, 2]]
    assert witnessed[1][0] == 3
    assert (marker_of(lane), seen(lane)) == (5, [0, 1, 2, 3, 4])


def test_what_a_predecessor_left_uncommitted_is_seen_once(
    lane: PublisherSettings, opened: Callable[..., Publisher]
) -> None:
    opened(lane).publish(outbox(0, 4))
    dead = predecessor(lane, outbox(4, 6))
    successor = opened(lane, 10)
    assert successor.marker == 4
    successor.publish(outbox(4, 6))
    assert seen(lane) == list(range(10))
    del dead


def test_a_predecessor_that_died_in_its_very_first_transaction_is_no_data_loss(
    lane: PublisherSettings, opened: Callable[..., Publisher]
) -> None:
    dead = predecessor(lane, outbox(0, 6))
    successor = opened(lane, 6)
    assert successor.marker == 0
    successor.publish(outbox(0, 6))
    assert seen(lane) == list(range(6))
    del dead


def test_a_successor_fences_whoever_published_before(
    lane: PublisherSettings, opened: Callable[..., Publisher]
) -> None:
    first = opened(lane)
    first.publish(outbox(0, 2))
    second = opened(lane, 2)
    with pytest.raises(FencedError):
        first.publish(outbox(2, 2))
    second.publish(outbox(2, 1))
    assert seen(lane) == [0, 1, 2]


@pytest.mark.parametrize("aborted", [0, 1_500])
def test_a_lost_marker_is_rebuilt_from_what_consumers_can_see(
    aborted: int, lane: PublisherSettings, opened: Callable[..., Publisher]
) -> None:
    opened(lane).publish(outbox(0, 7))
    dead = predecessor(lane, outbox(7, aborted))
    lose_marker(lane)
    successor = opened(lane, 7 + aborted)
    assert successor.marker == 7
    successor.publish(outbox(7, 2))
    assert seen(lane) == list(range(9))
    assert marker_of(lane) == 9
    del dead


def test_a_lost_marker_that_the_topic_cannot_show_stops_the_agent(
    lane: PublisherSettings, opened: Callable[..., Publisher]
) -> None:
    opened(lane).publish(outbox(0, 3))
    empty_topic(lane)
    assert opened(lane, 3).marker == 3, "the marker alone suffices"
    lose_marker(lane)
    with pytest.raises(DataLossError, match=lane.topic):
        opened(lane, 3)


def test_a_lost_marker_is_rebuilt_over_several_partitions(
    bootstrap: str, topic: Callable[[str], str], opened: Callable[..., Publisher]
) -> None:
    lane = PublisherSettings(bootstrap, topic("alerts"), f"agent-{uuid.uuid4().hex[:8]}")
    ensure_topic(bootstrap, lane.topic, partitions=3)
    opened(lane).publish(outbox(0, 40))
    spread = Counter(message.partition() for message in committed_messages(bootstrap, lane.topic))
    assert len(spread) == 3
    assert sorted(seen(lane)) == list(range(40))
    lose_marker(lane)
    assert opened(lane, 40).marker == 40


def test_a_marker_kept_without_alerts_is_there_when_the_topic_shows_none(
    lane: PublisherSettings, opened: Callable[..., Publisher]
) -> None:
    publisher = opened(lane)
    publisher.publish(outbox(0, 3))
    lose_marker(lane)
    publisher.keep_marker()
    assert (marker_of(lane), seen(lane)) == (3, [0, 1, 2])
    empty_topic(lane)
    assert opened(lane, 3).marker == 3


def test_a_driver_that_was_fenced_keeps_no_marker(
    lane: PublisherSettings, opened: Callable[..., Publisher]
) -> None:
    first = opened(lane)
    first.publish(outbox(0, 2))
    second = opened(lane, 2)
    second.publish(outbox(2, 2))
    with pytest.raises(FencedError):
        first.keep_marker()
    assert marker_of(lane) == 4


def test_a_lane_begins_with_its_first_alert(
    lane: PublisherSettings, opened: Callable[..., Publisher]
) -> None:
    moved = replace(lane, first=5)
    assert opened(moved, 7).marker == 5
    assert opened(moved, 7).publish(outbox(5, 2)) == 2
    assert opened(moved, 7).marker == 7
    assert seen(lane) == [5, 6]


@pytest.mark.parametrize("numbers", [(0, 1, 3), (0, 0, 1), (1, 2)])
def test_an_outbox_with_a_gap_or_a_repetition_is_not_published(
    numbers: tuple[int, ...], lane: PublisherSettings, opened: Callable[..., Publisher]
) -> None:
    publisher = opened(lane)
    with pytest.raises(DataLossError, match="gap"):
        publisher.publish([outbox(number, 1)[0] for number in numbers])
    assert (publisher.marker, seen(lane)) == (0, [])


def test_many_alerts_leave_in_order_over_several_transactions(lane: PublisherSettings) -> None:
    sizes: list[int] = []
    publisher = Publisher(lane, before_commit=lambda chunk: sizes.append(len(chunk)))
    publisher.open(0)
    assert publisher.publish(iter(outbox(0, 23_000))) == 23_000
    publisher.close()
    assert len(sizes) > 1
    assert sum(sizes) == marker_of(lane) == 23_000
    assert seen(lane) == list(range(23_000))


@pytest.fixture
def narrow(bootstrap: str, topic: Callable[[str], str]) -> PublisherSettings:
    """A lane whose topic admits 20,000 bytes at a time."""
    name = topic("alerts")
    ensure_topic(bootstrap, name, partitions=1, config={"max.message.bytes": "20000"})
    return PublisherSettings(bootstrap, name, f"agent-{uuid.uuid4().hex[:8]}")


def large(number: int, size: int) -> OutboxRecord:
    """A record that does not compress."""
    return OutboxRecord(number, b"k", random.Random(number).randbytes(size))


def admit(lane: PublisherSettings, size: int) -> None:
    """Raise the limit of the topic, as an operator would."""
    admin = AdminClient(connection(lane.bootstrap))
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    wanted = ConfigResource(ConfigResource.Type.TOPIC, lane.topic, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([wanted]).values():
        future.result(CALL_SECONDS)


def test_an_alert_that_the_topic_does_not_admit_stops_the_lane_at_once_and_says_what_to_do(
    narrow: PublisherSettings, opened: Callable[..., Publisher]
) -> None:
    lane = [*outbox(0, 5), large(5, 50_000), *outbox(6, 3)]
    begun = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"alert 5 takes 50,001 bytes.*max.message.bytes to 51025"):
        opened(narrow).publish(lane)
    assert time.monotonic() - begun < narrow.deadline_s / 2
    assert (seen(narrow), marker_of(narrow)) == ([0, 1, 2, 3, 4], 5), "what came before it has left"
    admit(narrow, 51_025)
    successor = opened(narrow, 9)
    successor.publish(lane)
    assert (seen(narrow), marker_of(narrow)) == (list(range(9)), 9)


def test_alerts_that_are_too_large_together_leave_one_after_the_other(
    narrow: PublisherSettings, opened: Callable[..., Publisher]
) -> None:
    assert opened(narrow).publish([large(number, 4_000) for number in range(30)]) == 30
    assert (seen(narrow), marker_of(narrow)) == (list(range(30)), 30)


def test_the_topic_decides_how_large_an_alert_may_be(
    lane: PublisherSettings, opened: Callable[..., Publisher]
) -> None:
    admit(lane, 4_000_000)
    opened(lane).publish([large(0, 3_000_000)])
    assert [len(message.value() or b"") for message in committed_messages(lane.bootstrap, lane.topic)] == [
        3_000_000
    ]
