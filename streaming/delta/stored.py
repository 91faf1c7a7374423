"""Reads Delta tables without taking them over: rows in order, files chosen by their statistics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from streaming.arrays.compilation import Ints
from streaming.delta.data_files import opened
from streaming.delta.faults import read_faults, table_faults
from streaming.delta.file_rows import REPEATED, as_integers, completed, fitting, read_file, within_bounds
from streaming.delta.formats import check_format
from streaming.delta.handles import Handle
from streaming.delta.log_tail import checkpoint_mark, entry_mark, entry_path
from streaming.delta.table_versions import gone_files, newest_version, version_at
from streaming.store.place import Place

METADATA_KEY = "flagstream"
RECENT_COMMITS = 64
# What rewritings leave on record, as application transactions, which outlive the entries of the log.
REWRITTEN, REMOVED_ROWS, REMOVED_BEFORE = (
    "flagstream/rewritten", "flagstream/removed-rows", "flagstream/removed-before"
)  # fmt: skip
FileRange = tuple[str, int | None, int | None]  # a file, and the least and the largest of its values
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
        self._entry = self.version, entry_mark(place, self.version)
        self._ranges: tuple[pa.Table | None, dict[str, list[FileRange]]] = (None, {})

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
            parts = [completed(pq.ParquetFile(opened(file)).read(names), kinds) for file in files]
        chosen = [within_bounds(part, column, at_least, below) for part in parts]
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
                    parts.append(completed(read_file(self.place / name, names, where), kinds))
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
            schema = schema.set(place, schema.field(place).with_type(REPEATED))
        kinds = pa.schema([schema.field(name) for name in columns])
        with read_faults(self.place):
            parts = [fitting(self.place / name, columns, schema, where) for name in self._names()]
        return pa.concat_tables([kinds.empty_table(), *parts]).unify_dictionaries()

    def of_files(self, names: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Return columns of all rows of some files, as `ranges` names them."""
        kinds = pa.schema([self.schema.field(name) for name in columns])
        files = [self.place / name for name in names]
        with read_faults(self.place):
            parts = [completed(pq.ParquetFile(opened(file)).read(list(columns)), kinds) for file in files]
        return pa.concat_tables([kinds.empty_table(), *parts])

    def parts(self, columns: Sequence[str], where: pc.Expression | None = None) -> Iterator[pa.Table]:
        """Read columns of the rows that fit, file by file, each when it is asked for."""
        for name in self._names():
            with read_faults(self.place):
                part = fitting(self.place / name, columns, self.schema, where)
            yield part

    def _names(self) -> list[str]:
        """Return the table's files, relative to its folder."""
        return cast("list[str]", self._add_actions()["path"].to_pylist())

    def _add_actions(self) -> pa.Table:
        with table_faults(self.place):
            return self._handle.files()

    def refresh(self) -> None:
        """See what other processes have committed since; where they have not, nothing is opened.

        Raises:
            ConfigurationError: the table has gone over to a later format.
        """
        with read_faults(self.place):
            if self._is_replaced():
                self._reopen()
            elif not self.keep_up():
                if self._is_last():
                    return
                self._refresh_table()
                check_format(self.place, self._table)
            self._entry = self.version, entry_mark(self.place, self.version)

    def _is_replaced(self) -> bool:
        """Whether the entry last seen is another one by now, as where the table was restored from a copy."""
        version, mark = self._entry
        return version == self.version and mark is not None and mark != entry_mark(self.place, version)

    @property
    def is_newest(self) -> bool:
        """Whether nothing was committed since, as its log on the disk tells; False in a store."""
        is_same = checkpoint_mark(self.place) == self._checkpoint and not self._is_replaced()
        return self.place.is_local and is_same and self._is_last()

    def _is_last(self) -> bool:
        """Whether no entry follows the one last seen; False where its log would have to be opened to tell."""
        version, mark = self._entry
        is_known = mark is not None and version == self.version
        return is_known and not entry_path(self.place, version + 1).exists()

    def _refresh_table(self) -> None:
        with table_faults(self.place):
            self._handle.refresh()

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
            self._refresh_table()
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
        return cast("int | None", pc.max(as_integers(values)).as_py())

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
        return sum(self._add_actions()["num_records"].to_pylist())

    def file_sizes(self) -> list[int]:
        """Return the bytes of each data file."""
        return cast("list[int]", self._add_actions()["size_bytes"].to_pylist())

    def ranges(self, column: str) -> Sequence[FileRange]:
        """Return each file with the least and largest value of a column, None where no statistics say.

        Files that are known to hold no value of the column are left out. Timestamps are microseconds since
        1970 UTC; the largest may be up to `STATISTICS_SLACK` more than what is recorded.
        """
        actions, known = self._add_actions(), self._ranges
        if known[0] is not actions:
            known = self._ranges = (actions, {})
        if column not in known[1]:
            known[1][column] = _ranges_of(actions, column)
        return known[1][column]

    def extremes(self, column: str) -> set[str]:
        """Return the least and the largest text of each file in a column, as far as statistics say."""
        actions = self._add_actions()
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


def _ranges_of(actions: pa.Table, column: str) -> list[FileRange]:
    unknown: list[int | None] = [None] * actions.num_rows
    low, high, nulls = (
        as_integers(actions[name]).to_pylist() if name in actions.column_names else unknown
        for name in (f"min.{column}", f"max.{column}", f"null_count.{column}")
    )
    names, counts = (actions[name].to_pylist() for name in ("path", "num_records"))
    files = zip(names, low, high, counts, nulls, strict=True)
    return [(name, least, most) for name, least, most, rows, empty in files if rows != empty]


def open_version(place: Place, version: int | None = None) -> StoredTable | None:
    """Open a table to read at one version, by default the newest; None when that cannot be read any more.

    A version cannot be read once the log was cleaned up, or the files it consists of were removed.

    Raises:
        ConfigurationError: it is of a later format.
        DataLossError: the newest log entry is torn, and the newest version is asked for.
    """
    try:
        table = newest_version(place) if version is None else version_at(place, version)
    except DeltaError:
        return None
    check_format(place, table)
    files = pa.table(table.get_add_actions())["path"].to_pylist()
    if gone_files(place, files):
        return None
    return StoredTable(place, table, pa.schema(table.schema()))
