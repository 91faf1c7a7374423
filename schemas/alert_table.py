"""A batch's alerts as rows for Delta, built column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.alert import ALERT_FIELDS, ALERT_KIND, ALERT_VERSION, ALERTS, LATER_FIELDS, REASON_TYPE, Reason

_FLOATS = tuple(each.name for each in ALERT_FIELDS if pa.types.is_floating(each.type))


def entities_array(columns: Mapping[str, Sequence[str | None] | pa.Array | pa.ChunkedArray]) -> pa.MapArray:
    """Turn one column of ids per entity into one map per row, in the mapping's order, without null ids."""
    names = list(columns)
    arrays = [column_of(column, pa.string()) for column in columns.values()]
    rows = len(arrays[0]) if arrays else 0
    present = np.array([each.is_valid().to_numpy(zero_copy_only=False) for each in arrays], np.bool_)
    present = present.reshape(len(names), rows).T
    kinds = np.tile(np.arange(len(names)), rows)[present.ravel()]
    places = np.arange(rows).repeat(len(names))[present.ravel()] + rows * kinds
    items = pa.concat_arrays(arrays).take(pa.array(places)) if arrays else pa.array([], pa.string())
    offsets = np.concatenate([[0], present.sum(axis=1).cumsum()])
    keys = pa.array(names, pa.string()).take(pa.array(kinds))
    return pa.MapArray.from_arrays(pa.array(offsets, pa.int32()), keys, items)


def reasons_array(reasons: Sequence[Sequence[Reason]]) -> pa.ListArray:
    """Turn each row's reasons into one Arrow list column."""
    offsets = [0]
    for each in reasons:
        offsets.append(offsets[-1] + len(each))
    flat = list(chain.from_iterable(reasons))
    names, contributions, texts = zip(*flat, strict=True) if flat else ((), (), ())
    values = pa.StructArray.from_arrays(
        [pa.array(names, pa.string()), pa.array(contributions, pa.float64()), pa.array(texts, pa.string())],
        fields=list(REASON_TYPE),
    )
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=pa.list_(REASON_TYPE))


def alerts_table(columns: Mapping[str, Any], constants: Mapping[str, Any]) -> pa.Table:
    """Build a batch's alerts.

    Args:
        columns: values per row, by field; any of Arrow arrays, NumPy arrays and sequences.
        constants: one value for all rows, by field; version, kind, revision and what was not there from
            the beginning are given unless named.

    Returns:
        A table of schema `ALERTS`, rows in the order given.

    Raises:
        ValueError: a field is missing, unknown, given twice, null without leave, or not finite.
    """
    presumed = {
        "alert_version": ALERT_VERSION, "kind": ALERT_KIND, "revision": 1, **dict.fromkeys(LATER_FIELDS)
    }  # fmt: skip
    fixed = {**{name: value for name, value in presumed.items() if name not in columns}, **constants}
    _check_names(columns, fixed)
    rows = len(next(iter(columns.values())))
    arrays = [
        column_of(columns[name], ALERTS.field(name).type)
        if name in columns
        else _repeated(fixed[name], rows, ALERTS.field(name).type)
        for name in ALERTS.names
    ]
    return _checked(pa.Table.from_arrays(arrays, schema=ALERTS))


def _check_names(columns: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    given = [*columns, *fixed]
    wrong = sorted(set(given) ^ set(ALERTS.names)) or sorted(
        {name for name in given if given.count(name) > 1}
    )
    if wrong:
        raise ValueError(f"alert fields missing, unknown or given twice: {', '.join(wrong)}")


def column_of(values: Any, kind: pa.DataType) -> pa.Array:
    """Return values as one Arrow array of a type."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        return values if values.type == kind else values.cast(kind)
    return pa.array(values, kind)


def _repeated(value: Any, rows: int, kind: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), rows)


def _checked(table: pa.Table) -> pa.Table:
    for each in ALERT_FIELDS:
        if not each.nullable and table[each.name].null_count:
            raise ValueError(f"alert field {each.name!r} must not be null")
    for name in _FLOATS:
        if not pc.all(pc.is_finite(table[name])).as_py() and table.num_rows:
            raise ValueError(f"alert field {name!r} must be finite")
    return table
