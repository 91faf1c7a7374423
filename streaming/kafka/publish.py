"""The project's one Kafka publisher: alerts leave in outbox order, each exactly once.

The marker (the next outbox_seq to send) is the committed offset of a private consumer group on partition 0 of
the alerts topic, and moves in the same transaction as the alerts. The transactional id is fixed per agent, so
a successor's `init_transactions` fences whoever held it before and aborts what was left open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from schemas.errors import DataLossError, RetryableError
from streaming.home.brokers import compression_of, connection
from streaming.kafka.bounded import within
from streaming.kafka.outbox_record import (
    SEQUENCE_HEADER,
    OutboxRecord,
    PublisherSettings,
    sequence_of,
    too_large,
)
from streaming.kafka.refusals import TooLargeError, raise_if_fenced, raise_if_refused, words_of

Result = TypeVar("Result")
_CHUNK = 10_000
_CALL_SECONDS = 10.0
_CLIENT_SECONDS = 20.0  # after an outage a client may wait for ever for a coordinator that has come back
_TAIL_RECORDS = 1_000
_PAUSE_SECONDS = 0.1
_LARGEST_MESSAGE = 1_000_000_000  # as far as the client goes: the topic's limit decides


class Publisher:
    """A transactional producer and its marker.

    Args:
        settings: broker, topic and names.
        before_commit: called with the records of a transaction after they were produced, before it commits;
            crash tests inject a kill here.
        check_ours: raises when another driver has taken over; called before the transactional id is claimed
            anew, which would fence that driver.

    Raises:
        ConfigurationError: the broker refuses what no repetition makes it take.
        FencedError: from any call, once a successor has initialised the same transactional id.
        RetryableError: the broker did not answer within the deadline.
        DataLossError: neither the group nor the topic can show how far publishing had come.
    """

    def __init__(
        self,
        settings: PublisherSettings,
        before_commit: Callable[[Sequence[OutboxRecord]], None] = lambda _: None,
        check_ours: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings, self._before_commit, self._check_ours = settings, before_commit, check_ours
        self._consumer = Consumer(
            {
                **connection(settings.bootstrap),
                "group.id": settings.marker_group,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
            }
        )
        self._producer: Producer | None = None
        self._marker = 0
        self._lost_sight = False

    @property
    def marker(self) -> int:
        """The next outbox_seq to send."""
        return self._marker

    def open(self, stored_next: int) -> None:
        """Fence predecessors, then read the marker.

        Args:
            stored_next: the next outbox_seq according to the alerts table, to judge a lost marker.
        """
        self._lost_sight = False
        self._producer = self._until(self._new_producer)
        marker = self._until(lambda: self._read_marker(stored_next))
        self._marker = max(marker, self._settings.first)

    def publish(self, records: Iterable[OutboxRecord]) -> int:
        """Send every record at or after the marker, in order; return how many were sent.

        Args:
            records: outbox records in ascending, gapless outbox_seq, starting at or before the marker.
        """
        pending = [record for record in records if record.outbox_seq >= self._marker]
        expected = range(self._marker, self._marker + len(pending))
        if [record.outbox_seq for record in pending] != list(expected):
            raise DataLossError(f"the outbox has a gap or a repetition after {self._marker}; see `reconcile`")
        for start in range(0, len(pending), _CHUNK):
            self._send(pending[start : start + _CHUNK])
        return len(pending)

    def keep_marker(self) -> None:
        """Commit the marker anew, in a transaction without alerts: Kafka forgets one that is a week old."""
        self._through(lambda: self._transact([], self._marker))

    def close(self) -> None:
        """Let go of the broker; anything uncommitted was never visible."""
        self._producer = None
        self._consumer.close()

    def _send(self, chunk: Sequence[OutboxRecord]) -> None:
        target = chunk[-1].outbox_seq + 1

        def send() -> None:
            if self._marker < target:
                self._transact([record for record in chunk if record.outbox_seq >= self._marker], target)
                self._marker = target

        try:
            self._through(send)
        except TooLargeError:
            self._send_in_parts([record for record in chunk if record.outbox_seq >= self._marker])

    def _send_in_parts(self, chunk: Sequence[OutboxRecord]) -> None:
        """Send what was too large as a whole: the topic's limit is for what is sent at once."""
        if len(chunk) == 1:
            raise too_large(chunk[0], self._settings.topic)
        if not chunk:
            return
        middle = len(chunk) // 2
        self._send(chunk[:middle])
        self._send(chunk[middle:])

    def _through(self, transaction: Callable[[], None]) -> None:
        """Repeat a transaction through passing faults, after the broker has said how far it came."""
        deadline = time.monotonic() + self._settings.deadline_s
        while True:
            try:
                self._notice_outage()
                return transaction()
            except KafkaException as fault:
                if time.monotonic() > deadline:
                    problem = f"publishing to {self._settings.topic}: {words_of(fault)}"
                    raise RetryableError(problem) from fault
                self._recover(fault.args[0])
                self._raise_if_refused(fault)
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise RetryableError(
                        f"publishing to {self._settings.topic}: the Kafka client does not answer"
                    ) from None
                self._begin_anew()

    def _notice_outage(self) -> None:
        self._live_producer().poll(0)
        if self._lost_sight:
            self._begin_anew()

    def _saw(self, error: KafkaError) -> None:
        """Called by the producer's own poll: after an outage it would wait in vain for its coordinator."""
        self._lost_sight |= error.code() == KafkaError._ALL_BROKERS_DOWN

    def _transact(self, chunk: Sequence[OutboxRecord], target: int) -> None:
        producer = self._live_producer()
        within(_CLIENT_SECONDS, lambda: self._transact_through(producer, chunk, target))

    def _transact_through(self, producer: Producer, chunk: Sequence[OutboxRecord], target: int) -> None:
        producer.begin_transaction()
        for record in chunk:
            self._produce(producer, record)
        self._before_commit(chunk)
        offsets = [TopicPartition(self._settings.topic, 0, target)]
        producer.send_offsets_to_transaction(offsets, self._consumer.consumer_group_metadata(), _CALL_SECONDS)
        _retrying(lambda: producer.commit_transaction(-1))

    def _produce(self, producer: Producer, record: OutboxRecord) -> None:
        headers: list[tuple[str, str | bytes | None]] = [
            *self._settings.marks.items(),
            (SEQUENCE_HEADER, str(record.outbox_seq).encode()),
            *record.headers,
        ]
        while True:
            try:
                producer.produce(self._settings.topic, record.value, record.key, headers=headers)
                producer.poll(0)
                return
            except BufferError:
                producer.poll(0.1)

    def _recover(self, error: KafkaError) -> None:
        """Abort what can be aborted; otherwise start over from what the broker says was committed."""
        raise_if_fenced(error)
        if error.txn_requires_abort():
            try:
                self._live_producer().abort_transaction(_CALL_SECONDS)
                return
            except KafkaException as fault:
                raise_if_fenced(fault.args[0])
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Claim the transactional id once more, which aborts what is left open, and read the marker."""
        self._check_ours()
        self.open(stored_next=self._marker)

    def _raise_if_refused(self, fault: KafkaException) -> None:
        settings = self._settings
        raise_if_refused(fault, settings.topic, settings.grants, settings.bootstrap)

    def _live_producer(self) -> Producer:
        if self._producer is None:
            raise RetryableError("the publisher is not open")
        return self._producer

    def _until(self, call: Callable[[], Result]) -> Result:
        """Repeat a call through passing faults such as a coordinator that is still moving."""
        seconds = self._settings.deadline_s
        deadline = time.monotonic() + seconds
        while True:
            try:
                return call()
            except KafkaException as fault:
                raise_if_fenced(fault.args[0])
                self._raise_if_refused(fault)
                if time.monotonic() > deadline:
                    problem = f"the broker did not do it in {seconds:g} s: {words_of(fault)}"
                    raise RetryableError(problem) from fault
                time.sleep(_PAUSE_SECONDS)

    def _new_producer(self) -> Producer:
        producer = Producer(
            {
                **connection(self._settings.bootstrap),
                "transactional.id": self._settings.transactional_id,
                "transaction.timeout.ms": 60_000,
                "compression.type": compression_of(self._settings.bootstrap),
                "message.max.bytes": _LARGEST_MESSAGE,
                "linger.ms": 2,
                "error_cb": self._saw,
            }
        )
        producer.init_transactions(_CALL_SECONDS)
        return producer

    def _read_marker(self, stored_next: int) -> int:
        wanted = [TopicPartition(self._settings.topic, 0)]
        committed = self._consumer.committed(wanted, timeout=_CALL_SECONDS)[0]
        if committed.error is not None:
            raise KafkaException(committed.error)
        if committed.offset >= 0:
            return int(committed.offset)
        return self._rebuild_marker(stored_next)

    def _rebuild_marker(self, stored_next: int) -> int:
        """Group offsets expire after a quiet week: the topic's own headers then show how far it came."""
        topic = self._consumer.list_topics(self._settings.topic, _CALL_SECONDS).topics[self._settings.topic]
        if topic.error is not None:
            raise KafkaException(topic.error)
        highest = -1
        removed = False
        for partition in topic.partitions:
            place = TopicPartition(self._settings.topic, partition)
            low, high = self._consumer.get_watermark_offsets(place, _CALL_SECONDS)
            removed |= low > 0
            highest = max(highest, self._highest_sequence(partition, low, high))
        if highest < 0 and removed and stored_next > self._settings.first:
            raise DataLossError(
                f"topic {self._settings.topic} no longer shows which alerts were published and the consumer "
                f"group {self._settings.marker_group} has no offset; commit its offset on partition 0 by hand"
            )
        return highest + 1

    def _highest_sequence(self, partition: int, low: int, high: int) -> int:
        window, start = _TAIL_RECORDS, high
        while start > low:
            start = max(low, high - window)
            found = self._scan(partition, start)
            if found >= 0:
                return found
            window *= 10
        return -1

    def _scan(self, partition: int, start: int) -> int:
        self._consumer.assign([TopicPartition(self._settings.topic, partition, start)])
        highest, deadline = -1, time.monotonic() + self._settings.deadline_s
        try:
            while time.monotonic() < deadline:
                message = self._consumer.poll(0.5)
                if message is None:
                    continue
                fault = message.error()
                if fault is None:
                    highest = max(highest, sequence_of(message, self._settings))
                elif fault.code() == KafkaError._PARTITION_EOF:
                    return highest
        finally:
            self._consumer.unassign()
        raise RetryableError(f"reading {self._settings.topic}[{partition}] for the marker timed out")


def _retrying(call: Callable[[], Result]) -> Result:
    """Repeat one transactional call while the broker says that repeating it is safe."""
    deadline = time.monotonic() + _CALL_SECONDS
    while True:
        try:
            return call()
        except KafkaException as fault:
            if not fault.args[0].retriable() or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
