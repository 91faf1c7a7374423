"""Reads few rows of a large table by their numbers, from copies in files that are mapped into memory.

A Parquet file gives a row for the price of its whole group of rows. So for each full span of numbers a file
in Arrow's own format holds the columns, in the order of the numbers: plain, for rows of which many are read
at once, or compressed in small blocks, where rows are long. What lies beyond the last full span is held in
memory. Somebody beside those who read makes it; what it does not have is read from the table. Everything here
follows from the table and may be removed.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import pyarrow as pa

from schemas.errors import DiskError
from streaming.arrays.compilation import Ints
from streaming.delta.index_files import IndexFiles
from streaming.delta.seen_log import SeenEntry
from streaming.delta.stored import StoredTable

_MOST_PARTS = 32  # of what lies beyond the last span: each look-up goes through all of them
_NEVER = -2  # no version, not even that of a table that was never rewritten
_MANY = 2  # a text stands this often for it to be kept once


@dataclass(frozen=True)
class KeptLayout:
    """How rows are kept.

    Attributes:
        bits: a span has as many numbers as these bits hold; fewer rows than that are held in memory.
        block_bits: likewise of a compressed block, None for rows that lie plain.
    """

    bits: int
    block_bits: int | None = None

    @property
    def stretch(self) -> int:
        """How many numbers are read at once: each read opens whole files."""
        return 1 << (self.bits if self.block_bits is None else self.bits + 1)


MANY_SHORT = KeptLayout(18)
FEW_LONG = KeptLayout(15, 6)


class KeptRows:
    """Columns of a table's rows, found by position. Safe to use from several threads.

    `build` makes the copy, piece by piece; what it does not have yet, or no longer, is read from the table.
    After rows were rewritten, as an erasure and retention do, it is begun anew, and the files of before go.
    So it is where the table does not go on from what was seen of it, but was restored from an older copy.

    Args:
        table: read as it stands when `at` is called.
        name: of the copy, another one for each of a table.
        position: int64 column, which grows from commit to commit and is never the same in two rows.
        columns: what is read of each row beside it.
        layout: how it is kept.
    """

    def __init__(
        self,
        table: StoredTable,
        name: str,
        position: str,
        columns: Sequence[str],
        layout: KeptLayout = MANY_SHORT,
    ) -> None:
        self._table, self._position, self._layout = table, position, layout
        self._names = [position, *(each for each in columns if each != position)]
        self._schema = pa.schema([table.schema.field(each) for each in self._names])
        self._files = IndexFiles(table, name, ".arrow")
        self._building = threading.Lock()
        self._copy = _RowsCopied(self._schema.empty_table())

    @property
    def columns(self) -> frozenset[str]:
        """What is kept of each row, the position included."""
        return frozenset(self._names)

    @property
    def missing(self) -> int:
        """How many numbers are not in the copy yet, as the table stands."""
        return max(0, self._table.next_number(self._position) - self._copy.read)

    def at(self, positions: Ints, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows with some positions, by position; there may be fewer.

        Args:
            positions: int64[n], ascending.
            columns: those wanted beside the position, by default all.

        Raises:
            DiskError: the table is gone.
        """
        copy = self._copy if self._is_of_now(self._copy) else _RowsCopied(self._schema.empty_table())
        names = self._names if columns is None else [*dict.fromkeys([self._position, *columns])]
        schema = pa.schema([self._schema.field(name) for name in names])
        kept, beyond = np.split(positions, np.searchsorted(positions, [copy.read]))
        found = [*copy.rows(kept, names, self._layout.bits)]
        if len(beyond):
            found.append(self._table.at(self._position, beyond, names).select(names))
        return pa.concat_tables([schema.empty_table(), *(each.cast(schema) for each in found)])

    def build(self) -> bool:
        """Take in the next stretch of what is new; return whether there may be more.

        A span that is written while the rows are rewritten must not outlive them: the next call removes it.
        So the table is to be refreshed between two.

        Raises:
            DiskError: the copy cannot be written, or leaves no room for what the agent needs.
        """
        with self._building:
            goes_on, rewritten = self._files.goes_on(), self._table.rewritten_at
            copy, version = self._copy, self._table.version
            if not goes_on or rewritten != copy.rewritten:
                copy = self._copy = _RowsCopied(self._schema.empty_table(), rewritten)
            if version == copy.version:
                return False
            end = self._table.next_number(self._position)
            copy = copy if copy.read else self._loaded(copy, end)
            self._copy = copy = self._grown(copy, version, end)
            return copy.version != version

    def _is_of_now(self, copy: _RowsCopied) -> bool:
        """Whether the rows that were copied are those of the table, as far as they go."""
        if self._table.place.is_local and not (copy.seen and copy.seen.stands_in(self._table.place)):
            return False
        return copy.rewritten == self._table.rewritten_at

    def _loaded(self, copy: _RowsCopied, end: int) -> _RowsCopied:
        """Begin with what is kept on disk; another process may have seen more of the table."""
        prefix, bits = self._prefix(copy.rewritten), self._layout.bits
        spans = tuple(self._files.read(prefix, self._opened))[: end >> bits]
        return replace(copy, spans=spans, read=len(spans) << bits)

    def _grown(self, copy: _RowsCopied, version: int, end: int) -> _RowsCopied:
        """A long stretch is read at once, which opens its files once, and then cut into spans."""
        reached = min(end, copy.read + self._layout.stretch)
        beyond, spans = copy.beyond, list(copy.spans)
        if reached > copy.read:
            rows = self._table.read(self._position, copy.read, reached, self._names).select(self._names)
            beyond = pa.concat_tables([beyond, rows])
        while reached >= (full := (len(spans) + 1) << self._layout.bits):
            count = int(np.searchsorted(beyond[0].to_numpy(), full))
            spans.append(self._keep(self._prefix(copy.rewritten), len(spans), beyond.slice(0, count)))
            # A copy: a slice would hold all that was read with it.
            beyond = beyond.take(pa.array(np.arange(count, beyond.num_rows)))
        if beyond[0].num_chunks > _MOST_PARTS:
            beyond = beyond.combine_chunks()
        is_whole = reached >= end
        return _RowsCopied(
            beyond, copy.rewritten, tuple(spans), max(reached, copy.read),
            version if is_whole else _NEVER, self._files.seen,
        )  # fmt: skip

    def _keep(self, prefix: str, number: int, rows: pa.Table) -> _Span:
        whole, bits = rows.combine_chunks(), self._layout.block_bits
        content = _plain(whole) if bits is None else self._blocks(number, whole, bits)
        kept = self._files.keep(prefix, number, content, self._opened)
        if kept is None:
            raise DiskError(f"{self._table.place}: no room for copies of its rows, or no right to write them")
        return kept

    def _blocks(self, number: int, rows: pa.Table, block_bits: int) -> bytes:
        """Write a block for each stretch of numbers, also where there are no rows: so its place is known."""
        first, content = number << self._layout.bits, io.BytesIO()
        begins = first + (np.arange(1, 1 << (self._layout.bits - block_bits)) << block_bits)
        edges = np.searchsorted(rows[self._position].to_numpy(), begins)
        packed = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        with pa.ipc.new_file(content, rows.schema, options=packed) as file:
            for low, high in zip([0, *edges], [*edges, rows.num_rows], strict=True):
                part = rows.slice(low, high - low)
                file.write_batch((part.to_batches() or _no_rows(rows.schema))[0])
        return content.getvalue()

    def _opened(self, path: Path) -> _Span:
        if self._layout.block_bits is None:
            return _Plain(pa.ipc.open_file(pa.memory_map(str(path))).read_all())
        return _Blocks(path, self._layout)

    def _prefix(self, rewritten: int) -> str:
        """Rows as they were before a rewriting, of other columns or kept otherwise are not read."""
        kinds = self._schema.remove_metadata().serialize().to_pybytes() + repr(self._layout).encode()
        return f"{hashlib.sha256(kinds).hexdigest()[:16]}.{rewritten}."


