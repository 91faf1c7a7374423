"""What the query of an agent reads, and from where."""

from __future__ import annotations

import json

from streaming.batch.queries import LOSS, newest_of_the_stream, stamp_of
from streaming.batch.stream_settings import StreamSettings, is_overtaken, is_settled, starting_offsets
from streaming.delta.lake import Lake
from streaming.home.placed_agent import PlacedAgent
from streaming.kafka.source import initial_offsets, query_id_of


def stream_settings(agent: PlacedAgent, bootstrap: str, lake: Lake) -> StreamSettings:
    """Decide what the query reads and from where.

    Spark may have committed a batch that is decided and not closed: it is finished before the query starts.

    Raises:
        DataLossError: the checkpoint and the lake do not belong together.
    """
    source = agent.spec.data_sources.transactions
    checkpoint = agent.settings.checkpoint(agent.name)
    query = query_id_of(checkpoint)
    tables = (lake.batches, lake.transactions)
    stamp = stamp_of(agent.name, query or "")
    decided = {} if query is None else {query: max(table.last_batch(stamp) for table in tables)}
    newest = newest_of_the_stream(lake.batches)
    offsets, newest_query = newest.get("offsets"), newest.get("query_id")
    reached = json.loads(offsets) if offsets else initial_offsets(checkpoint)
    return StreamSettings(
        bootstrap=bootstrap,
        reads=source.subscription,
        checkpoint=checkpoint,
        max_records=source.max_records_per_batch,
        max_bytes=source.max_bytes_per_batch,
        starting=starting_offsets(checkpoint, decided, offsets, source.starting_offsets),
        reached=reached,
        topic_ids=json.loads(newest.get("topic_ids") or "{}"),
        superseded=(newest_query or "").startswith(LOSS)
        or is_overtaken(checkpoint, newest_query, reached or {}),
        settled=is_settled(checkpoint, decided),
        moves=not agent.lake.is_local,
        on_executors=agent.settings.cluster is not None,
    )
