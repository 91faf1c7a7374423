"""Which cases are so old that retention takes their events out of the table."""

from __future__ import annotations

from datetime import datetime

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from streaming.cases.case_frames import LIGHT, MOMENT, frame_of, members_of, moves_of
from streaming.cases.closing_labels import without_labels
from streaming.cases.folding import fold, together
from streaming.delta.stored import StoredTable


def cases_to_remove(events: StoredTable, before: datetime) -> pa.Array:
    """Return the ids of cases that were closed before a moment, and of those merged into them.

    A case stays while its labels are not written, and with all that were ever merged with it.

    Args:
        events: the table of case events.
        before: what was closed, or had anything done to it, since then stays.
    """
    rows = frame_of(events.select(LIGHT))
    moves = moves_of(rows)
    cases = fold(moves, members_of(rows))
    newest = moves.group_by("case_id").agg(pl.col("at").max().alias("newest"))
    old = (pl.col("newest") < pl.lit(before, MOMENT)) & pl.col("status").is_in(["closed", "merged"])
    waiting = without_labels(moves)["case_id"].implode()
    stays = cases.join(newest, on="case_id").filter(~old | pl.col("case_id").is_in(waiting))
    kept = together(stays["case_id"], moves)
    return pa.array([each for each in cases["case_id"] if each not in kept], pa.string())


def without_cases(events: pa.Table, gone: pa.Array, newest: int) -> pa.Table:
    """Return events but for those of some cases; the newest of all stays for its number."""
    leaves = pc.and_(pc.is_in(events["case_id"], value_set=gone), pc.less(events["number"], newest))
    return events.filter(pc.invert(leaves)) if pc.any(leaves).as_py() else events
