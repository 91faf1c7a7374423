"""Rows that benchmarks make up: a few columns are given, the others hold what costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from streaming.delta.lake_table import LakeTable, Stamp


def made_rows(schema: pa.Schema, known: Mapping[str, Any]) -> pa.Table:
    """Return rows of a table.

    Args:
        schema: of the table.
        known: column → its values, or one for all rows; columns that are not given hold a zero or nothing.
            The first that is an array says how many rows there are.
    """
    count = next(len(each) for each in known.values() if isinstance(each, np.ndarray | pa.Array))
    columns = {field.name: _column(field, known.get(field.name), count) for field in schema}
    return pa.table(columns, schema=schema)


def append_made(
    table: LakeTable, number: int, known: Mapping[str, Any], facts: dict[str, Any] | None = None
) -> None:
    """Append rows as commit `number` of a writer of the benchmarks; `known` as in made_rows."""
    table.append(made_rows(table.schema, known), Stamp("bench/bench", number), facts)


def _column(field: pa.Field, values: object, count: int) -> pa.Array:
    if isinstance(values, np.ndarray | pa.Array):
        return pa.array(values).cast(field.type)
    if values is not None:
        return pa.repeat(pa.scalar(values, field.type), count)
    if field.nullable:
        return pa.nulls(count, field.type)
    empty = {"string": "", "double": 0.0}.get(str(field.type), [] if pa.types.is_nested(field.type) else 0)
    return pa.array([empty] * count, field.type)
