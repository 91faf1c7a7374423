"""Kafka records as the table that is decoded: those of a topic, and those made from files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa

from schemas.tables import HEADERS, UTC_MICROS

RECORDS = pa.schema(
    [
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", HEADERS),
        pa.field("topic", pa.string()),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("timestamp", UTC_MICROS),
    ]
)


def record_table(
    keys: Sequence[bytes | None], values: Sequence[bytes | None], *, topic: str, first: int, sent_at: datetime
) -> pa.Table:
    """Return records without headers on partition 0 of a topic, as schema `RECORDS`.

    Args:
        keys: one per record, as many as values.
        first: offset of the first one.
        sent_at: timestamp of all.
    """
    count = len(values)
    columns = [
        pa.array(keys, pa.binary()),
        pa.array(values, pa.binary()),
        pa.nulls(count, HEADERS),
        pa.repeat(pa.scalar(topic), count),
        pa.repeat(pa.scalar(0, pa.int32()), count),
        pa.array(np.arange(first, first + count)),
        pa.repeat(pa.scalar(sent_at, UTC_MICROS), count),
    ]
    return pa.Table.from_arrays(columns, schema=RECORDS)
