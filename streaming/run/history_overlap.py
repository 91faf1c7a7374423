"""Tells that the topic holds payments which a backfill has stored already: they are stored a second time.

A backfilled row is remembered at its event time, so a record that the broker stamped later than the duplicate
horizon after that counts as new. Whoever begins a stream so hears of it at its first batch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.counts import count_of
from schemas.errors import FlagstreamError
from streaming.batch.queries import BACKFILL
from streaming.delta.lake_reader import HasLake, LakeReader
from streaming.output.log import log

MOST_COMPARED = 10_000


class OverlapCheck:
    """Compares the first payments that follow a backfill with what it has stored, once.

    Args:
        agent: whose payments they are.
    """

    def __init__(self, agent: HasLake) -> None:
        self._agent, self._done = agent, False

    def closed(self, batch: Mapping[str, Any]) -> None:
        """Compare the first batch that has stored something; what cannot be read keeps no batch from closing.

        Args:
            batch: its row in `batches`.
        """
        if self._done or batch["first_sequence"] == batch["next_sequence"]:
            return
        self._done = True
        with suppress(FlagstreamError, OSError):
            compared, repeated = repeated_of_history(LakeReader.of(self._agent), batch)
            if repeated:
                self._report(compared, repeated)

    def _report(self, compared: int, repeated: int) -> None:
        log(
            "history_repeated",
            f"{repeated:,} of the first {count_of(compared, 'payment')} after the backfill were loaded by it "
            "already, and are now stored twice: the topic holds part of the history. Stop the run, give the "
            "agent a new name, load the history again, and either begin at the topic's end with "
            "`starting_offsets: latest` or load only payments that the topic does not hold",
            level=logging.WARNING,
            agent=self._agent.spec.name,
            repeated=repeated,
        )


def repeated_of_history(reader: LakeReader, batch: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many payments of a batch were compared, and how many of them a backfill had stored before.

    Of a batch that follows no backfill none are compared, of another one at most `MOST_COMPARED`, the oldest.
    Of what was stored one file's column of ids is held at a time.
    """
    first, end = batch["first_sequence"], batch["next_sequence"]
    table = reader.table("transactions")
    if table is None or not _follows_backfill(reader, first):
        return 0, 0
    below = min(end, first + MOST_COMPARED)
    ids = table.read("sequence", first, below, ["transaction_id"])["transaction_id"].combine_chunks()
    earlier = (pc.field("sequence") < first) & pc.field("transaction_id").isin(ids)
    found: set[Any] = set()
    for part in table.parts(["transaction_id"], earlier):
        found.update(part["transaction_id"].to_pylist())
    return len(ids), pc.sum(pc.is_in(ids, pa.array(list(found), ids.type))).as_py() or 0


def _follows_backfill(reader: LakeReader, first: int) -> bool:
    """Whether the row before the first one of a batch was loaded by a backfill."""
    batches = reader.table("batches")
    if batches is None or first == 0:
        return False
    ended = batches.read("next_sequence", first, first + 1, ["query_id"])["query_id"].to_pylist()
    return any(query.startswith(BACKFILL) for query in ended)