@dataclass(frozen=True)
class _RowsCopied:
    """What is kept, as whoever reads it has it: none of it changes.

    Attributes:
        beyond: rows after the last span, in memory.
        rewritten: see StoredTable.
        spans: rows in files.
        read: the number up to which all rows are in it.
        version: of the table all of which is in it.
        seen: the entry of its log, see SeenLog.
    """

    beyond: pa.Table
    rewritten: int = _NEVER
    spans: tuple[_Span, ...] = ()
    read: int = 0
    version: int = _NEVER
    seen: SeenEntry | None = None

    def rows(self, positions: Ints, names: Sequence[str], bits: int) -> Iterator[pa.Table]:
        """Return the rows with some positions, from each span that has some of them."""
        ends = [(number + 1) << bits for number in range(len(self.spans))]
        parts = np.split(positions, np.searchsorted(positions, ends))
        for span, part in zip([*self.spans, _Plain(self.beyond)], parts, strict=True):
            if len(part):
                yield span.rows(part, names)


class _Span(Protocol):
    """The rows of a stretch of numbers; the first of the names is the position."""

    def rows(self, positions: Ints, names: Sequence[str]) -> pa.Table: ...


class _Plain:
    """Rows that lie one after the other."""

    def __init__(self, table: pa.Table) -> None:
        self._table, self._stored = table, table[0].to_numpy()

    def rows(self, positions: Ints, names: Sequence[str]) -> pa.Table:
        return self._table.select(list(names)).take(pa.array(_places_of(self._stored, positions)))


