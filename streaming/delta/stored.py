"""Reads Delta tables without taking them over: rows in order, files chosen by their statistics."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from schemas.counts import count_of
from schemas.errors import DataLossError, MachineError
from streaming.arrays.compilation import Ints
from streaming.delta.data_files import file_system, opened
from streaming.delta.faults import read_faults, table_faults
from streaming.delta.formats import check_format
from streaming.delta.handles import Handle
from streaming.delta.log_files import LOG
from streaming.delta.log_tail import check_newest, checkpoint_mark
from streaming.delta.remote_log import data_file_names, newest_entry
from streaming.store.place import Place

METADATA_KEY = "flagstream"
_LEAST, _LARGEST = -(2**63), 2**63 - 1
RECENT_COMMITS = 64
_REPEATED = pa.dictionary(pa.int32(), pa.string())
# What rewritings leave on record, as application transactions, which outlive the entries of the log.
REWRITTEN, REMOVED_ROWS, REMOVED_BEFORE = (
    "flagstream/rewritten", "flagstream/removed-rows", "flagstream/removed-before"
)  # fmt: skip
STATISTICS_SLACK = 999  # Delta cuts timestamps in statistics to milliseconds


class StoredTable:
    """A Delta table at one version, to read from.

    Args:
        place: where the table lies.
        table: an open handle.
        schema: Arrow schema that rows are read in.
    """

    def __init__(self, place: Place, table: DeltaTable, schema: pa.Schema) -> None:
        self.place, self.schema, self._handle = place, schema, Handle(table)
        self._checkpoint = checkpoint_mark(place)

    @property
    def version(self) -> int:
        """The version last seen or written by this handle."""
        return self._handle.version

    @property
    def _table(self) -> DeltaTable:
        with table_faults(self.place):
            return self._handle.table()

    def _transaction(self, app_id: str) -> int | None:
        with table_faults(self.place):
            return self._handle.transaction(app_id)

    def read(
        self, column: str, at_least: int, below: int | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Return the rows with `at_least <= column < below`, sorted by `column`, with all columns or some.

        `column` holds integers or timestamps, the bounds are integers or microseconds since 1970 UTC. Files
        are chosen by their recorded minimum and maximum, so a read near the end opens few of them.
        """
        files = self.files(column, at_least, below)
        # Files that Spark wrote hold timestamps in another unit, so each file is cast by itself.
        names = self.schema.names if columns is None else [*dict.fromkeys([column, *columns])]
        kinds = pa.schema([self.schema.field(name) for name in names])
        with read_faults(self.place):
            parts = [_completed(pq.ParquetFile(opened(file)).read(names), kinds) for file in files]
        chosen = [_select(part, column, at_least, below) for part in parts]
        return pa.concat_tables([kinds.empty_table(), *chosen]).sort_by(column)

    def at(self, column: str, values: Ints, columns: Sequence[str]) -> pa.Table:
        """Return the rows whose `column` holds one of `values`, int64[n] ascending, sorted by it.

        Files are chosen by their recorded minimum and maximum, so scattered values open no more of them than
        there are values.
        """
        names = [*dict.fromkeys([column, *columns])]
        kinds, wanted = pa.schema([self.schema.field(name) for name in names]), pa.array(values)
        parts = [kinds.empty_table()]
        for name, low, high in self.ranges(column) if len(values) else ():
            first = 0 if low is None else int(np.searchsorted(values, low))
            if first < len(values) and (high is None or values[first] <= high):
                where = pc.field(column).isin(wanted)
                with read_faults(self.place):
                    parts.append(_completed(_read_file(self.place / name, names, where), kinds))
        return pa.concat_tables(parts).sort_by(column)

    def select(
        self, columns: Sequence[str], where: pc.Expression | None = None, repeated: Sequence[str] = ()
    ) -> pa.Table:
        """Return columns of the rows that fit, in no useful order; files are read one after the other.

        Args:
            columns: their names.
            where: which rows fit, by default all.
            repeated: columns of long texts that many rows share. They come as dictionaries, and each text is
                held once, while it is read as well.
        """
        schema = self.schema
        for name in repeated:
            place = schema.get_field_index(name)
            schema = schema.set(place, schema.field(place).with_type(_REPEATED))
        kinds = pa.schema([schema.field(name) for name in columns])
        with read_faults(self.place):
            parts = [_fitting(self.place / name, columns, schema, where) for name in self._names()]
        return pa.concat_tables([kinds.empty_table(), *parts]).unify_dictionaries()

    def of_files(self, names: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Return columns of all rows of some files, as `ranges` names them."""
        kinds = pa.schema([self.schema.field(name) for name in columns])
        files = [self.place / name for name in names]
        with read_faults(self.place):
            parts = [_completed(pq.ParquetFile(opened(file)).read(list(columns)), kinds) for file in files]
        return pa.concat_tables([kinds.empty_table(), *parts])

    def parts(self, columns: Sequence[str], where: pc.Expression | None = None) -> Iterator[pa.Table]:
        """Read columns of the rows that fit, file by file, each when it is asked for."""
        for name in self._names():
            with read_faults(self.place):
                part = _fitting(self.place / name, columns, self.schema, where)
            yield part

    def _names(self) -> list[str]:
        """Return the table's files, relative to its folder."""
        return cast("list[str]", pa.table(self._table.get_add_actions())["path"].to_pylist())

    def refresh(self) -> None:
        """See what other processes have committed since.

        Raises:
            ConfigurationError: the table has gone over to a later format.
        """
        with read_faults(self.place):
            if not self.keep_up():
                self._look()
                check_format(self.place, self._table)

    def _look(self) -> None:
        with table_faults(self.place):
            self._table.update_incremental()
        self._handle.looked()

    def keep_up(self) -> bool:
        """Open the table anew if its log was shortened: entries that this handle goes back to may be gone.

        In an object store they are kept for an hour at least, see streaming.delta.maintenance, and looking
        costs a request: a handle is brought up to date there once it has not been for a while.
        """
        if not self.place.is_local:
            return self._follow_store() if self._handle.is_old else False
        if checkpoint_mark(self.place) == self._checkpoint:
            return False
        self._reopen()
        return True

    def _follow_store(self) -> bool:
        try:
            self._look()
        except DeltaError:  # entries that it goes back to are gone
            self._reopen()
            return True
        return False

    def _reopen(self) -> None:
        self._checkpoint = checkpoint_mark(self.place)
        self._handle = Handle(self._newest())

    def _newest(self) -> DeltaTable:
        """Open the table as it is now."""
        return newest_version(self.place)

    def maximum(self, column: str) -> int | None:
        """Return the largest value of a column by the files' statistics, None when the table is empty.

        Timestamps come as microseconds since 1970 UTC, cut to the millisecond that statistics keep.
        """
        known = [
            self._largest(name, column) if high is None else high for name, _, high in self.ranges(column)
        ]
        return max((high for high in known if high is not None), default=None)

    def next_number(self, column: str) -> int:
        """Return the number that follows the largest of a column that counts rows from 0."""
        highest = self.maximum(column)
        return 0 if highest is None else highest + 1

    def _largest(self, name: str, column: str) -> int | None:
        with read_faults(self.place):
            values = pq.read_table(opened(self.place / name), columns=[column])[column]
        return cast("int | None", pc.max(_as_integers(values)).as_py())

    def last_batch(self, app_id: str) -> int:
        """Return the highest batch id committed by the stream `app_id`, -1 for none."""
        version = self._transaction(app_id)
        return -1 if version is None else version

    @property
    def rewritten_at(self) -> int:
        """The version that last changed rows or took some out, -1 for none: earlier ones hold other rows."""
        return self.last_batch(REWRITTEN)

    @property
    def removed_rows(self) -> int:
        """How many rows retention has taken out so far."""
        return self._transaction(REMOVED_ROWS) or 0

    @property
    def removed_before(self) -> int:
        """The number below which retention has taken rows out, 0 where it has none."""
        return self._transaction(REMOVED_BEFORE) or 0

    def newest_metadata(self) -> dict[str, Any] | None:
        """Return the facts of the newest commit that carries any, None for a table without."""
        kept = (commit[METADATA_KEY] for commit in self._recorded() if METADATA_KEY in commit)
        newest = next(kept, None)
        return None if newest is None else cast("dict[str, Any]", json.loads(newest))

    def _recorded(self) -> Iterator[Mapping[str, Any]]:
        """Yield what is on record of commits, the newest first; most of those looked for are recent."""
        yield from self._table.history(RECENT_COMMITS)
        yield from self._history()

    def _history(self) -> Iterator[Mapping[str, Any]]:
        yield from self._table.history()

    def count(self) -> int:
        """Return the number of rows."""
        actions = self._table.get_add_actions(flatten=True)
        return sum(pa.table(actions)["num_records"].to_pylist())

    def file_sizes(self) -> list[int]:
        """Return the bytes of each data file."""
        return cast("list[int]", pa.table(self._table.get_add_actions())["size_bytes"].to_pylist())

    def ranges(self, column: str) -> list[tuple[str, int | None, int | None]]:
        """Return each file with the least and largest value of a column, None where no statistics say.

        Files that are known to hold no value of the column are left out. Timestamps are microseconds since
        1970 UTC; the largest may be up to `STATISTICS_SLACK` more than what is recorded.
        """
        actions = pa.table(self._table.get_add_actions(flatten=True))
        unknown: list[int | None] = [None] * actions.num_rows
        low, high, nulls = (
            _as_integers(actions[name]).to_pylist() if name in actions.column_names else unknown
            for name in (f"min.{column}", f"max.{column}", f"null_count.{column}")
        )
        names, counts = (actions[name].to_pylist() for name in ("path", "num_records"))
        files = zip(names, low, high, counts, nulls, strict=True)
        return [(name, least, most) for name, least, most, rows, empty in files if rows != empty]

    def extremes(self, column: str) -> set[str]:
        """Return the least and the largest text of each file in a column, as far as statistics say."""
        actions = pa.table(self._table.get_add_actions(flatten=True))
        names = [name for name in (f"min.{column}", f"max.{column}") if name in actions.column_names]
        return {each for name in names for each in actions[name].drop_null().to_pylist()}

    def files(self, column: str, at_least: int, below: int | None) -> list[Place]:
        """Return the files that may hold rows with `at_least <= column < below`."""
        slack = STATISTICS_SLACK if pa.types.is_timestamp(self.schema.field(column).type) else 0
        return [
            self.place / name
            for name, low, high in self.ranges(column)
            if (high is None or high + slack >= at_least) and (below is None or low is None or low < below)
        ]


def newest_version(place: Place, opened: Callable[[], DeltaTable] | None = None) -> DeltaTable:
    """Open a table at its newest version.

    Args:
        place: where it lies.
        opened: opens it, where not Delta's library does so from there.

    Raises:
        ConfigurationError: it is of a later format.
        DataLossError: its newest log entry is torn, or its log is gone.
        RetryableError: the store that it lies in is away.
        TableNotFoundError: there is none.
        DeltaError: it cannot be opened.
    """
    try:
        with table_faults(place):
            table = (opened or partial(_opened, place))()
    except TableNotFoundError:
        _check_nothing_left(place)
        raise
    except DeltaError:
        _check_newest(place)
        raise
    _check_newest(place, table.version())
    check_format(place, table)
    return table


def _opened(place: Place) -> DeltaTable:
    return DeltaTable(place.uri, storage_options=place.storage_options)


def _check_newest(place: Place, version: int | None = None) -> None:
    """A store shows an entry whole or not at all."""
    if place.is_local:
        check_newest(place, version)


def _check_nothing_left(place: Place) -> None:
    """A table whose log is gone must not count as one that never was."""
    if _data_files(place):
        raise DataLossError(
            f"{place} holds data files, but the log that says which of them count is gone: restore its "
            f"folder `{LOG}` from a copy, or move the table aside to begin a new one"
        )


def _data_files(place: Place) -> Collection[str]:
    if place.is_local:
        return [path.name for path in place.path.glob("*.parquet")]
    return data_file_names(place)


def open_for_reading(place: Place) -> DeltaTable | None:
    """Open a table to read without taking it over; None when it does not exist yet.

    Raises:
        ConfigurationError: it is of a later format.
        DataLossError: its newest log entry is torn.
        MachineError: it cannot be read.
    """
    try:
        return newest_version(place)
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as fault:
        raise MachineError(f"{place} cannot be read: {fault}") from None


def open_version(place: Place, version: int | None = None) -> StoredTable | None:
    """Open a table to read at one version, by default the newest; None when that cannot be read any more.

    A version cannot be read once the log was cleaned up, or the files it consists of were removed.

    Raises:
        ConfigurationError: it is of a later format.
        DataLossError: the newest log entry is torn, and the newest version is asked for.
    """
    try:
        table = newest_version(place) if version is None else _at(place, version)
    except DeltaError:
        return None
    check_format(place, table)
    files = pa.table(table.get_add_actions())["path"].to_pylist()
    if _gone(place, files):
        return None
    return StoredTable(place, table, pa.schema(table.schema()))


def _at(place: Place, version: int) -> DeltaTable:
    with table_faults(place):
        return DeltaTable(place.uri, version=version, storage_options=place.storage_options)


def _gone(place: Place, files: Sequence[str]) -> list[str]:
    """Return those of a version's files that are not there any more."""
    if place.is_local:
        return [name for name in files if not (place / name).path.is_file()]
    there = data_file_names(place)
    return [name for name in files if name not in there]


def why_unreadable(place: Place, version: int) -> str | None:
    """Say why a version cannot be read any more, and what decides how long it is kept; None when it can."""
    try:
        kept = DeltaTable(place.uri, storage_options=place.storage_options).metadata().configuration
    except DeltaError:
        return "the log of the table is gone, or entries of it are missing"
    try:
        files = pa.table(_at(place, version).get_add_actions())["path"].to_pylist()
    except DeltaError:
        name = "delta.logRetentionDuration"
        return f"its log was cleaned up ({name}: {kept.get(name, 'not set')})"
    gone = len(_gone(place, files))
    name = "delta.deletedFileRetentionDuration"
    wanted, retention = count_of(len(files), "file"), kept.get(name, "not set")
    reason = f"{gone} of its {wanted} were vacuumed ({name}: {retention})"
    return reason if gone else None


def read_stored(
    place: Place, columns: Sequence[str] | None = None, where: pc.Expression | None = None
) -> pa.Table | None:
    """Read a table's newest version without taking it over; None when it does not exist yet.

    The files are read directly: reading through Delta's own file system can abort the process when it ends.
    """
    table = open_for_reading(place)
    if table is None:
        return None
    schema = pa.schema(table.schema())
    files = [place / name for name in pa.table(table.get_add_actions())["path"].to_pylist()]
    wanted = list(columns) if columns is not None else schema.names
    # Files that Spark wrote hold timestamps in another unit, so each file is cast by itself.
    kinds = pa.schema([schema.field(name) for name in wanted])
    parts = [_completed(_read_file(file, wanted, where), kinds) for file in files]
    return pa.concat_tables([kinds.empty_table(), *parts])


def change_mark(place: Place, since: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Return what tells one state of a table from another; (0, 0) without one.

    Here it costs microseconds. Clocks of file systems may stand still for a while, so the entries of its log
    are counted, too. In a store it costs a request, which is short where an earlier mark is given.
    """
    if not place.is_local:
        return 1 + newest_entry(place, since[0] - 1), 0
    log = place.path / LOG
    try:
        return log.stat().st_mtime_ns, sum(1 for _ in log.iterdir())
    except OSError:
        return 0, 0


def read_undamaged(place: Place) -> tuple[pa.Table, list[str]] | None:
    """Read what can be read of a table's newest version, with the names of the files that cannot.

    None when there is no table.

    Raises:
        MachineError: the log cannot be read.
    """
    table = open_for_reading(place)
    if table is None:
        return None
    schema = pa.schema(table.schema())
    parts, damaged = [schema.empty_table()], []
    for name in pa.table(table.get_add_actions())["path"].to_pylist():
        try:
            parts.append(pq.read_table(opened(place / name), columns=schema.names).cast(schema))
        except (OSError, pa.ArrowException):
            damaged.append(name)
    return pa.concat_tables(parts), damaged


def _fitting(file: Place, columns: Sequence[str], schema: pa.Schema, where: pc.Expression | None) -> pa.Table:
    """Return columns of a file's rows that fit; columns that came after it was written hold nothing."""
    source = opened(file)
    held = pq.read_schema(source).names
    # A file cannot be searched by a column that it does not have.
    if where is not None and any(name not in held and name in str(where) for name in schema.names):
        return _completed(pq.read_table(source), schema).filter(where).select(list(columns))
    kinds = pa.schema([schema.field(name) for name in columns])
    repeated = [field.name for field in kinds if field.type == _REPEATED and field.name in held]
    return _completed(_read_file(file, columns, where, repeated), kinds)


def _read_file(
    file: Place, columns: Sequence[str], where: pc.Expression | None, repeated: Sequence[str] = ()
) -> pa.Table:
    source = opened(file)
    held = pq.read_schema(source).names
    wanted = [name for name in columns if name in held]
    return pq.read_table(source, columns=wanted, filters=where, read_dictionary=list(repeated))


def _completed(part: pa.Table, kinds: pa.Schema) -> pa.Table:
    """Return a file's rows in a schema; columns that came after the file was written hold nothing."""
    for field in kinds:
        if field.name not in part.column_names:
            part = part.append_column(field, pa.nulls(part.num_rows, field.type))
    return part.select(kinds.names).cast(kinds)


def dataset_of(place: Place, schema: pa.Schema) -> ds.Dataset:
    """Return a table's newest version to be read column by column; empty, of `schema`, when there is none."""
    table = open_for_reading(place)
    if table is None:
        return ds.dataset(schema.empty_table())
    names = pa.table(table.get_add_actions())["path"].to_pylist()
    kinds = pa.schema(pa.schema(table.schema()))
    if not names:
        return ds.dataset(kinds.empty_table())
    files, system = [str(place / name) for name in names], None if place.is_local else file_system()
    return ds.dataset(files, schema=kinds, format="parquet", filesystem=system)


def _as_integers(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("us", tz="UTC"))
    return values.cast(pa.int64())


def _select(rows: pa.Table, column: str, at_least: int, below: int | None) -> pa.Table:
    """Return the rows within bounds, which may lie beyond what 64 bits hold."""
    if at_least > _LARGEST:
        return rows.slice(0, 0)
    values = _as_integers(rows[column])
    keep = pc.greater_equal(values, max(at_least, _LEAST))
    if below is not None and below <= _LARGEST:
        keep = pc.and_(keep, pc.less(values, max(below, _LEAST)))
    return rows.filter(keep)
