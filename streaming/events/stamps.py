"""The broker's stamps on records: which have none, which lie ahead, and their median."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contract import EventContract
from schemas.instants import moment_of
from schemas.tables import UTC_MICROS
from streaming.arrays.median_clock import WINDOW
from streaming.events.time_columns import time_bounds


def judged_alike(records: pa.Table, contract: EventContract, one: datetime, other: datetime) -> bool:
    """Say whether `decode` gives the same of records by either of two moments.

    Args:
        records: their timestamps count.
    """
    if one == other:
        return True
    stamps = records["timestamp"].cast(UTC_MICROS)
    if pc.any(without_stamp(stamps)).as_py():
        return False
    named = pa.table({"timestamp": stamps})
    return bool(stamped_ahead(named, contract, one).equals(stamped_ahead(named, contract, other)))


def without_stamp(stamps: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return which records have no stamp: null, or from before 1970 as Kafka has it."""
    return pc.fill_null(pc.less(stamps, pa.scalar(moment_of(0), UTC_MICROS)), fill_value=True)


def median_stamp(records: pa.Table, contract: EventContract, now: datetime) -> datetime | None:
    """Return the median of the broker's stamps on the last 64 records that `decode` takes at their stamps.

    None where there are none: a record that is stamped ahead says nothing, be it the only one of its batch.
    """
    stamps = records["timestamp"].cast(UTC_MICROS)
    counted = pc.invert(pc.or_(without_stamp(stamps), stamped_ahead(records, contract, now)))
    known = stamps.cast(pa.int64()).filter(counted)
    last = np.sort(known.slice(max(len(known) - WINDOW, 0)).to_numpy())
    return moment_of(int(last[len(last) // 2])) if len(last) else None


def with_stamps(records: pa.Table, now: datetime) -> pa.Table:
    """Of a record without a stamp this counts as its arrival."""
    stamps = records["timestamp"].cast(UTC_MICROS)
    missing = without_stamp(stamps)
    if not pc.any(missing).as_py():
        return records
    place = records.schema.get_field_index("timestamp")
    return records.set_column(place, "timestamp", pc.if_else(missing, pa.scalar(now, UTC_MICROS), stamps))


def stamped_ahead(records: pa.Table, contract: EventContract, now: datetime) -> pa.ChunkedArray:
    """Return which records are stamped later than the clock of this machine allows, bool[n]."""
    latest = now + timedelta(microseconds=time_bounds(contract)[2])
    stamps = records["timestamp"].cast(UTC_MICROS)
    return pc.fill_null(pc.greater(stamps, pa.scalar(latest, UTC_MICROS)), fill_value=False)
