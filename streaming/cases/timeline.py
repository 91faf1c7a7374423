"""What has happened to a case, entry by entry."""

from __future__ import annotations

from typing import Any

import polars as pl

from streaming.cases.case_frames import ALERTED


def timeline_of(moves: pl.DataFrame, members: pl.DataFrame) -> list[dict[str, Any]]:
    """Return all events of a case and of those merged with it, oldest first, fields without a value left out.

    Alerts that were raised together and grouped together are one entry: `at` is when they were grouped,
    `alerted_at` when they were raised, `alerts` how many they are. `undone` is there, and true,
    where an action was taken back.
    """
    back = moves.filter(pl.col("event") == "undone")["other"]
    marked = moves.with_columns(pl.when(pl.col("action").is_in(back.implode())).then(True).alias("undone"))
    joined = members.group_by("case_id", "at", "alerted_at", "revision").agg(
        pl.col("number").min(), pl.len().alias("alerts"), pl.lit(ALERTED).alias("event")
    )
    whole = pl.concat([marked, joined], how="diagonal_relaxed").sort("number")
    return [{name: each for name, each in row.items() if each is not None} for row in whole.to_dicts()]