class _Blocks:
    """Rows in compressed blocks: those are read in which some of them are."""

    def __init__(self, path: Path, layout: KeptLayout) -> None:
        # The buffer keeps the file mapped, and not open.
        self._content, self._layout = pa.memory_map(str(path)).read_buffer(), layout
        self._names = pa.ipc.open_file(self._content).schema.names

    def rows(self, positions: Ints, names: Sequence[str]) -> pa.Table:
        wanted = sorted(map(self._names.index, names))
        chosen = pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False)
        file = pa.ipc.open_file(self._content, options=chosen)
        assert self._layout.block_bits is not None, "else they lie plain"
        blocks = (positions & ((1 << self._layout.bits) - 1)) >> self._layout.block_bits
        found = []
        for number in np.unique(blocks).tolist():
            block = file.get_batch(number)
            places = _places_of(block[self._names[0]].to_numpy(), positions[blocks == number])
            found += [block.slice(each, 1) for each in places.tolist()]
        return pa.Table.from_batches(found, file.schema).select(list(names))


def _places_of(stored: Ints, positions: Ints) -> Ints:
    """Return where numbers stand among others that ascend; those that do not are left out."""
    if not len(stored):
        return np.empty(0, np.int64)
    places = np.minimum(np.searchsorted(stored, positions), len(stored) - 1)
    return cast("Ints", places[stored[places] == positions])


def _no_rows(schema: pa.Schema) -> list[pa.RecordBatch]:
    return [pa.RecordBatch.from_pylist([], schema=schema)]


def _plain(rows: pa.Table) -> bytes:
    """Keep each text once where texts come again."""
    arrays = [_encoded(rows[name].combine_chunks()) for name in rows.column_names]
    packed, content = pa.table(arrays, rows.column_names), io.BytesIO()
    with pa.ipc.new_file(content, packed.schema) as file:
        file.write_table(packed, max_chunksize=max(1, rows.num_rows))
    return content.getvalue()


def _encoded(values: pa.Array) -> pa.Array:
    if not pa.types.is_string(values.type):
        return values
    encoded = values.dictionary_encode()
    return encoded if len(encoded.dictionary) * _MANY <= len(values) else values
