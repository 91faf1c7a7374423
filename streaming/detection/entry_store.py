"""The entries that windows look back on, kept for each entity in arrays that grow."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streaming.arrays.compilation import Floats, Ints
from streaming.detection.window_kernels import NEVER, Additions, Entries, gather, scatter

_MOST_SLACK = 2
_SMALLEST_STORE = 1024


class KeptEntries(NamedTuple):
    """Entries end to end, in slot order.

    Attributes:
        lengths, frontiers: int64[entities]; see window_kernels.Entries.
        times, amounts: int64[entries] and float64[entries].
    """

    lengths: Ints
    frontiers: Ints
    times: Ints
    amounts: Floats


class EntryStore:
    """The entries of all entities by slot; grows as they come and closes the gaps that they leave."""

    def __init__(self) -> None:
        self._entries, self._used = _blank(0, 0), 0

    @property
    def held_bytes(self) -> int:
        """Bytes in memory."""
        return sum(part.nbytes for part in self._entries)

    def taken(self, slots: Ints, additions: Additions) -> Entries:
        """Return copies of the entities at `slots`, with room for what is added to them."""
        added = additions.codes[additions.codes >= 0]
        return gather(self._entries, slots, np.bincount(added, minlength=len(slots)).astype(np.int64))

    def put(self, touched: Entries, slots: Ints, entities: int) -> None:
        """Make copies the current entries of the entities at `slots`, all below `entities`."""
        self._reserve(entities, 0)
        outgrown = touched.lengths[touched.lengths > self._entries.rooms[slots]]
        self._reserve(entities, self._used + int((outgrown + outgrown // 4).sum()))
        self._used = scatter(touched, slots, self._used, self._entries)
        if self._used > _MOST_SLACK * int(self._entries.lengths.sum()) + _SMALLEST_STORE:
            self._pack(self._entries, entities)

    def newest(self, entities: int) -> Ints:
        """Return the newest time held of each of the first `entities` entities, int64[entities]."""
        held = self._entries
        ends = (held.starts + held.lengths)[:entities] - 1
        times = held.times[ends] if len(held.times) else np.full(entities, NEVER)
        return np.maximum(held.frontiers[:entities], np.where(held.lengths[:entities] > 0, times, NEVER))

    def keep(self, slots: Ints) -> None:
        """Hold the entities at `slots` alone, in that order."""
        self._pack(gather(self._entries, slots, np.zeros(len(slots), np.int64)), len(slots))

    def kept(self, entities: int) -> KeptEntries:
        """Return the entries of the first `entities` entities, end to end."""
        entries = self._entries
        packed = gather(entries, np.arange(entities), np.zeros(entities, np.int64))
        return KeptEntries(packed.lengths, packed.frontiers, packed.times, packed.amounts)

    def replace(self, kept: KeptEntries) -> None:
        """Hold copies of these entries instead."""
        starts = np.cumsum(kept.lengths) - kept.lengths
        parts = (kept.times, kept.amounts, starts, kept.lengths, kept.lengths, kept.frontiers)
        self._pack(Entries._make(map(np.array, parts)), len(kept.lengths))

    def _pack(self, entries: Entries, entities: int) -> None:
        self._entries = gather(entries, np.arange(entities), entries.lengths[:entities] // 4)
        self._used = len(self._entries.times)

    def _reserve(self, entities: int, entries: int) -> None:
        held = self._entries
        larger = _blank(_grown(len(held.starts), entities), _grown(len(held.times), entries))
        if len(larger.starts) > len(held.starts) or len(larger.times) > len(held.times):
            for new, old in zip(larger, held, strict=True):
                new[: len(old)] = old
            self._entries = larger


def _grown(held: int, least: int) -> int:
    return held if least <= held else max(least, held + held // 4)


def _blank(entities: int, entries: int) -> Entries:
    starts, lengths, rooms = (np.zeros(entities, np.int64) for _ in range(3))
    frontiers = np.full(entities, NEVER)
    return Entries(np.empty(entries, np.int64), np.empty(entries), starts, lengths, rooms, frontiers)
