"""Conditions over rows: where one holds, also where it fails on some of them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from streaming.arrays.compilation import Flags

CANNOT_JUDGE = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


def plain_frame(table: pa.Table) -> pl.DataFrame:
    """Return a table as conditions see it: times without their zone, which is always UTC.

    So they can be compared with plain literals.
    """
    plain = [pa.field(field.name, _without_zone(field.type)) for field in table.schema]
    return pl.DataFrame(pl.from_arrow(table.cast(pa.schema(plain))))


def judged_apart(frame: pl.DataFrame, condition: pl.Expr) -> tuple[Flags, bool]:
    """Return where a condition holds, bool[rows], and whether it could be judged everywhere.

    A row on which it fails counts as one where it does not hold, however the rows around it are cut. Rows
    that are equal in all that it names are judged as one.

    Args:
        frame: as plain_frame gives it.
        condition: of truths, never null.
    """
    rows = _equal_rows(frame.select(set(condition.meta.root_names())))
    held, whole = _by_halves(frame[rows.list.first()], condition)
    flags = np.zeros(frame.height, np.bool_)
    flags[rows.explode().to_numpy()] = np.repeat(held, rows.list.len().to_numpy())
    return flags, whole


def _equal_rows(frame: pl.DataFrame) -> pl.Series:
    """Return the numbers of rows that are equal, as one list each."""
    keys = {str(place): pl.col(name) for place, name in enumerate(frame.columns)}
    # Zeros of either sign are equal, and a division by them is not.
    floats = (name for name, kind in frame.schema.items() if kind.is_float())
    keys |= {f"1/{place}": 1 / pl.col(name) for place, name in enumerate(floats)}
    numbered = frame.select(**keys).with_row_index("row")
    return numbered.group_by(list(keys), maintain_order=True).agg("row")["row"]


def _by_halves(frame: pl.DataFrame, condition: pl.Expr) -> tuple[Flags, bool]:
    try:
        return frame.select(condition.alias("held"))["held"].to_numpy(), True
    except CANNOT_JUDGE:
        middle = frame.height // 2
    if not middle:
        return np.zeros(frame.height, np.bool_), False
    parts = [_by_halves(each, condition)[0] for each in (frame[:middle], frame[middle:])]
    return np.concatenate(parts), False


def _without_zone(kind: pa.DataType) -> pa.DataType:
    return pa.timestamp(kind.unit) if pa.types.is_timestamp(kind) else kind
