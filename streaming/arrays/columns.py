"""Columns of transactions as NumPy arrays, and the ids of entities in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

BETWEEN = "\x1f"  # between the ids of a pair; a control character that ids hardly ever hold


def entity_ids(rows: pa.Table, entities: Sequence[str]) -> pa.ChunkedArray:
    """Return each row's entity, of a pair both ids as one; null where it has none, or not both."""
    if len(entities) == 1:
        return rows[entities[0]]
    return pc.binary_join_element_wise(*(rows[name] for name in entities), BETWEEN)


def numbers(column: pa.ChunkedArray, kind: pa.DataType) -> Any:
    """Return a column as a NumPy array of an Arrow type."""
    return column.cast(kind).to_numpy()


def microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of timestamps in microseconds."""
    return column.cast(pa.timestamp("us", tz=column.type.tz))
