"""Which batches the streaming query decided, and which came beside it: of history, or of the quarantine."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, cast

import polars as pl

from schemas.batch_key import BatchKey
from schemas.errors import DataLossError
from streaming.delta.stored import StoredTable

BACKFILL = "backfill-"
REQUEUE = "requeue-"
_ID_CHARACTERS = 12
LOSS = "loss-"  # a batch of no records, which says that some were given up and where the stream goes on
BEGIN = "begin-"  # a batch of no records, which says where a stream begins that is read from its end
MOVE = "move-"  # a batch of no records, which says on which topic alerts leave from now on
_BESIDE = (BACKFILL, REQUEUE, MOVE)  # Spark calls its queries by UUIDs


def of_the_stream(query_id: pl.Expr) -> pl.Expr:
    """Return whether batches were decided by the streaming query, so that their offsets are the topic's."""
    return ~pl.any_horizontal(*(query_id.str.starts_with(prefix) for prefix in _BESIDE))


def requeue(query_id: pl.Expr) -> pl.Expr:
    """Return whether batches took records out of the quarantine."""
    return query_id.str.starts_with(REQUEUE)


def new_query(prefix: str) -> str:
    """Return a name that no other query has, for a batch decided beside the stream."""
    return f"{prefix}{uuid.uuid4().hex[:_ID_CHARACTERS]}"


def stamp_of(agent: str, query_id: str) -> str:
    """Return the application id under which batches of a query are committed."""
    return f"{agent}/{query_id}"


def newest_batch(batches: StoredTable, columns: Sequence[str]) -> dict[str, Any] | None:
    """Return columns of the batch closed last, None before the first."""
    highest = batches.maximum("next_sequence")
    if highest is None:
        return None
    rows = batches.read("next_sequence", highest, columns=[*columns, "closed_at"])
    return cast("dict[str, Any]", rows.sort_by("closed_at").select(list(columns)).to_pylist()[-1])


def newest_of_the_stream(batches: StoredTable) -> dict[str, Any]:
    """Return the row of the batch that the streaming query closed last, empty where it has closed none.

    It is looked for from the end backwards: what was closed before it is not read.
    """
    columns = ["query_id", "batch_id", "closed_at", "offsets", "topic_ids"]
    highest, span = batches.maximum("next_sequence"), 1
    while highest is not None:
        rows = pl.DataFrame(batches.read("next_sequence", highest + 1 - span, columns=columns))
        found = rows.filter(of_the_stream(pl.col("query_id"))).sort("next_sequence", "closed_at")
        if found.height:
            return found.row(-1, named=True)
        if span > highest:
            break
        span *= 16
    return {}


def check_same_offsets(batches: StoredTable, key: BatchKey, planned: Mapping[str, Mapping[str, int]]) -> None:
    """Check that a closed batch is planned as it was closed.

    A checkpoint set back plans a closed batch anew, perhaps with more records, which would be lost.

    Raises:
        DataLossError: it is not.
    """
    rows = batches.read("batch_id", key.batch_id, key.batch_id + 1, ["query_id", "offsets"]).to_pylist()
    closed = [json.loads(row["offsets"]) for row in rows if row["query_id"] == key.query_id]
    if closed and closed[0] != planned:
        raise DataLossError(
            f"batch {key.batch_id} was closed at offsets {closed[0]}, Spark's checkpoint now ends it at "
            f"{planned}: the checkpoint was set back; remove it to resume from the lake's own offsets"
        )
