"""What a streaming query reads and from where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import DataLossError
from schemas.subscription import Subscription
from streaming.kafka.poll_size import FEW_AT_ONCE
from streaming.kafka.source import (
    initial_offsets,
    last_committed,
    last_planned,
    query_id_of,
)

Offsets = dict[str, dict[str, int]]


@dataclass(frozen=True)
class StreamSettings:
    """What the query reads and where Spark keeps its checkpoint.

    Attributes:
        starting: where it begins without a checkpoint, for Spark.
        reached: topic → partition → next offset to read by the newest batch, None before the first.
        topic_ids: of the topics that the newest batch was read from, as far as they are on record.
        superseded: what the checkpoint was to read has been given up, or read from elsewhere, since.
        settled: no batch that the checkpoint has planned is still to be decided.
        accept_loss: why records that a topic no longer holds may be given up, None where they may not.
        most_at_once: records that a task takes from the broker at once; fewer than usual for one batch alone,
            after the JVM has ended over it.
        may_take_more: there may be more than usual once records have shown to be small.
        on_executors: records are decoded where they are read, on the executors of a cluster.
        moves: the lake outlives this machine, and with it the checkpoint.
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
    moves: bool = False
    most_at_once: int = FEW_AT_ONCE
    may_take_more: bool = True
    on_executors: bool = False

    @property
    def is_careful(self) -> bool:
        """Whether fewer records than usual are taken at once."""
        return self.most_at_once < FEW_AT_ONCE

    @property
    def checkpoint_location(self) -> str:
        """The checkpoint as a URI: on a platform a path without a scheme is not one of this machine.

        Hadoop takes a location as it is written, so nothing in it is escaped.
        """
        return f"file://{self.checkpoint.absolute()}"


def is_settled(checkpoint: Path, decided: Mapping[str, int]) -> bool:
    """Say whether every batch that Spark has planned is decided.

    Args:
        checkpoint: Spark's checkpoint folder.
        decided: query id → highest batch id that is decided, closed or not.
    """
    planned = last_planned(checkpoint)
    return planned is None or decided.get(query_id_of(checkpoint) or "", -1) >= planned


def is_overtaken(checkpoint: Path, newest_query: str | None, reached: Offsets) -> bool:
    """Say whether another query has read on since this checkpoint was used: on another machine, say.

    Args:
        checkpoint: Spark's checkpoint folder.
        newest_query: of the newest batch of the stream, None before the first.
        reached: topic → partition → next offset to read by that batch.
    """
    query, planned = query_id_of(checkpoint), last_planned(checkpoint)
    if newest_query is None or query is None or newest_query == query:
        return False
    if planned:  # it has closed a batch, since when the other query came
        return True
    begin = initial_offsets(checkpoint) or {}
    return any(
        at != begin[topic][partition]
        for topic, places in reached.items()
        for partition, at in places.items()
        if partition in begin.get(topic, {})
    )


def starting_offsets(
    checkpoint: Path, decided: Mapping[str, int], newest_offsets: str | None, configured: str
) -> str:
    """Decide where the source starts, and refuse a checkpoint and a lake that do not belong together.

    Args:
        checkpoint: Spark's checkpoint folder.
        decided: query id → highest batch id that is decided, closed or not.
        newest_offsets: offsets JSON of the newest closed batch, None when there is none.
        configured: what the spec says for a fresh start.

    Raises:
        DataLossError: Spark has committed batches that the lake does not know.
    """
    committed, query_id = last_committed(checkpoint), query_id_of(checkpoint)
    if committed is not None and decided.get(query_id or "", -1) < committed:
        raise DataLossError(
            f"{checkpoint}: Spark committed batch {committed}, which the lake does not know; "
            "restore the lake that belongs to this checkpoint or, when the lake is whole and the checkpoint "
            "another's, remove the checkpoint to resume from the lake's own offsets"
        )
    if newest_offsets is not None:
        return json.dumps(json.loads(newest_offsets))
    return configured
