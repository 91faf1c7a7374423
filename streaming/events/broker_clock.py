"""By which clock a record counts as stamped ahead of its time.

Whoever sends a record may stamp it, so a stamp is not taken at its word: one stamped far ahead would age
every profile. This machine's clock may be wrong as well, and must not refuse what everybody sends. So the
broker's clock judges where the topic's stamps are its own; otherwise this machine's clock does, put forward
by the median of how far the last records were stamped ahead of it, which no single record moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.instants import MICRO, micros_of
from schemas.tables import UTC_MICROS

ClockName = Literal["machine", "records", "broker"]

LAST_RECORDS = 256
_ENOUGH = 32
_APPENDED_BY_THE_BROKER = 1


@dataclass(frozen=True)
class Reading:
    """What a clock showed when a batch was opened.

    Attributes:
        clock: this machine's, the broker's as its own stamps tell it, or the one that most records show.
        at: the moment it showed.
        ahead: how far that is ahead of this machine's clock, 0 or more.
    """

    clock: ClockName
    at: datetime
    ahead: timedelta


class BrokerClock:
    """Reads the clock for one batch after the other.

    Args:
        ahead: how far the records were ahead of this machine's clock according to the newest batch.
    """

    def __init__(self, ahead: timedelta = timedelta(0)) -> None:
        known = _ENOUGH if ahead else 0
        self._ahead: npt.NDArray[np.int64] = np.full(known, ahead // MICRO)

    def read(self, stamps: pa.Table, now: datetime) -> Reading:
        """Return the clock that judges a batch.

        Args:
            stamps: topic (unless there is but one), partition, offset and timestamp of the records; where
                there is `timestampType`, 1 means that the broker has stamped the record when it arrived.
            now: this machine's time, when the batch was opened.
        """
        ahead = _ahead_of(stamps, now)
        appended = _appended(stamps)
        if appended.any():
            return _reading("broker", now, int(ahead[appended].max()))
        self._ahead = np.concatenate([self._ahead, ahead[_newest(stamps)]])[-LAST_RECORDS:]
        if len(self._ahead) < _ENOUGH:
            return Reading("machine", now, timedelta(0))
        return _reading("records", now, int(np.sort(self._ahead)[(len(self._ahead) - 1) // 2]))


def _reading(clock: ClockName, now: datetime, micros: int) -> Reading:
    """A clock that shows an earlier time than this machine's has only old records to go by."""
    if micros <= 0:
        return Reading("machine", now, timedelta(0))
    ahead = micros * MICRO
    return Reading(clock, now + ahead, ahead)


def _ahead_of(stamps: pa.Table, now: datetime) -> npt.NDArray[np.int64]:
    micros = stamps["timestamp"].cast(UTC_MICROS).cast(pa.int64()).fill_null(0).to_numpy()
    differences: npt.NDArray[np.int64] = micros - micros_of(now)
    return differences


def _appended(stamps: pa.Table) -> npt.NDArray[np.bool_]:
    if "timestampType" not in stamps.column_names:
        return np.zeros(stamps.num_rows, np.bool_)
    appended: npt.NDArray[np.bool_] = stamps["timestampType"].to_numpy() == _APPENDED_BY_THE_BROKER
    return appended


def _newest(stamps: pa.Table) -> npt.NDArray[Any]:
    """Places of the newest records, as many of each partition, so that no busy one speaks for all."""
    partitions, offsets = _partitions(stamps), stamps["offset"].to_numpy()
    found = np.unique(partitions)
    each = -(-LAST_RECORDS // max(len(found), 1))
    newest = [_last(np.flatnonzero(partitions == partition), offsets, each) for partition in found]
    return np.concatenate(newest) if newest else np.zeros(0, np.int64)


def _partitions(stamps: pa.Table) -> npt.NDArray[Any]:
    """Return a number per record that those of one partition of one topic have in common."""
    numbers: npt.NDArray[Any] = stamps["partition"].to_numpy()
    if "topic" not in stamps.column_names or not len(numbers):
        return numbers
    topics = stamps["topic"].cast(pa.string()).combine_chunks().dictionary_encode().indices
    found: npt.NDArray[Any] = topics.to_numpy(zero_copy_only=False) * (int(numbers.max()) + 1) + numbers
    return found


def _last(rows: npt.NDArray[Any], offsets: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    if len(rows) <= count:
        return rows
    chosen: npt.NDArray[Any] = rows[np.argpartition(offsets[rows], len(rows) - count)[-count:]]
    return chosen
