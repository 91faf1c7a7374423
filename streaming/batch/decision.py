"""A batch being stored, and what its one deciding commit has decided."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from schemas.instants import MICRO
from streaming.batch.left_behind import NOTHING_ON_RECORD, OnRecord
from streaming.delta.lake_table import Stamp
from streaming.events.broker_clock import Reading
from streaming.labels.label_pins import LabelPin


@dataclass(frozen=True)
class Decision:
    """What the transactions commit of a batch decided; kept in its metadata.

    `opened_at` and `watermark_us` (the highest event time stored so far) are in microseconds since 1970 UTC,
    `offsets` topic → partition → next offset, `pins` the complete spec and the versions in force; for the
    labels see streaming.labels.label_pins.LabelPin. `rejected` counts the quarantined by reason, None
    where that was not noted; `filtered_by_reason` those that the contract did not want, None where it wanted
    everything. `clock` says which clock judged the records' stamps, `clock_at` what it showed, see
    streaming.events.broker_clock; None where this machine's was the only one. `topic_ids` and `lost`
    are those of its Origin. `broker_us` is how far the clock of streaming.events.duplicates has come, None
    before it has begun and in older commits.
    """

    query_id: str
    batch_id: int
    opened_at: int
    first_sequence: int
    next_sequence: int
    read: int
    quarantined: int
    duplicates: int
    late: int
    watermark_us: int
    labels_through: int
    labels_below: int
    offsets: dict[str, dict[str, int]]
    pins: dict[str, Any]
    rejected: dict[str, int] | None = None
    clock: str | None = None
    clock_at: int | None = None
    topic_ids: dict[str, str] | None = None
    lost: dict[str, Any] | None = None
    broker_us: int | None = None
    filtered_by_reason: dict[str, int] | None = None

    @property
    def labels(self) -> LabelPin:
        """Which labels its rows know."""
        return LabelPin(self.first_sequence, self.labels_through, self.labels_below)

    @property
    def clock_ahead(self) -> timedelta:
        """How far the clock that judged the stamps was ahead of this machine's."""
        return ((self.clock_at or self.opened_at) - self.opened_at) * MICRO

    @property
    def wanted(self) -> int:
        """Number of records read that the contract wanted."""
        return self.read - self.filtered

    @property
    def filtered(self) -> int:
        """How many records the contract did not want."""
        return sum((self.filtered_by_reason or {}).values())

    @property
    def stored(self) -> int:
        """Number of transactions of the batch."""
        return self.next_sequence - self.first_sequence

    def to_metadata(self) -> dict[str, Any]:
        """Return the JSON-serialisable form; what is pinned is not copied."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_metadata(cls, kept: Mapping[str, Any]) -> Decision:
        """Rebuild a decision from a commit's metadata."""
        return cls(**kept)


@dataclass(frozen=True)
class Origin:
    """What a batch was read from, or why there is nothing to read.

    Attributes:
        topic_ids: topic → its id, None where no broker gave one.
        lost: records that somebody has given up, see streaming.batch.resuming.Loss.
    """

    topic_ids: dict[str, str] | None = None
    lost: dict[str, Any] | None = None


@dataclass(frozen=True)
class CurrentBatch:
    """The batch being stored: its identity, where the stream stands, and what is pinned to it.

    `read` is the number of records taken from Kafka, `watermark_us` the highest event time stored before,
    `labels` the pin of the batch before, `clock` what judges the records' stamps, None for `opened_at`,
    `on_record` what attempts at other batches have recorded of the same records. Where the stream stands, and
    what is pinned, is known only once the batch before is finished.
    """

    stamp: Stamp
    read: int
    query_id: str
    opened_at: datetime
    offsets: dict[str, dict[str, int]]
    first_sequence: int = 0
    watermark_us: int = 0
    labels: LabelPin = LabelPin(0, 0, 0)  # noqa: RUF009 -- frozen
    pins: dict[str, Any] = field(default_factory=dict)
    clock: Reading | None = None
    origin: Origin = Origin()
    on_record: OnRecord = NOTHING_ON_RECORD

    @property
    def now(self) -> datetime:
        """The moment by which stamps are judged."""
        return self.opened_at if self.clock is None else self.clock.at


@dataclass(frozen=True)
class Stored:
    """A decided batch: its transactions in `sequence` order, and the labels that come with it."""

    decision: Decision
    rows: pa.Table
    labels: pa.Table | None
