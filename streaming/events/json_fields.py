"""Finds the wanted fields of JSON values with the compiled scanner."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from schemas.event_formats import FRAME_BYTES
from streaming.arrays.compilation import Flags
from streaming.events import json_scan
from streaming.events.found import Found, buffers_of
from streaming.events.framing import payloads
from streaming.events.paths import tree_of

_FEW_ROWS = 64


class JsonFinder:
    """Finds fields of JSON values, see found.FieldFinder.

    Args:
        paths: of the wanted fields.
        longest: bytes that a value may have.
        framed: a frame of a schema registry comes first.
        column: of the records, that holds the JSON.
    """

    def __init__(self, paths: Sequence[str], longest: int, *, framed: bool, column: str = "value") -> None:
        self._count, self._tree = len(paths), tree_of(paths)
        self._column = column
        self._longest, self._framed = longest - FRAME_BYTES if framed else longest, framed

    def find(self, records: pa.RecordBatch) -> tuple[Sequence[Found], Flags]:
        """See found.FieldFinder."""
        written = records[self._column]
        values = payloads(written) if self._framed else written
        data, offsets = buffers_of(values)
        lengths = np.diff(offsets)
        vouched = (lengths <= self._longest) & (lengths > 0)
        clear_broken_text(values, vouched)
        kinds = np.zeros((self._count, len(values)), np.int8)
        starts, ends = (np.zeros((self._count, len(values)), np.int64) for _ in range(2))
        json_scan.scan(data, offsets, self._tree, vouched, kinds, starts, ends)
        return [Found(data, *each) for each in zip(kinds, starts, ends, strict=True)], vouched


def clear_broken_text(values: pa.Array, plain: Flags) -> None:
    """Clear `plain` where values are null or not in UTF-8, which costs little where all of them are."""
    if values.null_count:
        plain &= values.is_valid().to_numpy(zero_copy_only=False)
    try:
        values.cast(pa.large_string())
    except pa.ArrowInvalid:
        _clear_invalid_utf8(values, plain)


def _clear_invalid_utf8(values: pa.Array, plain: Flags) -> None:
    """Find the rows that are to blame by halves, so that a few of them cost little."""
    if len(values) <= _FEW_ROWS:
        plain &= [_is_utf8(value) for value in values.to_pylist()]
        return
    middle = len(values) // 2
    for half, flags in ((values[:middle], plain[:middle]), (values[middle:], plain[middle:])):
        try:
            half.cast(pa.large_string())
        except pa.ArrowInvalid:
            _clear_invalid_utf8(half, flags)


def _is_utf8(value: bytes | None) -> bool:
    try:
        (value or b"").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
