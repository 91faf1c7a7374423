"""Reads Delta tables, whoever wrote them: their files are found and understood by the log alone.

The log says which files count, what their columns are called, which of their rows are deleted, and what
values their partitions have. Files are read one after the other, by path, so rows come in an order that is
the same for one version. They are read here, since the scan of Delta's library shifts times of Spark that lie
beyond what 64 bits of nanoseconds hold, and refuses tables whose types were widened.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from schemas.errors import ConfigurationError
from schemas.event_paths import steps_of
from streaming.delta.formats import check_format
from streaming.files.delta_columns import MappedColumns, Renamed
from streaming.files.delta_features import DELETION_VECTORS, apart_error
from streaming.files.delta_log import asked, open_delta, store_words
from streaming.files.foreign_files import ForeignFiles, files_of_table
from streaming.files.opening import source_place
from streaming.files.sorting import sorted_batches
from streaming.files.table_rows import leads_somewhere, value_at
from streaming.store.place import Place

_ORDER = "sequence"
_PARTITION = "partition."


@dataclass(frozen=True)
class _DataFile:
    """One file that counts.

    Attributes:
        values: of the partition's columns, as the log has them.
        rows: how many are stored in it, None where the log does not say.
        kept: bool[n], which of its rows are not deleted, None for all.
    """

    place: Place
    values: Mapping[str, Any]
    rows: int | None
    kept: pa.Array | None


class DeltaTableRows:
    """A Delta table at one version.

    Args:
        path: its folder, or a URI of a store, see `source_place`.
        version: by default the newest.

    Raises:
        ConfigurationError: there is no such table or version, its log or a file is not whole, or it uses a
            feature that is not read; or the store that it lies in does not admit this process.
        RetryableError: that store is away or busy; so, too, where rows are read.
    """

    def __init__(self, path: Path, version: int | None = None) -> None:
        self.place = source_place(path)
        self._source = files_of_table(self.place)
        table = open_delta(self._source, version)
        check_format(self.place, table)
        self.version, self.identity = table.version(), str(table.metadata().id)
        # Parquet and DuckDB say of every column that it may hold nothing.
        known = asked(self.place, lambda: pa.schema(table.schema()))
        self.schema = pa.schema([(each.name, each.type) for each in known])
        self._partitions = frozenset(table.metadata().partition_columns)
        self._columns = _mapped(self.place, table)
        self._files = _files(self._source, table)

    def count(self) -> int:
        """Return the number of rows."""
        return sum(self._count(each) for each in self._files)

    def batches(self, columns: Collection[str] | None = None, size: int = 50_000) -> Iterator[pa.RecordBatch]:
        """Read columns, by default all, in batches of at most `size` rows; no more is held at a time.

        Raises:
            ConfigurationError: a file cannot be read.
        """
        names = self.schema.names if columns is None else columns
        wanted = pa.schema([field for field in self.schema if field.name in names])
        for file in self._files:
            try:
                yield from self._read(file, wanted, size)
            except (pa.ArrowException, OSError) as fault:
                raise ConfigurationError(f"cannot be read: {fault}", where=str(file.place)) from fault
            except ConfigurationError as fault:
                raise fault.within(str(file.place)) from None

    def in_order(self, orders: Sequence[str], size: int, paths: Collection[str]) -> Iterator[pa.RecordBatch]:
        """Read what some paths lead into, by `sequence`, else by the first of some paths that is there.

        Rows that must be sorted and do not fit into memory go to temporary files meanwhile.

        Args:
            orders: paths of columns.
            size: rows of each batch.
            paths: of what is wanted.

        Raises:
            ConfigurationError: a file cannot be read.
            MachineError: there is no room for what must be sorted.
        """
        known = [path for path in (_ORDER, *orders) if leads_somewhere(self.schema, path)]
        columns = {self._column(path) for path in (*paths, *known[:1])}
        batches = self.batches(columns, size)
        if not known:
            return batches
        schema = pa.schema([field for field in self.schema if field.name in columns])
        return sorted_batches(batches, schema, lambda batch: value_at(batch, known[0]), size)

    def whole(self) -> pa.Table:
        """Return all rows, in an order that is the same for one version."""
        return pa.Table.from_batches(self.batches(), self.schema)

    def place_of(self, row: int) -> str:
        """Return the table, and a row by its number from 1."""
        return f"{self.place}: row {row}"

    def _count(self, file: _DataFile) -> int:
        deleted = 0 if file.kept is None else file.kept.false_count
        if file.rows is not None:
            return int(file.rows) - deleted
        with self._source.here(file.place) as path:
            return int(pq.read_metadata(path).num_rows) - deleted

    def _column(self, path: str) -> str:
        return path if path in self.schema.names else str(steps_of(path)[0])

    def _read(self, file: _DataFile, wanted: pa.Schema, size: int) -> Iterator[pa.RecordBatch]:
        # Spark stores times as INT96, of which nanoseconds would hold those from 1677 to 2262 alone.
        with (
            self._source.here(file.place) as path,
            pq.ParquetFile(path, coerce_int96_timestamp_unit="us") as opened,
        ):
            held = opened.schema_arrow
            named = self._columns.named(held)
            stored = [name for name in wanted.names if name not in self._partitions and name in named.names]
            places = [named.names.index(name) for name in stored]
            physical, done = [held.names[place] for place in places], 0
            for batch in opened.iter_batches(size, columns=physical):
                given = batch.select(physical)
                rows = pa.record_batch(Renamed(given, pa.schema([named.field(place) for place in places])))
                if file.kept is not None:
                    rows = rows.filter(_kept(file.kept, done, batch.num_rows))
                done += batch.num_rows
                yield _completed(rows, wanted, file.values)


def _completed(rows: pa.RecordBatch, wanted: pa.Schema, values: Mapping[str, Any]) -> pa.RecordBatch:
    """Add the partition's values, and nulls for columns that came after the file was written."""
    columns = []
    for field in wanted:
        if field.name in values:
            columns.append(pa.repeat(pa.scalar(values[field.name], field.type), rows.num_rows))
        elif field.name in rows.schema.names:
            columns.append(_cast(rows[field.name], field))
        else:
            columns.append(pa.nulls(rows.num_rows, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=wanted)


def _cast(values: pa.Array, field: pa.Field) -> pa.Array:
    try:
        return values.cast(field.type)
    except pa.ArrowException as fault:
        raise ConfigurationError(f"column {field.name!r} holds {values.type}: {fault}") from None


def _kept(mask: pa.Array, first: int, rows: int) -> pa.Array:
    """Rows after the end of a mask are kept."""
    part = mask.slice(first, rows)
    return pa.concat_arrays([part, pa.repeat(pa.scalar(True), rows - len(part))])


def _mapped(place: Place, table: DeltaTable) -> MappedColumns:
    declared = json.loads(table.schema().to_json())["fields"]
    try:
        return MappedColumns.of(table.metadata().configuration, declared)
    except ConfigurationError as fault:
        raise fault.within(str(place)) from None


def _files(source: ForeignFiles, table: DeltaTable) -> Sequence[_DataFile]:
    actions = asked(source.place, lambda: pa.table(table.get_add_actions(flatten=True)).to_pylist())
    masks = _masks(source, table)
    found = []
    for action in sorted(actions, key=lambda each: str(each["path"])):
        file = source.located(str(action["path"]))
        _check_whole(source, table.version(), file, action["size_bytes"])
        values = {key.removeprefix(_PARTITION): each for key, each in action.items() if _is_partition(key)}
        found.append(_DataFile(file, values, action["num_records"], masks.get(_really(file))))
    strange = sorted(masks.keys() - {_really(each.place) for each in found})
    if strange:
        problem = f"its log deletes rows of {strange[0]}, which is none of its files"
        raise ConfigurationError(problem, where=str(source.place))
    return found


def _is_partition(key: str) -> bool:
    return key.startswith(_PARTITION)


def _masks(source: ForeignFiles, table: DeltaTable) -> Mapping[str, pa.Array]:
    """Return which rows are kept, by file; files without deleted rows have none.

    The library names files by where they really lie, whatever links lead there.
    """
    features = table.protocol().reader_features or ()
    if DELETION_VECTORS not in features:
        return {}
    try:
        with store_words(source.place):
            vectors = pa.table(table.deletion_vectors())
    except DeltaError as fault:
        apart = apart_error(source.place, features)
        problem = f"its deletion vectors cannot be read: {str(fault).splitlines()[0]}"
        raise apart or ConfigurationError(problem, where=str(source.place)) from None
    names, kept = vectors["filepath"].to_pylist(), vectors["selection_vector"]
    return {_really(source.located(name)): kept[row].values for row, name in enumerate(names)}


def _really(file: Place) -> str:
    if not file.is_local:
        return file.uri
    try:
        return str(file.path.resolve())
    except (OSError, ValueError, RuntimeError):  # a name that no disk can have, or links in a circle
        return file.uri


def _check_whole(source: ForeignFiles, version: int, file: Place, size: int) -> None:
    found = source.size(file)
    if found is None:
        raise ConfigurationError(
            f"version {version} of it cannot be read: {file} is missing. It was vacuumed, or was not copied "
            "along: restore it, or give another version",
            where=str(source.place),
        )
    if found != size:
        problem = f"{found:,} bytes, and the log of {source.place} says {size:,}: restore it from a copy"
        raise ConfigurationError(problem, where=str(file))
