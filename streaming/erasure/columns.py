"""Columns of texts, however they are nested: searched by compiled code, changed where something is found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Marks = npt.NDArray[np.bool_]
_NEVER_NULL = frozenset({"canonical_input", "rationale"})
_BINARY = (pa.types.is_binary, pa.types.is_large_binary)
_TEXT = (pa.types.is_string, pa.types.is_large_string, *_BINARY)


def may_hold(column: pa.ChunkedArray, needles: Collection[str]) -> bool:
    """Return whether any of some texts stands in a column, in any case of its letters."""
    return any(_holds(leaf, needle) for leaf in _leaves(column) for needle in needles)


def marked(column: pa.ChunkedArray, fits: Callable[[str], bool]) -> Marks:
    """Return where a text fits, bool[n]; equal ones are asked about once."""
    distinct = pc.unique(column).to_pylist()
    found = pa.array([each for each in distinct if each is not None and fits(each)], column.type)
    return np.asarray(pc.is_in(column, value_set=found).to_numpy(), np.bool_)


def mapped(column: pa.ChunkedArray, change: Callable[[Any], Any]) -> pa.ChunkedArray:
    """Return a column with each value changed that is not null; equal texts are changed once."""
    known: dict[str | bytes, Any] = {}

    def changed(value: Any) -> Any:
        if not isinstance(value, str | bytes):
            return change(value)
        if value not in known:
            known[value] = change(value)
        return known[value]

    values = [None if value is None else changed(value) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(values, column.type)])


def differences(before: pa.ChunkedArray, after: pa.ChunkedArray) -> Marks:
    """Return where two columns differ, bool[n]."""
    pairs = zip(before.to_pylist(), after.to_pylist(), strict=True)
    return np.array([one != other for one, other in pairs], np.bool_)


def emptied(rows: pa.Table, names: Sequence[str], where: Marks) -> pa.Table:
    """Take the content of columns out of some rows: null, an empty list, or a text without characters."""
    for name in names:
        place = rows.schema.get_field_index(name)
        field = rows.schema.field(place)
        empty: Any = "" if not field.nullable or name in _NEVER_NULL else None
        empty = [] if pa.types.is_list(field.type) and name not in ("headers",) else empty
        values = zip(rows[name].to_pylist(), where.tolist(), strict=True)
        left = [empty if gone and value is not None else value for value, gone in values]
        rows = rows.set_column(place, field, pa.chunked_array([pa.array(left, field.type)]))
    return rows


def deep(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [deep(each, change) for each in value]
    if isinstance(value, tuple):
        return tuple(deep(each, change) for each in value)
    return {name: deep(each, change) for name, each in value.items()} if isinstance(value, dict) else value


def _holds(leaf: pa.ChunkedArray, needle: str) -> bool:
    if any(check(leaf.type) for check in _BINARY):
        return bool(pc.any(pc.match_substring(leaf, needle.encode())).as_py())
    return bool(pc.any(pc.match_substring(leaf, needle, ignore_case=True)).as_py())


def _leaves(column: pa.ChunkedArray) -> list[pa.ChunkedArray]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _leaves(column.cast(kind.value_type))
    if pa.types.is_map(kind):
        parts = [part for chunk in column.chunks for part in (chunk.keys, chunk.items)]
        return [leaf for part in parts for leaf in _leaves(pa.chunked_array([part]))]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _leaves(pc.list_flatten(column))
    if pa.types.is_struct(kind):
        return [leaf for name in range(kind.num_fields) for leaf in _leaves(pc.struct_field(column, [name]))]
    return [column] if any(check(kind) for check in _TEXT) else []
