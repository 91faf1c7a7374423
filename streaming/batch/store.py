"""Step 3 of the batch protocol: decide, once, which records are transactions and in which order.

Quarantine and duplicates are committed first and the transactions last: that commit decides the batch and
keeps the decision (counts, offsets, pins) in its metadata. What an earlier attempt already recorded stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.counts import count_of
from schemas.errors import DataLossError
from schemas.instants import micros_of
from schemas.tables import TOPIC_ID
from streaming.batch.decision import CurrentBatch, Decision, Stored
from streaming.delta.lake import Lake
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.events.filtered import NOTHING_FILTERED
from streaming.labels.label_pins import LabelPin

_PLACE = ["topic", "partition", "offset"]


TakeLabels = Callable[[int], tuple[LabelPin, pa.Table]]


class Sightings(Protocol):
    """De-duplication as the store step needs it."""

    def claim(self, valid: pa.Table) -> npt.NDArray[np.bool_]:
        """Mark the rows whose transaction id was not seen within the horizon."""

    def settle(self, stored: pa.Table) -> int | None:
        """Return how far broker time has come with the rows of the last claim that are stored."""


def store(
    lake: Lake,
    batch: CurrentBatch,
    valid: pa.Table,
    rejected: pa.Table,
    sightings: Sightings,
    take_labels: TakeLabels,
    filtered: pa.Table = NOTHING_FILTERED,
) -> Stored:
    """Commit one decoded batch.

    Args:
        valid: decoded rows that fit the contract, in any order.
        rejected: rows for the quarantine, with their reasons.
        sightings: tells first sightings from redeliveries.
        take_labels: gives the labels that rows from a `sequence` on know; without rows nobody asks.
        filtered: coordinates and reason of what the contract does not want. Where an earlier attempt, under
            another contract, has recorded such a record, it counts as that.

    Raises:
        DataLossError: the counts do not add up to what was read.
        FencedError: a successor has taken over.
    """
    known_repeats = _recorded(lake.duplicates, batch)
    refused = without(_set_aside(rejected, batch), known_repeats)
    rejects = _Settling(lake.quarantine, batch, refused, batch.on_record.rejected)
    quarantined = rejects.settled
    candidates = without(valid, quarantined)
    first = pa.array(sightings.claim(candidates))
    again = _set_aside(candidates.filter(pc.invert(first)), batch).select(lake.duplicates.schema.names)
    repeats = _Settling(lake.duplicates, batch, again, _at(batch.on_record.repeated, again))
    repeated = repeats.settled
    fresh = without(candidates.filter(first), repeated)
    rows = lake.transactions.completed(in_order(fresh, batch))
    pin, labels = take_labels(batch.first_sequence) if rows.num_rows else (batch.labels, None)
    left_out = without(without(filtered, quarantined), repeated)
    decision = replace(
        _decide(replace(batch, labels=pin), quarantined, repeated.num_rows, rows, left_out),
        broker_us=sightings.settle(rows),
    )
    lake.transactions.append(
        rows, batch.stamp, decision.to_metadata(), after=(rejects.commit, repeats.commit)
    )
    return Stored(decision, rows, labels)


def settle_rejected(lake: Lake, batch: CurrentBatch, rejected: pa.Table) -> None:
    """Commit some of a batch's rejected records before `store`, so that they need not be held till then.

    Raises:
        FencedError: a successor has taken over.
    """
    known_repeats = _recorded(lake.duplicates, batch)
    refused = without(_set_aside(rejected, batch), known_repeats)
    _Settling(lake.quarantine, batch, refused, batch.on_record.rejected).commit()


def in_order(valid: pa.Table, batch: CurrentBatch) -> pa.Table:
    """Sort by event time, topic, partition, offset and number the rows from the batch's first sequence."""
    keys = pl.from_arrow(valid.select(["event_time", *_PLACE]))
    assert isinstance(keys, pl.DataFrame)
    order = keys.select(pl.arg_sort_by("event_time", *_PLACE)).to_series().to_numpy()
    rows = valid.take(pa.array(order)) if np.any(np.diff(order.astype(np.int64)) != 1) else valid
    numbers = pa.array(np.arange(batch.first_sequence, batch.first_sequence + rows.num_rows, dtype=np.int64))
    late = pc.less(rows["event_time"].cast(pa.int64()), batch.watermark_us)
    return _marked(rows.add_column(0, "sequence", numbers), batch).append_column("late", late)


def without(rows: pa.Table, recorded: pa.Table) -> pa.Table:
    """Return the rows whose Kafka coordinates are not among those of `recorded`."""
    if recorded.num_rows == 0 or rows.num_rows == 0:
        return rows
    numbered = rows.select(_PLACE).append_column("row", pa.array(range(rows.num_rows)))
    kept = numbered.join(recorded.select(_PLACE), keys=_PLACE, join_type="left anti")
    return rows.take(kept["row"].combine_chunks().sort())


