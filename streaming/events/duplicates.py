"""De-duplication: a transaction id redelivered within the contract's horizon of broker time.

Ids are compared exactly, byte by byte, in the same compiled index that holds entities. A sighting counts for
nothing once a clock is two horizons past it, whether or not it still takes up memory, so that a restored
memory decides as the live one does. The clock is a median clock over the stamps of the stored rows in
`sequence` order, so that one record stamped ahead makes nothing be forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa

from schemas.errors import FlagstreamError
from schemas.instants import MICRO
from schemas.tables import UTC_MICROS
from streaming.arrays.compilation import Codes, Flags, Ints, compiled, read_only
from streaming.arrays.entity_index import EncodedColumn, EntityIndex, Ids
from streaming.arrays.median_clock import BEFORE_ALL, MedianClock

_NEVER = -(2**62)
_EVERY_ROW = -1


@compiled
def _first_sightings(codes: Codes, stamps: Ints, order: Ints, horizon: int, seen: Ints, first: Flags) -> None:
    for row in order:
        code = codes[row]
        apart = stamps[row] - seen[code]
        if seen[code] == _NEVER or apart > horizon or -apart > horizon:
            first[row] = True
            seen[code] = max(seen[code], stamps[row])


@dataclass(frozen=True)
class _Claim:
    ids: EncodedColumn
    slots: Ints
    seen: Ints


class Deduplicator:
    """Remembers which transaction ids were seen when.

    Args:
        horizon: broker time within which the same id is a redelivery.
    """

    def __init__(self, horizon: timedelta) -> None:
        self._horizon = horizon // MICRO
        self._claim: _Claim | None = None
        self._times: Ints = np.zeros(0, np.int64)
        self._clock = self._next_clock = MedianClock.blank()
        self._oldest_kept = _NEVER
        self._forget(self._clock)

    def __len__(self) -> int:
        """Return the number of ids remembered."""
        return len(self._index)

    def claim(self, valid: pa.Table) -> Flags:
        """Mark the rows that are first sightings; nothing is remembered until `commit`.

        Args:
            valid: rows with transaction_id, kafka_timestamp, topic, partition, offset, in any order.

        Returns:
            bool[n]; among rows of one id the earliest by broker time and place is the first.
        """
        return self._judge(valid, self._horizon)

    def settle(self, stored: pa.Table) -> int | None:
        """Move the clock past the rows that are stored of the last `claim`, once `commit` makes that so.

        Args:
            stored: rows with kafka_timestamp, in `sequence` order.

        Returns:
            How far broker time has come, in microseconds since 1970; None after the first few rows ever.
        """
        _, self._next_clock = self._clock.advance(_micros(stored))
        return None if self._next_clock.now == BEFORE_ALL else self._next_clock.now

    def _judge(self, rows: pa.Table, horizon: int) -> Flags:
        encoded = self._index.encode(rows["transaction_id"])
        slots = self._index.find(encoded)
        seen = np.full(len(slots), _NEVER)
        known = slots >= 0
        seen[known] = self._seen[slots[known]]
        seen[seen < self._clock.now - 2 * self._horizon] = _NEVER
        stamps = _micros(rows)
        first = np.zeros(rows.num_rows, np.bool_)
        order = _in_order(rows, stamps) if len(slots) < rows.num_rows else np.arange(rows.num_rows)
        _first_sightings(encoded.codes, stamps, order, horizon, seen, first)
        self._claim = _Claim(encoded, slots, seen)
        return first

    def commit(self) -> None:
        """Remember what the last `claim` saw.

        Raises:
            FlagstreamError: there is no claim to commit.
        """
        if self._claim is None:
            raise FlagstreamError("no claim to commit")
        claim, self._claim = self._claim, None
        self._clock = self._next_clock
        if not len(claim.slots):
            return
        known = claim.slots >= 0
        self._seen[claim.slots[known]] = claim.seen[known]
        new = np.flatnonzero(~known)
        self._index.insert(claim.ids, new)
        self._remember(claim.seen[new])
        self._expire()

    def restore(self, stored: pa.Table, clock: MedianClock) -> None:
        """Start over from stored rows, all of them first sightings, of at least the last two horizons.

        Args:
            stored: rows with transaction_id, kafka_timestamp and coordinates, in any order.
            clock: as it stood after the last of them.
        """
        self._forget(clock)
        self._judge(stored, _EVERY_ROW)
        self.commit()

    def _forget(self, clock: MedianClock) -> None:
        self._index = EntityIndex()
        self._times = np.zeros(0, np.int64)
        self._clock = self._next_clock = clock
        self._oldest_kept = _NEVER
        self._claim = None

    @property
    def _seen(self) -> Ints:
        return self._times[: len(self._index)]

    def _remember(self, stamps: Ints) -> None:
        count = len(self._index)
        if count > len(self._times):
            larger = np.zeros(max(count, 2 * len(self._times)), np.int64)
            larger[: len(self._times)] = self._times
            self._times = larger
        self._times[count - len(stamps) : count] = stamps

    def _expire(self) -> None:
        """Rebuild without what is too old, at most once per horizon."""
        limit = self._clock.now - 2 * self._horizon
        if self._oldest_kept == _NEVER:
            self._oldest_kept = int(self._seen.min())
        if limit - self._oldest_kept <= self._horizon:
            return
        kept = self._seen >= limit
        times = self._seen[kept]
        self._index.restore(_select(self._index.ids(), kept))
        self._times, self._oldest_kept = times, limit


def _select(ids: Ids, kept: Flags) -> Ids:
    offsets, data = (np.ascontiguousarray(each) for each in (ids.offsets, ids.data))
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    texts = pa.Array.from_buffers(pa.large_string(), len(kept), buffers).filter(pa.array(kept))
    _, bounds, content = texts.buffers()
    if content is None:
        return Ids(np.zeros(0, np.uint8), np.zeros(1, np.int64))
    return Ids(np.frombuffer(content, np.uint8), np.frombuffer(bounds, np.int64)[: len(texts) + 1])


def _micros(rows: pa.Table) -> Ints:
    stamps: Ints = rows["kafka_timestamp"].cast(UTC_MICROS).cast(pa.int64()).to_numpy()
    return read_only(stamps)


def _in_order(rows: pa.Table, stamps: Ints) -> Ints:
    topics = rows["topic"].cast(pa.string()).combine_chunks().dictionary_encode()
    names = topics.dictionary.to_pylist()
    rank = np.argsort(np.argsort(names)) if names else np.zeros(0, np.int64)
    codes = rank[topics.indices.to_numpy(zero_copy_only=False)]
    return np.lexsort((rows["offset"].to_numpy(), rows["partition"].to_numpy(), codes, stamps))
