"""What the query of an agent reads, and from where."""

from __future__ import annotations

import json

from schemas.spec import AgentSpec
from streaming.batch.queries import LOSS, newest_of_the_stream, stamp_of
from streaming.batch.stream_settings import StreamSettings, is_settled, starting_offsets
from streaming.delta.lake import LakeTable
from streaming.home.settings import Settings
from streaming.kafka.source import initial_offsets, query_id_of


def stream_settings(
    settings: Settings, spec: AgentSpec, bootstrap: str, batches: LakeTable
) -> StreamSettings:
    """Decide what the query reads and from where.

    Raises:
        DataLossError: the checkpoint and the lake do not belong together.
    """
    source = spec.data_sources.transactions
    checkpoint = settings.checkpoint(spec.name)
    query = query_id_of(checkpoint)
    closed = {} if query is None else {query: batches.last_batch(stamp_of(spec.name, query))}
    newest = newest_of_the_stream(batches)
    offsets = newest.get("offsets")
    return StreamSettings(
        bootstrap=bootstrap,
        reads=source.subscription,
        checkpoint=checkpoint,
        max_records=source.max_records_per_batch,
        max_bytes=source.max_bytes_per_batch,
        starting=starting_offsets(checkpoint, closed, offsets, source.starting_offsets),
        reached=json.loads(offsets) if offsets else initial_offsets(checkpoint),
        topic_ids=json.loads(newest.get("topic_ids") or "{}"),
        superseded=newest.get("query_id", "").startswith(LOSS),
        settled=is_settled(checkpoint, closed),
    )