def _at(recorded: pa.Table, rows: pa.Table) -> pa.Table:
    """Return those of `recorded` whose Kafka coordinates are among those of `rows`."""
    return without(recorded, without(recorded, rows))


def _decide(
    batch: CurrentBatch, rejected: pa.Table, duplicates: int, rows: pa.Table, left_out: pa.Table
) -> Decision:
    stored, quarantined, filtered = rows.num_rows, rejected.num_rows, left_out.num_rows
    if batch.read != stored + quarantined + duplicates + filtered:
        raise DataLossError(
            f"batch {batch.stamp.batch_id}: {count_of(batch.read, 'record')} read, but "
            f"{stored} stored + {quarantined} quarantined + {duplicates} duplicates + {filtered} filtered"
        )
    return Decision(
        query_id=batch.query_id,
        batch_id=batch.stamp.batch_id,
        opened_at=micros_of(batch.opened_at),
        first_sequence=batch.first_sequence,
        next_sequence=batch.first_sequence + stored,
        read=batch.read,
        quarantined=quarantined,
        duplicates=duplicates,
        late=pc.sum(rows["late"]).as_py() or 0,
        watermark_us=_watermark(rows, batch.watermark_us),
        labels_through=batch.labels.through,
        labels_below=batch.labels.below,
        offsets=batch.offsets,
        pins=batch.pins,
        rejected=_by_reason(rejected),
        clock=None if batch.clock is None else batch.clock.clock,
        clock_at=None if batch.clock is None else micros_of(batch.now),
        topic_ids=batch.origin.topic_ids,
        lost=batch.origin.lost,
        filtered_by_reason=_by_reason(left_out) or None,
    )


def _by_reason(rejected: pa.Table) -> dict[str, int]:
    counts = pc.value_counts(rejected["reason"].cast(pa.string())).to_pylist()
    return {each["values"]: each["counts"] for each in sorted(counts, key=lambda each: str(each["values"]))}


def _watermark(rows: pa.Table, before: int) -> int:
    if rows.num_rows == 0:
        return before
    return max(before, int(rows["event_time"][rows.num_rows - 1].cast(pa.int64()).as_py()))


def _marked(rows: pa.Table, batch: CurrentBatch) -> pa.Table:
    count = rows.num_rows
    query = pa.repeat(pa.scalar(batch.query_id), count)
    number = pa.repeat(pa.scalar(batch.stamp.batch_id, pa.int64()), count)
    return rows.append_column("query_id", query).append_column("batch_id", number)


def _set_aside(rows: pa.Table, batch: CurrentBatch) -> pa.Table:
    """Mark rows that are no transactions; by the topic's id one without a stamp is known again."""
    ids = batch.origin.topic_ids or {}
    place = pc.index_in(rows["topic"].cast(pa.string()), pa.array(list(ids), pa.string()))
    return _marked(rows, batch).append_column(TOPIC_ID, pa.array(list(ids.values()), pa.string()).take(place))


def _attempt(batch: CurrentBatch, number: int) -> Stamp:
    return Stamp(f"{batch.stamp.app_id}/{number}", batch.stamp.batch_id)


def _recorded(table: LakeTable, batch: CurrentBatch) -> pa.Table:
    """Return what was committed to `table` for this batch before, without the records themselves."""
    number = batch.stamp.batch_id
    if table.last_batch(_attempt(batch, 0).app_id) < number:
        return _named(table.schema.empty_table())
    rows = table.read("batch_id", number, number + 1, [*_names(table.schema), "query_id"])
    return _named(rows.filter(pc.equal(rows["query_id"], batch.query_id)))


class _Settling:
    """Rows of a batch beside its transactions, on their way into one table.

    Args:
        on_record: what stands of attempts at other batches.

    Attributes:
        settled: what stands for the batch once `commit` has returned, as `_recorded` names it.
    """

    def __init__(self, table: LakeTable, batch: CurrentBatch, rows: pa.Table, on_record: pa.Table) -> None:
        recorded = pa.concat_tables([_recorded(table, batch), on_record])
        self._table, self._batch = table, batch
        self._missing = without(rows.select(table.schema.names).cast(table.schema), recorded)
        self.settled = pa.concat_tables([recorded, _named(self._missing)])
        if table.place.is_local:  # in a store it goes side by side with others
            self.commit()

    def commit(self) -> None:
        """Commit the rows that were not committed before."""
        attempt = 0
        while self._missing.num_rows:
            if self._table.append(self._missing, _attempt(self._batch, attempt)):
                self._missing = self._missing.slice(0, 0)
            attempt += 1


def _named(rows: pa.Table) -> pa.Table:
    return rows.select(_names(rows.schema))


def _names(schema: pa.Schema) -> list[str]:
    """What counts of a record once it is committed: where it came from and why it was rejected."""
    return [name for name in (*_PLACE, "reason") if name in schema.names]
