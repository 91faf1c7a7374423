"""What compiled scanners find in records: where the value of each wanted field lies, and of which kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.arrays.compilation import Bytes, Flags, Ints, read_only


@dataclass(frozen=True)
class Found:
    """What was found of one field: one entry per row of the block.

    Attributes:
        data: uint8, the bytes that the values lie in.
        kinds: int8[n], see json_strings.
        starts: int64[n], first byte of each value, quotes left out.
        ends: int64[n], first byte after it.
    """

    data: Bytes
    kinds: npt.NDArray[np.int8]
    starts: Ints
    ends: Ints


class FieldFinder(Protocol):
    """Finds the wanted fields of a block of records."""

    def find(self, records: pa.RecordBatch) -> tuple[Sequence[Found], Flags]:
        """Return what was found of each field, and which rows are vouched for (bool[n])."""
        ...


def buffers_of(values: pa.Array) -> tuple[Bytes, Ints]:
    """Return the bytes of binary values, and where each begins (int64[n + 1])."""
    wide = values.cast(pa.large_binary())
    _, offsets, data = wide.buffers()
    bounds = np.frombuffer(offsets, np.int64)[wide.offset : wide.offset + len(wide) + 1]
    content = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    return read_only(content), np.ascontiguousarray(bounds)
