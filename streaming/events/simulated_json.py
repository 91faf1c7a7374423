"""Simulated payments as the records of a topic: JSON, now and then broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import orjson
import polars as pl
import pyarrow as pa

from streaming.events.simulator import SimulatedBlock


def json_lines(block: SimulatedBlock) -> list[bytes]:
    """Return the records to send, one per entry of `block.sends`, as the bytes of a JSON event."""
    lines = json_rows(block.events)
    sent = [lines[row] for row in block.sends.tolist()]
    for place in np.flatnonzero(block.faults).tolist():
        sent[place] = _BREAKAGES[int(block.faults[place]) - 1](sent[place])
    return sent


def json_keys(block: SimulatedBlock) -> list[bytes]:
    """Return the Kafka key of each record of `json_lines`: the customer."""
    keys = block.events["customer_id"].cast(pa.binary()).to_pylist()
    return [keys[row] for row in block.sends.tolist()]


def json_rows(table: pa.Table) -> list[bytes]:
    """Return each row as one JSON object with the columns as keys, nulls included."""
    if not table.num_rows:
        return []
    frame = cast(pl.DataFrame, pl.from_arrow(table))
    encoded = frame.select(pl.struct(pl.all()).struct.json_encode()).to_series()
    return cast("list[bytes]", encoded.to_arrow().cast(pa.large_binary()).to_pylist())


def _truncated(line: bytes) -> bytes:
    return line[: len(line) // 2]


def _with(changes: dict[str, object]) -> Callable[[bytes], bytes]:
    return lambda line: orjson.dumps({**orjson.loads(line), **changes})


_BREAKAGES: tuple[Callable[[bytes], bytes], ...] = (
    _truncated,
    _with({"customer_id": {"id": 1}}),
    _with({"amount": "twelve"}),
    _with({"amount": -1.0}),
)
