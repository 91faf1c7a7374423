"""Reads Delta tables as a whole, at their newest version, without taking them over."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from streaming.delta.data_files import file_system, opened
from streaming.delta.file_rows import completed, read_file
from streaming.delta.table_versions import open_for_reading
from streaming.store.place import Place


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
    parts = [completed(read_file(file, wanted, where), kinds) for file in files]
    return pa.concat_tables([kinds.empty_table(), *parts])


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
