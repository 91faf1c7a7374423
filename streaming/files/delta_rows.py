"""Rows of a Delta table as history: in the order in which they were decided, else of event time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from schemas.errors import ConfigurationError
from streaming.delta.formats import check_format
from streaming.delta.stored import StoredTable, open_for_reading

_ORDER = "sequence"
_MAPPING = "delta.columnMapping.mode"


class DeltaRows:
    """A Delta table at one version.

    Args:
        path: its folder.
        version: by default the newest.

    Raises:
        ConfigurationError: there is no such table, the version cannot be read any more, or the table uses a
            feature by which its files do not say what it holds.
    """

    def __init__(self, path: Path, version: int | None = None) -> None:
        self.path = path
        self._table = _opened(path, version)
        self.schema: pa.Schema = pa.schema(self._table.schema())
        self._check_files()

    @property
    def version(self) -> int:
        """The version that is read."""
        return self._table.version()

    @property
    def identity(self) -> str:
        """What tells this table, whatever its version, from others."""
        return str(self._table.metadata().id)

    def count(self) -> int:
        """Return the number of rows."""
        return sum(pa.table(self._table.get_add_actions())["num_records"].to_pylist())

    def batches(self, orders: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        """Read the rows by `sequence`, else by the first of some columns that is there, `size` at a time.

        Rows that are not numbered without a gap are held in memory as a whole.
        """
        stored, rows = StoredTable(self.path, self._table, self.schema), self.count()
        if self._numbered(stored, rows):
            for first in range(0, rows, size):
                yield from _batches(stored.read(_ORDER, first, min(first + size, rows)), size)
            return
        known = [name for name in (_ORDER, *orders) if name in self.schema.names]
        whole = self.whole()
        yield from _batches(whole.sort_by(known[0]) if known else whole, size)

    def whole(self) -> pa.Table:
        """Return all rows, in an order that is the same for one version."""
        actions = pa.table(self._table.get_add_actions(flatten=True)).to_pylist()
        parts = [self._part(each) for each in sorted(actions, key=lambda each: each["path"])]
        return pa.concat_tables([self.schema.empty_table(), *parts])

    def place_of(self, row: int) -> str:
        """Return the table, and a row by its number from 1."""
        return f"{self.path}: row {row}"

    def _check_files(self) -> None:
        settings = self._table.metadata().configuration
        if settings.get(_MAPPING, "none") != "none":
            raise ConfigurationError(f"the table has {_MAPPING}, which is not read", where=str(self.path))
        features = self._table.protocol().reader_features or []
        if "deletionVectors" in features and pa.table(self._table.deletion_vectors()).num_rows:
            raise ConfigurationError(
                "the table has deletion vectors, which are not read: REORG TABLE … APPLY (PURGE) rewrites it",
                where=str(self.path),
            )

    def _numbered(self, stored: StoredTable, rows: int) -> bool:
        """Return whether rows are numbered without a gap, so that they can be read piece by piece."""
        if self._table.metadata().partition_columns or _ORDER not in self.schema.names:
            return False
        if not pa.types.is_integer(self.schema.field(_ORDER).type):
            return False
        return stored.maximum(_ORDER) == rows - 1

    def _part(self, action: dict[str, object]) -> pa.Table:
        """Read a file; values of its partition, and columns that came later, are not in it."""
        part = pq.ParquetFile(self.path / unquote(str(action["path"]))).read()
        for name in self.schema.names:
            if name not in part.column_names:
                value = pa.scalar(action.get(f"partition.{name}"))
                part = part.append_column(name, pa.repeat(value, part.num_rows))
        return part.select(self.schema.names).cast(self.schema)


def _opened(path: Path, version: int | None) -> DeltaTable:
    table = open_for_reading(path)
    if table is None:
        raise ConfigurationError("no Delta table", where=str(path))
    if version is None or version == table.version():
        found = table
    else:
        try:
            found = DeltaTable(path, version=version)
        except DeltaError:
            raise _gone(path, version) from None
        check_format(path, found)
    names = pa.table(found.get_add_actions())["path"].to_pylist()
    if not all((path / unquote(name)).is_file() for name in names):
        raise _gone(path, found.version())
    return found


def _gone(path: Path, version: int) -> ConfigurationError:
    return ConfigurationError(f"version {version} of it cannot be read any more", where=str(path))


def _batches(rows: pa.Table, size: int) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = rows.combine_chunks().to_batches(max_chunksize=size)
    return batches
