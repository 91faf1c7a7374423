"""What the newest batches came to: records, seconds by step, and how soon their alerts left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl

from schemas.instants import micros_of
from streaming.arrays.compilation import Floats
from streaming.batch.queries import of_the_stream
from streaming.delta.lake_reader import LakeReader
from streaming.delta.stored import StoredTable

COUNTS = ("read", "stored", "quarantined", "duplicates", "filtered", "late", "alerts")
_COLUMNS = ["query_id", "batch_id", "closed_at", "next_outbox_seq", "durations", *COUNTS]
_BATCH = ["query_id", "batch_id"]
_ALERT = [*_BATCH, "revision", "sequence", "passed_by"]
_MOST_ALERTS = 2_000


@dataclass(frozen=True)
class RecentBatch:
    """One closed batch of the stream.

    Attributes:
        counts: records and alerts by what became of them.
        seconds: by step, in the order of the protocol.
    """

    closed_at: datetime
    counts: dict[str, int]
    seconds: dict[str, float]


@dataclass(frozen=True)
class AlertLatency:
    """Seconds from an event's time on Kafka until its batch was closed, by when its alert was on the topic.

    Attributes:
        alerts: how many count.
        p50, p99: None without any.
    """

    alerts: int = 0
    p50: float | None = None
    p99: float | None = None


@dataclass(frozen=True)
class RecentBatches:
    """The newest batches of the stream, in the order of their closing, and the latency of their alerts."""

    batches: Sequence[RecentBatch] = ()
    latency: AlertLatency = AlertLatency()


def recent_batches(reader: LakeReader, count: int) -> RecentBatches:
    """Read the newest batches of the stream; what was loaded or requeued beside it is left out.

    Args:
        reader: of the lake.
        count: of batches, at most.
    """
    table = reader.table("batches")
    frame = None if table is None else _newest(table, count)
    if frame is None or frame.height == 0:
        return RecentBatches()
    return RecentBatches([_batch(row) for row in frame.to_dicts()], _latency(reader, frame))


def _newest(table: StoredTable, count: int) -> pl.DataFrame:
    closed = pl.DataFrame(table.select(["query_id", "closed_at"])).filter(of_the_stream(pl.col("query_id")))
    if closed.height == 0:
        return closed
    since = closed["closed_at"].sort()[-min(count, closed.height)]
    rows = pl.DataFrame(table.read("closed_at", micros_of(since), columns=_COLUMNS))
    return rows.filter(of_the_stream(pl.col("query_id"))).sort("closed_at", "batch_id").tail(count)


def _batch(row: dict[str, object]) -> RecentBatch:
    closed_at = row["closed_at"]
    assert isinstance(closed_at, datetime)
    counts = {name: int(str(row[name] or 0)) for name in COUNTS}
    return RecentBatch(closed_at.astimezone(UTC), counts, json.loads(str(row["durations"])))


def _latency(reader: LakeReader, batches: pl.DataFrame) -> AlertLatency:
    """An absence counts from the event that made it certain."""
    alerts, payments = reader.table("alerts"), reader.table("transactions")
    if alerts is None or payments is None:
        return AlertLatency()
    ends, counts = batches["next_outbox_seq"].to_list(), batches["alerts"].to_list()
    begins = (end - count for end, count in zip(ends, counts, strict=True))
    first = max(min(begins), max(ends) - _MOST_ALERTS)
    rows = pl.DataFrame(alerts.read("outbox_seq", first, columns=_ALERT)).filter(pl.col("revision") == 1)
    raised = rows.join(batches.select(*_BATCH, "closed_at"), on=_BATCH, how="inner").with_columns(
        sequence=pl.coalesce("passed_by", "sequence")
    )
    wanted = raised["sequence"].unique().sort().to_numpy()
    stamps = pl.DataFrame(payments.at("sequence", wanted, ["kafka_timestamp"]))
    known = raised.join(stamps, on="sequence", how="inner").drop_nulls("kafka_timestamp")
    seconds = (known["closed_at"] - known["kafka_timestamp"]).dt.total_microseconds().to_numpy() / 1e6
    return _percentiles(np.maximum(seconds, 0.0))


def _percentiles(seconds: Floats) -> AlertLatency:
    if len(seconds) == 0:
        return AlertLatency()
    p50, p99 = (float(each) for each in np.percentile(seconds, (50, 99)))
    return AlertLatency(len(seconds), p50, p99)
