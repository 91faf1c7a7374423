"""Labels from a Kafka topic, each recorded exactly once: the offset reached is kept in Delta beside them.

What cannot be read as a label goes to a table of its own, in the layout of the quarantine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.errors import ConfigurationError, DataLossError, FlagstreamError, RetryableError
from schemas.label import GIVEN, LABEL_REJECTS
from schemas.lake_tables import TABLES
from schemas.tables import LABELS_QUARANTINE
from streaming.delta.lake_table import Stamp
from streaming.delta.shared_table import SharedTable
from streaming.home.brokers import connection
from streaming.kafka.topic import PASSING, partitions_of, reading_fault
from streaming.labels.book import LabelBook
from streaming.labels.label_parsing import UNKNOWN_DECIDER
from streaming.labels.recorded import Recorded
from streaming.labels.topic_labels import ORIGIN, read_labels
from streaming.store.place import Place

_CALL_SECONDS = 10.0


@dataclass(frozen=True)
class PartitionOfLabels:
    """What one partition gave.

    Attributes:
        source: topic/partition.
        first: the offset reading began at; all before it must be on record already.
        through: the last offset that `labels` and `rejected` account for.
        labels: of schema `GIVEN`, in offset order.
        rejected: of schema `LABELS_QUARANTINE`, in offset order.
    """

    source: str
    first: int
    through: int
    labels: pa.Table
    rejected: pa.Table


@dataclass(frozen=True)
class PolledLabels:
    """What one poll gave, partition by partition."""

    partitions: tuple[PartitionOfLabels, ...]

    @property
    def labels(self) -> pa.Table:
        """All labels, of schema `GIVEN`."""
        return pa.concat_tables([GIVEN.empty_table(), *(each.labels for each in self.partitions)])

    @property
    def rejected(self) -> pa.Table:
        """All records that hold no label, of schema `LABELS_QUARANTINE`."""
        rejected = (each.rejected for each in self.partitions)
        return pa.concat_tables([LABELS_QUARANTINE.empty_table(), *rejected])


class LabelTopic:
    """Reads labels from a topic and records them, going on where the label book says it stopped.

    Records are JSON objects under `schemas.label.label_json_schema`; a label may also be 0, 1 or a word. A
    label without `decided_at` was decided when Kafka was given it. Partitions added later are read after a
    restart.

    Args:
        bootstrap: address of the broker.
        topic: must exist.
        book: where the labels go, and which offsets are on record.
        rejects: where the table lies for records that hold no label; created when absent.
        retention: how long versions of that table stay readable.
        by: who decided where a record does not say.

    Raises:
        ConfigurationError: this login may not read the topic.
        DataLossError: the topic lost records that were not read yet, or is another one of the same name.
        RetryableError: the broker does not answer, or the topic does not exist.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        book: LabelBook,
        *,
        rejects: Place,
        retention: timedelta,
        by: str = UNKNOWN_DECIDER,
    ) -> None:
        self._book, self._by = book, by
        defined = TABLES["labels_quarantine"]
        self._rejects = SharedTable(rejects, defined.schema, retention, defined.later)
        self._bootstrap, self._topic = bootstrap, topic
        self._consumer = _consumer(bootstrap)
        self._next: dict[int, int] = {}
        self._unread: Sequence[Message] = []
        self._fault: FlagstreamError | None = None
        try:
            self._assign()
        except BaseException:
            self._consumer.close()
            raise

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the topic."""
        self.close()

    def poll(self, limit: int = 10_000, wait: float = 0.0) -> PolledLabels:
        """Return what has arrived, at most `limit` records, waiting for some at most `wait` seconds.

        Raises:
            DataLossError: the topic dropped records before they were read; every later call raises it, too.
            RetryableError: the broker reported a fault; the next call goes on after the last record given.
        """
        self._raise_fault()
        # The consumer has left them behind: they stay here until every one of them has been read.
        self._unread = self._unread or self._consumer.consume(limit, wait)
        records, reached = self._sorted(self._unread)
        polled = PolledLabels(
            tuple(
                self._parsed(partition, self._next[partition], after, records.get(partition, ()))
                for partition, after in sorted(reached.items())
                if after > self._next[partition]
            )
        )
        self._next, self._unread = reached, []
        return polled

    def record(self, polled: PolledLabels) -> Recorded:
        """Store rejects, then labels, each partition in one commit with the offset it reaches.

        Repeating it after a crash, or polling the same records again, stores nothing twice.

        Raises:
            DataLossError: an earlier poll was not recorded.
        """
        stored = repeated = 0
        for each in polled.partitions:
            if each.first > self._recorded[each.source]:
                raise DataLossError(
                    f"{each.source}: offsets before {each.first} were polled but not recorded"
                )
            self._keep_rejected(each)
            recorded = self._book.record(each.labels, source=each.source, through=each.through)
            self._recorded[each.source] = max(self._recorded[each.source], each.through + 1)
            stored, repeated = stored + recorded.stored, repeated + recorded.repeated
        return Recorded(stored, repeated, _as_rejects(polled.rejected))

    def close(self) -> None:
        """Leave the topic."""
        self._consumer.close()

    def _raise_fault(self) -> None:
        fault = self._fault
        if fault is None:
            return
        if isinstance(fault, RetryableError):
            self._fault = None
            self._begin_again()
        raise fault

    def _begin_again(self) -> None:
        """Read on with a consumer that knows nothing of what has befallen the one before."""
        self._consumer.close()
        self._unread = []
        self._consumer = _consumer(self._bootstrap)
        self._consumer.assign([TopicPartition(self._topic, *place) for place in self._next.items()])

    def _assign(self) -> None:
        try:
            partitions = sorted(
                place.partition for place in partitions_of(self._consumer, self._topic, self._bootstrap)
            )
            self._next = {partition: self._start(partition) for partition in partitions}
            self._consumer.assign([TopicPartition(self._topic, *start) for start in self._next.items()])
        except KafkaException as fault:
            raise reading_fault(self._topic, self._bootstrap, fault) from fault
        self._recorded = {self._source(partition): start for partition, start in self._next.items()}

    def _source(self, partition: int) -> str:
        return f"{self._topic}/{partition}"

    def _start(self, partition: int) -> int:
        source = self._source(partition)
        kept = self._book.position(source)
        low, high = self._consumer.get_watermark_offsets(
            TopicPartition(self._topic, partition), timeout=_CALL_SECONDS
        )
        if kept == 0:
            return low
        if not low <= kept <= high:
            raise DataLossError(
                f"{source} holds offsets {low} to {high}, but {kept} is the next to be read: labels were "
                "dropped unread, or the topic was made anew; import what is missing from a file and give the "
                "labels topic another name"
            )
        return kept

    def _sorted(self, messages: Sequence[Message]) -> tuple[dict[int, list[Message]], dict[int, int]]:
        """Return the records by partition, and the next offset of each partition.

        A fault that lasts is kept for the next poll: what came along with it has left the consumer for good.
        """
        records: dict[int, list[Message]] = {}
        reached = dict(self._next)
        for message in messages:
            fault, partition, offset = message.error(), message.partition(), message.offset()
            if fault is not None and fault.code() != KafkaError._PARTITION_EOF:
                self._fault = self._fault or self._lasting(fault)
            elif partition is not None and offset is not None:
                reached[partition] = max(reached[partition], offset + (fault is None))
                if fault is None:
                    records.setdefault(partition, []).append(message)
        return records, reached

    def _lasting(self, fault: KafkaError) -> FlagstreamError | None:
        if fault.code() == KafkaError._AUTO_OFFSET_RESET:
            return DataLossError(f"{self._topic}: labels were dropped before they were read ({fault.str()})")
        if fault.code() in PASSING and not fault.fatal():
            return None
        try:
            return reading_fault(self._topic, self._bootstrap, KafkaException(fault))
        except ConfigurationError as refused:
            # A right that is taken away can be given back; payments are watched meanwhile.
            return RetryableError(str(refused))

    def _parsed(
        self, partition: int, first: int, after: int, messages: Sequence[Message]
    ) -> PartitionOfLabels:
        labels, rejected = read_labels(messages, self._by, self._book.now(), after - 1)
        return PartitionOfLabels(self._source(partition), first, after - 1, labels, rejected)

    def _keep_rejected(self, each: PartitionOfLabels) -> None:
        if each.rejected.num_rows:
            self._rejects.by_turns(lambda: self._append_rejected(each))

    def _append_rejected(self, each: PartitionOfLabels) -> None:
        self._rejects.refresh()
        app_id = f"{ORIGIN}/{each.source}"
        unkept = pc.greater(each.rejected["offset"], self._rejects.last_batch(app_id))
        self._rejects.append(each.rejected.filter(unkept), Stamp(app_id, each.through))
        self._rejects.tidy()


def _consumer(bootstrap: str) -> Consumer:
    return Consumer(
        {
            **connection(bootstrap),
            "group.id": "flagstream-labels",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            # The end of a partition may lie beyond its last record: transactions leave marks behind.
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
        }
    )


def _as_rejects(rejected: pa.Table) -> pa.Table:
    renamed = rejected.select(["offset", "detail"]).rename_columns(LABEL_REJECTS.names)
    return renamed.cast(LABEL_REJECTS)
