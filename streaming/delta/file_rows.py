"""Rows of single data files of a Delta table, in the columns and types that its schema has by now."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streaming.delta.data_files import opened
from streaming.store.place import Place

REPEATED = pa.dictionary(pa.int32(), pa.string())
_LEAST, _LARGEST = -(2**63), 2**63 - 1


def fitting(file: Place, columns: Sequence[str], schema: pa.Schema, where: pc.Expression | None) -> pa.Table:
    """Return columns of a file's rows that fit; columns that came after it was written hold nothing."""
    source = opened(file)
    held = pq.read_schema(source).names
    # A file cannot be searched by a column that it does not have.
    if where is not None and any(name not in held and name in str(where) for name in schema.names):
        return completed(pq.read_table(source), schema).filter(where).select(list(columns))
    kinds = pa.schema([schema.field(name) for name in columns])
    repeated = [field.name for field in kinds if field.type == REPEATED and field.name in held]
    return completed(read_file(file, columns, where, repeated), kinds)


def read_file(
    file: Place, columns: Sequence[str], where: pc.Expression | None, repeated: Sequence[str] = ()
) -> pa.Table:
    """Return those of the columns that a file has, of its rows that fit."""
    source = opened(file)
    held = pq.read_schema(source).names
    wanted = [name for name in columns if name in held]
    return pq.read_table(source, columns=wanted, filters=where, read_dictionary=list(repeated))


def completed(part: pa.Table, kinds: pa.Schema) -> pa.Table:
    """Return a file's rows in a schema; columns that came after the file was written hold nothing."""
    for field in kinds:
        if field.name not in part.column_names:
            part = part.append_column(field, pa.nulls(part.num_rows, field.type))
    return part.select(kinds.names).cast(kinds)


def as_integers(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return integers as they are and timestamps as microseconds since 1970 UTC, int64."""
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("us", tz="UTC"))
    return values.cast(pa.int64())


def within_bounds(rows: pa.Table, column: str, at_least: int, below: int | None) -> pa.Table:
    """Return the rows within bounds, which may lie beyond what 64 bits hold."""
    if at_least > _LARGEST:
        return rows.slice(0, 0)
    values = as_integers(rows[column])
    keep = pc.greater_equal(values, max(at_least, _LEAST))
    if below is not None and below <= _LARGEST:
        keep = pc.and_(keep, pc.less(values, max(below, _LEAST)))
    return rows.filter(keep)
