"""Finds rows by a key without reading the table: where they stand, by a hash of the key.

An append-only table numbers its rows, or its commits, in a column that grows. For each full span of numbers a
file holds one integer per row: the upper bits of the key's hash and, in the lower ones, the place within the
span. What lies beyond the last full span is held in memory. So a look-up costs a binary search per span, and
then the files that hold what was found. Everything here follows from the table and may be removed.
"""

from __future__ import annotations

import io
import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streaming.arrays.compilation import Hashes, Ints
from streaming.arrays.entity_index import hashes_of
from streaming.delta.index_files import IndexFiles
from streaming.delta.stored import StoredTable
from streaming.store.whole_files import create_file

_BITS = 18
SPAN = 1 << _BITS
_PLACE = np.uint64(SPAN - 1)


class KeyIndex:
    """Where rows with given keys stand in one table. Safe to use from several threads.

    After rows were rewritten, as an erasure does, it is begun anew: they may have other keys. So it is
    where the table does not go on from what was seen of it.

    Args:
        table: read as it stands when `rows` is called.
        key: text column.
        position: int64 column that never falls from commit to commit.
    """

    def __init__(self, table: StoredTable, key: str, position: str) -> None:
        self._table, self._key, self._position = table, key, position
        self._files = IndexFiles(table, key, ".npy")
        self._lock = threading.Lock()
        self._seed, self._rewritten = 0, table.rewritten_at
        self._begin()

    def _begin(self) -> None:
        self._spans: list[Hashes] = []
        self._beyond, self._read, self._version = np.empty(0, np.uint64), 0, -1

    def rows(self, keys: pa.Array, columns: Sequence[str]) -> pa.Table:
        """Return all rows with any of the keys, by position, with the key, the position and some columns.

        Null is no key: rows without one are never found.
        """
        wanted = keys.drop_null().unique()
        found = self._table.at(self._position, self.places(wanted), [self._key, *columns])
        return found.filter(pc.is_in(found[self._key], wanted))

    def places(self, keys: pa.Array) -> Ints:
        """Return the positions at which any of the keys may stand, ascending.

        Those of all rows that have one are among them. Now and then there is one of a row with another key of
        the same hash: whoever reads the rows compares their keys.

        Args:
            keys: without nulls.
        """
        with self._lock:
            while self._advance():
                pass
            spans, seed = [*self._spans, self._beyond], self._seed
        hashes = hashes_of(keys, seed)
        parts = [_found_in(entries, hashes, number << _BITS) for number, entries in enumerate(spans)]
        return np.unique(np.concatenate(parts))

    @property
    def missing(self) -> int:
        """How many numbers are not in it yet, as the table stands."""
        return (
            0
            if self._table.version == self._version
            else self._table.next_number(self._position) - self._read
        )

    def build(self) -> bool:
        """Take in a span at most of what is new; return whether there may be more. Nobody waits for long."""
        with self._lock:
            return self._advance()

    def _advance(self) -> bool:
        goes_on, rewritten = self._files.goes_on(), self._table.rewritten_at
        if not goes_on or rewritten != self._rewritten:
            self._rewritten = rewritten
            self._begin()
        version = self._table.version
        if version == self._version:
            return False
        highest = self._table.maximum(self._position)
        is_full = highest is not None and highest >= self._read and self._take_in(highest)
        if not is_full:
            self._version = version
        return is_full

    def _take_in(self, highest: int) -> bool:
        """Take in a span, or what lies beyond the last full one; return whether a span was full."""
        if not self._read:
            self._load(highest >> _BITS)
        end = (len(self._spans) + 1) << _BITS
        if highest >= end:
            self._spans.append(self._keep(len(self._spans), self._entries(end)))
            self._beyond, self._read = np.empty(0, np.uint64), end
            return True
        # The newest commit may go on under the number read last.
        self._beyond, self._read = self._entries(None), highest + 1
        return False

    def _load(self, full: int) -> None:
        """Begin with the spans that are kept, as far as they are full for this handle, too."""
        self._seed = self._kept_seed()
        self._spans = list(self._files.read(self._prefix, _opened))[:full]
        self._read = len(self._spans) << _BITS

    def _entries(self, end: int | None) -> Hashes:
        """Return the entries of the span that is being filled: those at hand and those read now."""
        rows = self._table.read(self._position, self._read, end, [self._key])
        rows = rows.filter(pc.is_valid(rows[self._key]))
        places = rows[self._position].to_numpy().astype(np.uint64) & _PLACE
        fresh = (hashes_of(rows[self._key], self._seed) & ~_PLACE) | places
        return np.sort(np.concatenate([self._beyond, fresh]))

    def _keep(self, number: int, entries: Hashes) -> Hashes:
        """Where the table's folder cannot be written, the span stays in memory."""
        content = io.BytesIO()
        np.save(content, entries)
        kept = self._files.keep(self._prefix, number, content.getvalue(), _opened)
        return entries if kept is None else kept

    @property
    def _prefix(self) -> str:
        """Under another seed, or in rows as they were before a rewriting, keys are not found."""
        return f"{self._seed:016x}.{self._rewritten}."

    def _kept_seed(self) -> int:
        """Hashes begin with a number of the table's own, so that nobody can make keys that fall together."""
        file, drawn = self._files.folder / "seed", secrets.randbits(64)
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(3):
                try:  # read first: a full disk, or one that is only read, takes no file
                    return int(file.read_text(encoding="ascii"), 16)
                except FileNotFoundError:
                    create_file(file, f"{drawn:016x}".encode())
                except ValueError:
                    file.unlink(missing_ok=True)  # torn by a power cut
        return drawn


def _opened(path: Path) -> Hashes:
    return np.asarray(np.load(path, mmap_mode="r"))  # what maps a file costs each look-up its own checks


def _found_in(entries: Hashes, hashes: Hashes, first: int) -> Ints:
    """Return the positions of the entries whose upper bits are those of any hash."""
    low = np.searchsorted(entries, hashes & ~_PLACE, side="left")
    high = np.searchsorted(entries, hashes | _PLACE, side="right")
    chosen = [entries[a:b] for a, b in zip(low.tolist(), high.tolist(), strict=True) if a < b]
    if not chosen:
        return np.empty(0, np.int64)
    return (np.concatenate(chosen) & _PLACE).astype(np.int64) + first
