"""Exact map from entity ids to slots, held in flat arrays and probed by compiled code.

A Python dict needs 0.9 s to build per million ids and holds the GIL for every look-up; this table is
rebuilt from the stored ids in a fraction of that and lets two kinds of entities be looked up at once. Slots
are given in order of first appearance, so they do not depend on the hash, whose seed differs per process.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streaming.arrays.compilation import Bytes, Codes, Hashes, Ints, compiled, read_only
from streaming.arrays.cores import ALL_CORES, Cores

Column = TypeVar("Column", Bytes, Ints)

_PRIME = np.uint64(0x100000001B3)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_HALF = np.uint64(33)
_EMPTY = np.uint64(0)
_SLOT = np.uint64(0xFFFFFFFF)
_SMALLEST_TABLE = 64


class Ids(NamedTuple):
    """UTF-8 ids end to end: id i is `data[offsets[i]:offsets[i + 1]]`."""

    data: Bytes
    offsets: Ints


@dataclass(frozen=True)
class EncodedColumn:
    """One id column with its distinct ids numbered in order of first appearance.

    Attributes:
        codes: int32[rows], number of the row's id, -1 where the id is null.
        ids: the distinct ids, in order of first appearance.
        hashes: uint64[distinct].
    """

    codes: Codes
    ids: Ids
    hashes: Hashes


@compiled
def _hash(ids: Ids, seed: np.uint64, hashes: Hashes) -> None:
    # FNV-1a over the bytes, then the finalizer of MurmurHash3 (both public domain).
    data, offsets = ids
    for row in range(len(hashes)):
        value = seed
        for position in range(offsets[row], offsets[row + 1]):
            value = (value ^ np.uint64(data[position])) * _PRIME
        value = (value ^ (value >> _HALF)) * _MIX_1
        value = (value ^ (value >> _HALF)) * _MIX_2
        hashes[row] = value ^ (value >> _HALF)


@compiled
def _find(ids: Ids, hashes: Hashes, cells: Hashes, stored: Ids, slots: Ints) -> None:
    # A cell holds the upper half of the hash and slot + 1; an equal half is proven by comparing the bytes.
    data, offsets = ids
    known, bounds = stored
    mask = len(cells) - 1
    for row in range(len(hashes)):
        slots[row] = -1
        start, length = offsets[row], offsets[row + 1] - offsets[row]
        cell = np.int64(hashes[row] & _SLOT) & mask
        while cells[cell] != _EMPTY:
            slot = np.int64(cells[cell] & _SLOT) - 1
            if cells[cell] & ~_SLOT == hashes[row] & ~_SLOT and bounds[slot + 1] - bounds[slot] == length:
                step = 0
                while step < length and data[start + step] == known[bounds[slot] + step]:
                    step += 1
                if step == length:
                    slots[row] = slot
                    break
            cell = (cell + 1) & mask


@compiled
def _place(hashes: Hashes, first: int, cells: Hashes) -> None:
    mask = len(cells) - 1
    for position in range(len(hashes)):
        cell = np.int64(hashes[position] & _SLOT) & mask
        while cells[cell] != _EMPTY:
            cell = (cell + 1) & mask
        cells[cell] = (hashes[position] & ~_SLOT) | np.uint64(first + position + 1)


@compiled
def _append(ids: Ids, new: Ints, stored: Ids, first: int) -> None:
    data, offsets = ids
    known, bounds = stored
    end = bounds[first]
    for position in range(len(new)):
        for source in range(offsets[new[position]], offsets[new[position] + 1]):
            known[end] = data[source]
            end += 1
        bounds[first + position + 1] = end


def _table_size(count: int) -> int:
    return max(_SMALLEST_TABLE, 1 << (2 * count - 1).bit_length()) if count else _SMALLEST_TABLE


def _dictionary(column: pa.ChunkedArray | pa.Array) -> tuple[pa.Array, pa.Array]:
    texts = column.cast(pa.large_string())
    # In one piece: of several Arrow gives each the whole dictionary, and to unify them reads all of these.
    whole = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    encoded = whole.dictionary_encode()
    return encoded.indices, encoded.dictionary


def _utf8(array: pa.Array) -> Ids:
    _, offsets, data = array.buffers()
    if not len(array):
        return Ids(read_only(np.empty(0, np.uint8)), read_only(np.zeros(1, np.int64)))
    bounds = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return Ids(read_only(content), read_only(bounds))


def _part(ids: Ids, span: slice) -> Ids:
    return Ids(ids.data, ids.offsets[span.start : span.stop + 1])


def hashes_of(column: pa.ChunkedArray | pa.Array, seed: int) -> Hashes:
    """Return the hash of each row's text, uint64[rows]; the same for one text and seed at any time.

    Args:
        column: without nulls.
    """
    indices, distinct = _dictionary(column)
    ids = _utf8(distinct)
    hashes: Hashes = np.empty(len(distinct), np.uint64)
    _hash(ids, np.uint64(seed), hashes)
    rows: Hashes = hashes[indices.to_numpy(zero_copy_only=False)]
    return rows


class EntityIndex:
    """Grows as entities appear; looking up never changes it.

    Args:
        seed: start value of the hash. Differs per process by default, so that crafted ids cannot pile up
            in one place; it never affects a slot.
        cores: among which ids are shared out.
    """

    def __init__(self, seed: int | None = None, cores: Cores = ALL_CORES) -> None:
        self._cores = cores
        self._seed = np.uint64(secrets.randbits(64) if seed is None else seed)
        self._count = 0
        self._stored = Ids(np.empty(0, np.uint8), np.zeros(1, np.int64))
        self._cells: Hashes = np.zeros(_SMALLEST_TABLE, np.uint64)

    def __len__(self) -> int:
        """Return the number of known entities."""
        return self._count

    def encode(self, column: pa.ChunkedArray | pa.Array) -> EncodedColumn:
        """Number the distinct ids of one column; what is not text is taken as its text."""
        indices, distinct = _dictionary(column)
        codes = pc.fill_null(indices.cast(pa.int32()), -1).to_numpy(zero_copy_only=False)
        ids = _utf8(distinct)
        return EncodedColumn(read_only(codes), ids, self._hashes(ids))

    def find(self, column: EncodedColumn) -> Ints:
        """Return the slot of each distinct id, int64[distinct], -1 where it is not known yet."""
        slots: Ints = np.empty(len(column.hashes), np.int64)

        def find(span: slice) -> None:
            ids, hashes = _part(column.ids, span), column.hashes[span]
            _find(ids, hashes, self._cells, self._stored, slots[span])

        self._cores.over(find, len(slots))
        return slots

    def insert(self, column: EncodedColumn, new: Ints) -> None:
        """Give the next slots to the ids numbered `new`, in that order; none of them may be known."""
        offsets = column.ids.offsets
        first, self._count = self._count, self._count + len(new)
        self._reserve(first, int((offsets[new + 1] - offsets[new]).sum()))
        _append(column.ids, new, self._stored, first)
        if _table_size(self._count) > len(self._cells):
            self._rebuild()
        else:
            _place(column.hashes[new], first, self._cells)

    def place(self, column: EncodedColumn, slots: Ints) -> Ints:
        """Give the next slots to the ids that find() did not know, and return the slots of all of them.

        Args:
            slots: int64[distinct], as find() returned them; left as it is.
        """
        new, placed = np.flatnonzero(slots < 0), slots.copy()
        placed[new] = np.arange(self._count, self._count + len(new))
        self.insert(column, new)
        return placed

    def ids(self) -> Ids:
        """Return all ids in slot order; what is returned never changes, so it is no copy."""
        offsets = self._stored.offsets[: self._count + 1]
        return Ids(read_only(self._stored.data[: offsets[-1]]), read_only(offsets))

    def restore(self, ids: Ids) -> None:
        """Replace the content by ids in slot order, such as ids() returned."""
        self._count = len(ids.offsets) - 1
        self._stored = Ids(np.array(ids.data), np.array(ids.offsets))
        self._rebuild()

    def _hashes(self, ids: Ids) -> Hashes:
        hashes: Hashes = np.empty(len(ids.offsets) - 1, np.uint64)
        self._cores.over(lambda span: _hash(_part(ids, span), self._seed, hashes[span]), len(hashes))
        return hashes

    def _rebuild(self) -> None:
        self._cells = np.zeros(_table_size(self._count), np.uint64)
        _place(self._hashes(self.ids()), 0, self._cells)

    def _reserve(self, first: int, extra_bytes: int) -> None:
        data, offsets = self._stored
        end = int(offsets[first])
        self._stored = Ids(_grown(data, end, end + extra_bytes), _grown(offsets, first + 1, self._count + 1))


def _grown(array: Column, used: int, least: int) -> Column:
    if least <= len(array):
        return array
    larger = np.empty(max(least, 2 * len(array)), dtype=array.dtype)
    larger[:used] = array[:used]
    return larger
