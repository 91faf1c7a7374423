"""Finds rows by a key without reading the table: where they stand, by a hash of the key.

An append-only table numbers its rows, or its commits, in a column that grows. For each full span of numbers a
file holds one integer per row: the upper bits of the key's hash and, in the lower ones, the place within the
span. What lies beyond the last full span is held in memory. So a look-up costs a binary search per span, and
then the files that hold what was found. Everything here follows from the table and may be removed.
"""

from __future__ import annotations

import io
import secrets
import shutil
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streaming.arrays.compilation import Hashes, Ints
from streaming.arrays.entity_index import hashes_of
from streaming.delta.stored import StoredTable
from streaming.store.place import Place
from streaming.store.spool import spool_folder
from streaming.store.whole_files import create_file, replace_file

INDEX = "_index"  # Delta leaves alone what begins with an underscore
_BITS = 18
_SPAN = 1 << _BITS
_PLACE = np.uint64(_SPAN - 1)


class KeyIndex:
    """Where rows with given keys stand in one table. Safe to use from several threads.

    After rows were rewritten, as an erasure does, it is begun anew: they may have other keys.

    Args:
        table: read as it stands when `rows` is called.
        key: text column.
        position: int64 column that never falls from commit to commit.
    """

    def __init__(self, table: StoredTable, key: str, position: str) -> None:
        self._table, self._key, self._position = table, key, position
        self._folder = self._kept_in(table.place) / INDEX / key
        self._lock = threading.Lock()
        self._seed, self._rewritten = 0, table.rewritten_at
        self._begin()

    def _begin(self) -> None:
        self._spans: list[Hashes] = []
        self._beyond, self._read = np.empty(0, np.uint64), 0

    def _kept_in(self, table: Place) -> Path:
        """Of a table in a store the index is this process's own."""
        if table.is_local:
            return table.path
        folder = spool_folder("flagstream-index-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def rows(self, keys: pa.Array, columns: Sequence[str]) -> pa.Table:
        """Return all rows with any of the keys, by position, with the key, the position and some columns.

        Null is no key: rows without one are never found.
        """
        wanted = keys.drop_null().unique()
        with self._lock:
            self._catch_up()
            places = self._places(hashes_of(wanted, self._seed))
        found = self._table.at(self._position, places, [self._key, *columns])
        return found.filter(pc.is_in(found[self._key], wanted))

    def _places(self, hashes: Hashes) -> Ints:
        parts = [
            _found_in(entries, hashes, number << _BITS)
            for number, entries in enumerate([*self._spans, self._beyond])
        ]
        return np.unique(np.concatenate(parts))

    def _catch_up(self) -> None:
        if self._table.rewritten_at != self._rewritten:
            self._rewritten = self._table.rewritten_at
            self._begin()
        highest = self._table.maximum(self._position)
        if highest is None or highest < self._read:
            return
        if not self._read:
            self._seed = self._kept_seed()
            self._drop_others()
            self._spans = list(self._kept())
            self._read = len(self._spans) << _BITS
        while highest >= (end := (len(self._spans) + 1) << _BITS):
            self._spans.append(self._keep(len(self._spans), self._entries(end)))
            self._beyond, self._read = np.empty(0, np.uint64), end
        # The newest commit may go on under the number read last.
        self._beyond, self._read = self._entries(None), highest + 1

    def _entries(self, end: int | None) -> Hashes:
        """Return the entries of the span that is being filled: those at hand and those read now."""
        rows = self._table.read(self._position, self._read, end, [self._key])
        rows = rows.filter(pc.is_valid(rows[self._key]))
        places = rows[self._position].to_numpy().astype(np.uint64) & _PLACE
        fresh = (hashes_of(rows[self._key], self._seed) & ~_PLACE) | places
        return np.sort(np.concatenate([self._beyond, fresh]))

    def _kept(self) -> Iterator[Hashes]:
        number = 0
        with suppress(OSError, ValueError, EOFError):
            while True:
                yield np.load(self._span(number), mmap_mode="r")
                number += 1

    def _keep(self, number: int, entries: Hashes) -> Hashes:
        """Where the table's folder cannot be written, the span stays in memory."""
        content = io.BytesIO()
        np.save(content, entries)
        with suppress(OSError):
            replace_file(self._span(number), content.getvalue())
            return cast("Hashes", np.load(self._span(number), mmap_mode="r"))
        return entries

    def _span(self, number: int) -> Path:
        return self._folder / f"{self._prefix}{number:08}.npy"

    @property
    def _prefix(self) -> str:
        """Under another seed, or in rows as they were before a rewriting, keys are not found."""
        return f"{self._seed:016x}.{self._rewritten}."

    def _drop_others(self) -> None:
        """Remove spans that nobody begins with any more; whoever has mapped one goes on reading it."""
        with suppress(OSError):
            for path in self._folder.glob("*.npy"):
                if not path.name.startswith(self._prefix):
                    path.unlink(missing_ok=True)

    def _kept_seed(self) -> int:
        """Hashes begin with a number of the table's own, so that nobody can make keys that fall together."""
        file, drawn = self._folder / "seed", secrets.randbits(64)
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            for _ in range(2):
                create_file(file, f"{drawn:016x}".encode())
                try:
                    return int(file.read_text(encoding="ascii"), 16)
                except ValueError:
                    file.unlink(missing_ok=True)  # torn by a power cut
        return drawn


def _found_in(entries: Hashes, hashes: Hashes, first: int) -> Ints:
    """Return the positions of the entries whose upper bits are those of any hash."""
    low = np.searchsorted(entries, hashes & ~_PLACE, side="left")
    high = np.searchsorted(entries, hashes | _PLACE, side="right")
    chosen = [entries[a:b] for a, b in zip(low.tolist(), high.tolist(), strict=True) if a < b]
    if not chosen:
        return np.empty(0, np.int64)
    return (np.concatenate(chosen) & _PLACE).astype(np.int64) + first
