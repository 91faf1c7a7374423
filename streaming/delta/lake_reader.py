"""The one reading side: an agent's tables, read beside whoever writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import ConfigurationError
from schemas.lake_tables import TABLES, Table
from schemas.spec import AgentSpec, TableNames
from streaming.delta.stored import StoredTable, open_version
from streaming.delta.table_versions import open_for_reading
from streaming.store.place import Place


class HasLake(Protocol):
    """An agent with a lake, such as a PlacedAgent."""

    @property
    def lake(self) -> Place:
        """Where its tables lie."""

    @property
    def spec(self) -> AgentSpec:
        """What says how they are called."""


class AgentLake(NamedTuple):
    """A lake by itself, such as the one that a snapshot is, and the spec that names its tables."""

    lake: Place
    spec: AgentSpec


class LakeReader:
    """Reads the tables of one lake, and takes nothing over.

    A reader sees a table at the version at which it has first opened it: what it reads of one table belongs
    together, whatever is committed meanwhile.

    Args:
        lake: where its tables lie.
        names: what its tables are called.
    """

    def __init__(self, lake: Place, names: TableNames) -> None:
        self.lake, self._names = lake, names
        self._opened: dict[Table, StoredTable | None] = {}

    @classmethod
    def of(cls, agent: HasLake) -> LakeReader:
        """Return a reader of an agent's lake."""
        return cls(agent.lake, agent.spec.tables)

    def anew(self) -> LakeReader:
        """Return a reader of the same lake that sees it as it is now."""
        return LakeReader(self.lake, self._names)

    def renewed(self) -> LakeReader:
        """Return the same as `anew` does; tables without a commit since are shared, and not opened again.

        Nobody who reads by either may refresh a table that it gives.
        """
        found, opened = self.anew(), self._opened.copy()
        found._opened = {name: each for name, each in opened.items() if each is not None and each.is_newest}
        return found

    def refresh(self) -> None:
        """See the tables that were opened as they are now, and those that were not there as new.

        Whoever reads by this reader at the moment may see either: it is for one that nobody else has.

        Raises:
            FlagstreamError: see `table`.
        """
        self._opened = {name: each for name, each in self._opened.items() if each is not None}
        for each in list(self._opened.values()):
            if each is not None:
                each.refresh()

    def place(self, table: Table | str) -> Place:
        """Return where a declared table lies, which may not be there yet."""
        return self.lake / str(getattr(self._names, table))

    def table(self, table: Table) -> StoredTable | None:
        """Return a table to be read from, None where there is none yet.

        Raises:
            ConfigurationError: it is of a later format.
            DataLossError: its newest log entry is torn.
            MachineError: it cannot be read.
        """
        if table not in self._opened:
            self._opened[table] = self._open(table)
        return self._opened[table]

    def at(self, table: Table, version: int | None = None) -> StoredTable | None:
        """Return a table as it lies at one version, by default now, without columns that came later.

        None where there is no such table, or that version cannot be read any more.

        Raises:
            See streaming.delta.stored.open_version.
        """
        return open_version(self.place(table), version)

    def rows(
        self,
        table: Table,
        columns: Sequence[str],
        where: pc.Expression | None = None,
        repeated: Sequence[str] = (),
    ) -> pa.Table:
        """Return some columns of a table's rows, those that fit, in no useful order; none without a table.

        Files are read one after the other, the columns asked for alone. Columns that came after a row was
        written are null in it. See StoredTable.select for `repeated`.

        Raises:
            ConfigurationError: the table has no such column, so it is another one than its name says.
        """
        found = self.table(table)
        if found is None:
            return _nothing(table, columns)
        return _selected(found, table, columns, where, repeated)

    def first(self, table: Table, columns: Sequence[str], where: pc.Expression) -> pa.Table:
        """Return one of the rows that fit, none where none does; no more files are opened than it takes."""
        found = self.table(table)
        parts = iter(()) if found is None else found.parts(columns, where)
        some = next((part for part in parts if part.num_rows), _nothing(table, columns))
        return some.slice(0, 1)

    def frame(
        self,
        table: Table,
        columns: Sequence[str],
        where: pc.Expression | None = None,
        repeated: Sequence[str] = (),
    ) -> pl.DataFrame:
        """Return the same as `rows` does, as a frame; see StoredTable.select for `repeated`."""
        return pl.DataFrame(self.rows(table, columns, where, repeated))

    def version(self, table: Table) -> int:
        """Return the version at which a table is seen, -1 where there is none."""
        found = self.table(table)
        return -1 if found is None else found.version

    def count(self, table: Table) -> int:
        """Return how many rows a table has, by its log alone."""
        found = self.table(table)
        return 0 if found is None else found.count()

    def removed(self, table: Table) -> tuple[int, int]:
        """Return how many rows retention has taken out of a table, and below which number."""
        found = self.table(table)
        return (0, 0) if found is None else (found.removed_rows, found.removed_before)

    def _open(self, table: Table) -> StoredTable | None:
        return open_declared(self.place(table), table)


def declared_rows(
    place: Place, table: Table, columns: Sequence[str], where: pc.Expression | None = None
) -> pa.Table:
    """Return columns of the rows that fit of a declared table as it is now, none without one.

    Raises:
        See LakeReader.table and LakeReader.rows.
    """
    found = open_declared(place, table)
    return _nothing(table, columns) if found is None else _selected(found, table, columns, where)


def open_declared(place: Place, table: Table) -> StoredTable | None:
    """Open a declared table, with the columns that came later; None without one.

    Raises:
        See LakeReader.table.
    """
    handle = open_for_reading(place)
    if handle is None:
        return None
    defined, stored = TABLES[table], pa.schema(pa.schema(handle.schema()))
    later = [defined.schema.field(name) for name in defined.later if name not in stored.names]
    return StoredTable(place, handle, pa.schema([*stored, *later]))


def _selected(
    found: StoredTable,
    table: Table,
    columns: Sequence[str],
    where: pc.Expression | None = None,
    repeated: Sequence[str] = (),
) -> pa.Table:
    missing = [name for name in columns if name not in found.schema.names]
    if missing:
        raise ConfigurationError(
            f"this is another table than {table!r}: it has no column {missing[0]!r}; put back the "
            "table that belongs here, or give the agent another name for it, under `tables` of its spec",
            where=str(found.place),
        )
    return found.select(columns, where, repeated)


def _nothing(table: Table, columns: Sequence[str]) -> pa.Table:
    """Of `transactions` a contract says more columns than are declared: its entities, as text."""
    known = TABLES[table].schema
    fields = [known.field(name) if name in known.names else pa.field(name, pa.string()) for name in columns]
    return pa.schema(fields).empty_table()
