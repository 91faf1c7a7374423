"""Confluent's wire format: a zero byte and a schema's id, big-endian, before what a serializer wrote."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from schemas.event_formats import FRAME_BYTES
from streaming.arrays.compilation import Bytes, Flags, Ints, compiled
from streaming.events.found import buffers_of

NO_ID = -1
_FEW = 16


def payload_of(value: bytes) -> bytes | None:
    """Return what follows the frame of one value, None where it has no frame."""
    return value[FRAME_BYTES:] if len(value) >= FRAME_BYTES and value[0] == 0 else None


def payloads(values: pa.Array) -> pa.Array:
    """Return what follows the frames, null for values without one."""
    data, offsets = buffers_of(values)
    out, bounds = np.empty(len(data), np.uint8), np.empty(len(values) + 1, np.int64)
    framed = np.empty(len(values), np.bool_)
    _strip(data, offsets, out, bounds, framed)
    present = pa.array(framed).buffers()[1]
    buffers = [present, pa.py_buffer(bounds), pa.py_buffer(out)]
    return pa.Array.from_buffers(pa.large_binary(), len(values), buffers)


@compiled
def _strip(data: Bytes, offsets: Ints, out: Bytes, bounds: Ints, framed: Flags) -> None:
    to = 0
    bounds[0] = 0
    for row in range(len(framed)):
        at, end = offsets[row], offsets[row + 1]
        framed[row] = end - at >= FRAME_BYTES and data[at] == 0
        if framed[row]:
            for place in range(at + FRAME_BYTES, end):
                out[to] = data[place]
                to += 1
        bounds[row + 1] = to


def id_of(value: bytes) -> int:
    """Return the schema's id of one value, `NO_ID` without a frame."""
    return int.from_bytes(value[1:FRAME_BYTES], "big") if payload_of(value) is not None else NO_ID


def ids_of(values: pa.Array) -> Ints:
    """Return the ids in the frames, int64[n], `NO_ID` for values without one."""
    data, offsets = buffers_of(values)
    ids = np.empty(len(values), np.int64)
    _read_ids(data, offsets, ids)
    return ids


def distinct(ids: Ints) -> list[int]:
    """Return the different ones of some ids, of which there are few nearly always."""
    found: list[int] = []
    while len(ids) and len(found) < _FEW:
        found.append(int(ids[0]))
        ids = ids[ids != ids[0]]
    return [*found, *np.unique(ids).tolist()]


def counted(ids: Ints) -> dict[int, int]:
    """Return how many times each of some ids occurs; there are few different ones nearly always."""
    found: dict[int, int] = {}
    while len(ids) and len(found) < _FEW:
        others = ids[ids != ids[0]]
        found[int(ids[0])] = len(ids) - len(others)
        ids = others
    rest, times = np.unique(ids, return_counts=True)
    return found | dict(zip(rest.tolist(), times.tolist(), strict=True))


@compiled
def _read_ids(data: Bytes, offsets: Ints, ids: Ints) -> None:
    for row in range(len(ids)):
        at = offsets[row]
        ids[row] = NO_ID
        if offsets[row + 1] - at >= FRAME_BYTES and data[at] == 0:
            ids[row] = (
                (np.int64(data[at + 1]) << 24)
                | (np.int64(data[at + 2]) << 16)
                | (np.int64(data[at + 3]) << 8)
                | np.int64(data[at + 4])
            )
