"""What a streaming query reads and from where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import DataLossError
from schemas.subscription import Subscription
from streaming.kafka.source import last_committed, last_planned, query_id_of

Offsets = dict[str, dict[str, int]]


@dataclass(frozen=True)
class StreamSettings:
    """What the query reads and where Spark keeps its checkpoint.

    Attributes:
        starting: where it begins without a checkpoint, for Spark.
        reached: topic → partition → next offset to read by the newest batch, None before the first.
        topic_ids: of the topics that the newest batch was read from, as far as they are on record.
        superseded: what the checkpoint was to read has been given up since.
        settled: no batch that the checkpoint has planned is still to be closed.
        accept_loss: why records that a topic no longer holds may be given up, None where they may not.
    """

    bootstrap: str
    reads: Subscription
    checkpoint: Path
    max_records: int
    max_bytes: int
    starting: str
    reached: Offsets | None = None
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    superseded: bool = False
    settled: bool = True
    accept_loss: str | None = None


def is_settled(checkpoint: Path, closed: Mapping[str, int]) -> bool:
    """Say whether every batch that Spark has planned is closed.

    Args:
        checkpoint: Spark's checkpoint folder.
        closed: query id → highest closed batch id, from the `batches` table.
    """
    planned = last_planned(checkpoint)
    return planned is None or closed.get(query_id_of(checkpoint) or "", -1) >= planned


def starting_offsets(
    checkpoint: Path, closed: Mapping[str, int], newest_offsets: str | None, configured: str
) -> str:
    """Decide where the source starts, and refuse a checkpoint and a lake that do not belong together.

    Args:
        checkpoint: Spark's checkpoint folder.
        closed: query id → highest closed batch id, from the `batches` table.
        newest_offsets: offsets JSON of the newest closed batch, None when there is none.
        configured: what the spec says for a fresh start.

    Raises:
        DataLossError: Spark has committed batches that the lake does not know.
    """
    committed, query_id = last_committed(checkpoint), query_id_of(checkpoint)
    if committed is not None and closed.get(query_id or "", -1) < committed:
        raise DataLossError(
            f"{checkpoint}: Spark committed batch {committed}, which the lake has not closed; "
            "restore the lake that belongs to this checkpoint or, when the lake is whole and the checkpoint "
            "another's, remove the checkpoint to resume from the lake's own offsets"
        )
    if newest_offsets is not None:
        return json.dumps(json.loads(newest_offsets))
    return configured
