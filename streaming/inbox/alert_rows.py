"""Where alerts stand in the inbox, by their ids."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from streaming.arrays.compilation import Hashes, Ints

_MOST_RECENT = 20_000
_DIGITS = 16


class AlertRows:
    """Which row an alert has, by the first 64 bits of its id: newer ones in a dict, the others sorted.

    One thread appends. Any may look up meanwhile: what it finds may be a row that its view does not have yet.
    """

    def __init__(self) -> None:
        self._sorted: tuple[Hashes, Ints] = np.empty(0, np.uint64), np.empty(0, np.int64)
        self._recent: dict[int, int] = {}

    def find(self, alert_id: str) -> int | None:
        """Return the row of an alert, None of one that is new; the caller compares the whole id."""
        key = _key(alert_id)
        recent = self._recent.get(key)  # first: what leaves it is among the sorted ones by then
        if recent is not None:
            return recent
        ids, rows = self._sorted
        at = int(np.searchsorted(ids, np.uint64(key)))
        return int(rows[at]) if at < len(ids) and int(ids[at]) == key else None

    def of(self, ids: pa.ChunkedArray) -> Ints:
        """Return the row of each alert, -1 of one that is new."""
        keys = _keys(ids)
        found = np.fromiter((self._recent.get(each, -1) for each in keys.tolist()), np.int64, len(keys))
        known, rows = self._sorted
        if len(known):
            at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
            found = np.where(known[at] == keys, rows[at], found)
        return found

    def append(self, ids: pa.ChunkedArray, first: int) -> Ints:
        """Give rows from `first` on to alerts; return the places of those that are not there twice."""
        keys = _keys(ids)
        _, places = np.unique(keys, return_index=True)
        places.sort()
        rows = range(first, first + len(places))
        self._recent.update(zip(keys[places].tolist(), rows, strict=True))
        if len(self._recent) > _MOST_RECENT:
            self._sort()
        return places

    def _sort(self) -> None:
        known, held = self._sorted
        ids = np.concatenate([known, np.fromiter(self._recent, np.uint64)])
        rows = np.concatenate([held, np.fromiter(self._recent.values(), np.int64)])
        order = np.argsort(ids)
        self._sorted = ids[order], rows[order]
        self._recent = {}


def _keys(ids: pa.ChunkedArray) -> Hashes:
    return np.fromiter(map(_key, ids.to_pylist()), np.uint64, len(ids))


def _key(alert_id: str) -> int:
    return int(alert_id[:_DIGITS], 16)
