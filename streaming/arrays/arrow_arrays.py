"""Between NumPy arrays and the Arrow columns they are saved as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from streaming.arrays.compilation import Bytes, Flags, Ints
from streaming.arrays.entity_index import Ids

Saved = Mapping[str, pa.RecordBatch]


def id_column(ids: Ids) -> pa.LargeBinaryArray:
    """Return entity ids as a column."""
    data, offsets = ids
    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


def ids_of(column: pa.LargeBinaryArray) -> Ids:
    """Return the entity ids of a column that id_column made."""
    _, offsets, data = column.buffers()
    bounds: Ints = np.zeros(1, np.int64)
    if len(column):
        bounds = np.frombuffer(offsets, np.int64)[: len(column) + 1]
    content: Bytes = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return Ids(content[: bounds[-1]], bounds)


def worth_packing(alive: Flags) -> bool:
    """Return whether enough of the slots, bool[slots], are free to move the others together."""
    return len(alive) - int(alive.sum()) > len(alive) // 8


def kept_ids(ids: Ids, kept: Flags) -> Ids:
    """Return the ids marked in `kept`, bool[ids]."""
    return ids_of(id_column(ids).filter(pa.array(kept)))


def matrix_column(matrix: np.ndarray[Any, Any]) -> pa.FixedSizeListArray:
    """Return a matrix, or all but the first dimension of an array flattened, as a column of lists."""
    width = int(np.prod(matrix.shape[1:], dtype=np.int64))
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), width)


def matrix_of(column: pa.FixedSizeListArray) -> Any:
    """Return the matrix of a column that matrix_column made."""
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size)
