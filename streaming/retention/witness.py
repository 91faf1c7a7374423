"""What time it is by clocks beside this machine's, so that one wrong clock takes no young row away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow.compute as pc

from schemas.instants import moment_of
from streaming.arrays.median_clock import WINDOW
from streaming.batch.queries import BACKFILL
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.store.object_files import ObjectFiles

AHEAD = timedelta(days=7)
"""By how much this machine's clock may go before the others: a stream may rest for some days."""


def witnessed(agent: PlacedAgent) -> datetime | None:
    """Return the time that a clock beside this machine's has noted last; None where none has.

    A store notes when the record was written of who runs an agent, which moves every few seconds. In a
    folder it is Kafka's time of the newest payments, which brokers or senders have set: half of the last 64
    were noted then or before, so that no single sender moves it ahead. History that a backfill loaded is
    dated by its own times and witnesses nothing.

    Raises:
        ConfigurationError: the store does not admit this process.
        RetryableError: it is away.
    """
    if not agent.lake.is_local:
        noted = ObjectFiles(agent.settings.owners).newest_at()
        return None if noted is None else datetime.fromtimestamp(noted, UTC)
    return _noted_by_kafka(LakeReader.of(agent))


def _noted_by_kafka(reader: LakeReader) -> datetime | None:
    transactions = reader.table("transactions")
    newest = None if transactions is None else transactions.maximum("sequence")
    if transactions is None or newest is None:
        return None
    rows = transactions.read("sequence", newest + 1 - WINDOW, columns=["kafka_timestamp", "query_id"])
    rows = rows.filter(pc.invert(pc.starts_with(rows["query_id"], BACKFILL)))
    times = rows["kafka_timestamp"].drop_null().cast("int64")
    median = pc.quantile(times, 0.5, interpolation="lower")[0].as_py()
    return None if median is None else moment_of(median)
