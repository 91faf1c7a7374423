"""Loads history into an agent's lake before its stream begins: stored, remembered, and alerted to nobody.

Batches follow the live protocol as far as it goes: quarantine and duplicates first, one commit in
`transactions` that decides, profiles past the rows, one row in `batches` that closes. A run that was cut off
anywhere is continued by the next one from what Delta holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from schemas.counts import count_of
from schemas.errors import DataLossError
from schemas.instants import Clock, utc_now
from schemas.tables import UTC_MICROS
from streaming.batch.alerting import Alerted
from streaming.batch.backfill_mark import BackfillMark
from streaming.batch.closed_batches import ClosedBatches
from streaming.batch.closing import close_batch
from streaming.batch.decision import CurrentBatch, Decision
from streaming.batch.engine import Engine
from streaming.batch.queries import stamp_of
from streaming.batch.recovery import recently_stored
from streaming.batch.references import References
from streaming.batch.store import store
from streaming.delta.lake import Lake
from streaming.delta.lake_table import Stamp
from streaming.detection import checkpoints
from streaming.events.decode import decode
from streaming.events.duplicates import Deduplicator
from streaming.events.record_table import record_table
from streaming.files.event_files import Keyed
from streaming.history.backfill_source import HistorySource
from streaming.labels.entity_labels import entity_labels_schema
from streaming.labels.label_pins import LabelPin

Item = TypeVar("Item")
_NOTHING = Alerted(0, 0, 0, 0, 0, 0, 0.0)


class Passed(StrEnum):
    """Moments that a crash test can wait for."""

    SET_ASIDE = "set aside"
    DECIDED = "decided"
    CLOSED = "closed"


@dataclass(frozen=True)
class Loaded:
    """What all batches of a backfill came to, those of earlier runs included."""

    read: int
    stored: int
    quarantined: int
    duplicates: int
    filtered: int


class Backfill:
    """Loads one source into a lake that holds nothing else.

    Labels count from the first batch of the stream on. A row's broker time is its event time: that is when it
    would have been on the topic, so a redelivery is recognised around the end of history, too.

    Args:
        engine: what will decide the stream.
        lake: the tables, claimed by this process.
        source: what to load.
        clock: current time.
        reached: called at the moments of `Passed`; crash tests stop there.
    """

    def __init__(
        self,
        engine: Engine,
        lake: Lake,
        source: HistorySource,
        *,
        clock: Clock = utc_now,
        reached: Callable[[Passed], None] = lambda _: None,
    ) -> None:
        self._engine, self._lake, self._source = engine, lake, source
        self._clock, self._reached = clock, reached
        self._query = source.query_id
        self._duplicates = Deduplicator(engine.decider.contract.duplicates.horizon)
        self._references = References(engine.decider.contract, rates=engine.spec.data_sources.rates)
        self._next_sequence, self._watermark = 0, 0
        self._next_batch, self._done_before, self._rows = 0, 0, 0

    def run(self, on_progress: Callable[[int], None] = lambda _: None) -> Loaded:
        """Load what is not loaded yet.

        Args:
            on_progress: called with the source's rows that are done.

        Raises:
            ConfigurationError: the source cannot be read.
            DataLossError: it reads otherwise than when it was begun.
            FencedError: another driver has taken over.
        """
        self._resume()
        try:
            for number, (chunk, last) in enumerate(_with_last(self._source.chunks())):
                self._pass(number, chunk, last=last)
                on_progress(self._rows)
        finally:
            self._engine.close()
        self._engine.checkpoints.write(self._engine.memory)
        self._engine.close()
        return self._loaded()

    def _resume(self) -> None:
        kept = self._lake.transactions.newest_metadata()
        newest = None if kept is None else Decision.from_metadata(kept)
        if newest is not None:
            self._continue(newest)
        checkpoints.drop_after(self._engine.checkpoints.folders, self._next_sequence)
        closed = ClosedBatches(self._lake.batches)
        self._engine.restore(self._lake.transactions, self._next_sequence, self._no_labels, closed.stretches)
        horizon = self._engine.decider.contract.duplicates.horizon
        self._duplicates.restore(*recently_stored(self._lake.transactions, newest, horizon))

    def _continue(self, decision: Decision) -> None:
        mark = BackfillMark.of(decision.pins)
        assert mark is not None, "check_may_load comes first"
        if self._lake.batches.last_batch(self._stamp(0).app_id) < decision.batch_id:
            self._close(decision)
        self._next_sequence, self._watermark = decision.next_sequence, decision.watermark_us
        self._next_batch, self._done_before = decision.batch_id + 1, mark.rows

    def _pass(self, number: int, chunk: Keyed, *, last: bool) -> None:
        first, self._rows = self._rows, self._rows + len(chunk[1])
        if number >= self._next_batch:
            self._load(number, first, chunk, last=last)
        elif number == self._next_batch - 1 and self._rows != self._done_before:
            raise DataLossError(
                f"{self._source.name}: {count_of(self._done_before, 'row')} loaded from it before, but it is "
                f"now cut at {self._rows}: continue with the version of flagstream that began"
            )

    def _load(self, number: int, first: int, chunk: Keyed, *, last: bool) -> None:
        opened_at = self._clock()
        keys, values = chunk
        records = record_table(keys, values, topic=self._query, first=first, sent_at=opened_at)
        decoded = decode(records, self._engine.decider.contract, opened_at, from_file=True)
        valid = self._references.join(decoded.valid)
        place = valid.schema.get_field_index("kafka_timestamp")
        valid = valid.set_column(place, valid.schema.field(place), valid["event_time"].cast(UTC_MICROS))
        batch = self._batch(number, records.num_rows, opened_at, last=last)
        tables = valid, decoded.rejected
        stored = store(
            self._lake, batch, *tables, self._duplicates, self._unlabelled, filtered=decoded.filtered
        )
        self._reached(Passed.DECIDED)
        self._engine.absorb(stored.rows)
        self._close(stored.decision)
        self._reached(Passed.CLOSED)
        self._next_sequence, self._watermark = stored.decision.next_sequence, stored.decision.watermark_us
        self._duplicates.commit()
        self._engine.checkpoint_if_due()
        self._lake.tidy()

    def _batch(self, number: int, read: int, opened_at: datetime, *, last: bool) -> CurrentBatch:
        source = self._source
        mark = BackfillMark(source.name, source.digest, source.version, self._rows, last)
        return CurrentBatch(
            stamp=self._stamp(number),
            read=read,
            query_id=self._query,
            opened_at=opened_at,
            first_sequence=self._next_sequence,
            watermark_us=self._watermark,
            labels=LabelPin(0, 0, 0),
            offsets={self._query: {"0": self._rows}},
            pins={**self._engine.decider.pins(), **self._references.pins(), **mark.pins()},
        )

    def _close(self, decision: Decision) -> None:
        agent, closed_at = self._engine.spec.name, self._clock()
        close_batch(self._lake, agent, decision, _NOTHING, closed_at=closed_at, next_outbox_seq=0)

    def _stamp(self, number: int) -> Stamp:
        return Stamp(stamp_of(self._engine.spec.name, self._query), number)

    def _unlabelled(self, first: int) -> tuple[LabelPin, pa.Table]:
        self._reached(Passed.SET_ASIDE)
        return LabelPin(first, 0, 0), self._no_labels(first, first)

    def _no_labels(self, _first: int, _end: int) -> pa.Table:
        return entity_labels_schema(self._engine.decider.contract.labelled_columns).empty_table()

    def _loaded(self) -> Loaded:
        rows = self._lake.batches.read("batch_id", 0, columns=list(Loaded.__dataclass_fields__))
        return Loaded(**{name: pc.sum(rows[name]).as_py() or 0 for name in Loaded.__dataclass_fields__})


def _with_last(items: Iterator[Item]) -> Iterator[tuple[Item, bool]]:
    """Tell of each item whether it is the last one."""
    held: list[Item] = []
    for item in items:
        for before in held:
            yield before, False
        held = [item]
    for final in held:
        yield final, True
