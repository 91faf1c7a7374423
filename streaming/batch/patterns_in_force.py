"""Which rules over two events were in force when: read from the pins of closed batches.

A batch is always decided under the rules it pinned, so what such rules remember is rebuilt under the same.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import NamedTuple

import polars as pl

from schemas.errors import DataLossError
from streaming.delta.pins import pinned_specs
from streaming.rules.pattern import memory_key

COLUMNS = ["first_sequence", "next_sequence", "pins"]


class Stretch(NamedTuple):
    """Rows with `first` <= sequence < `end`, and the patterns in force over them, by digest."""

    first: int
    end: int
    patterns: frozenset[str]


def stretches(batches: pl.DataFrame, first: int, end: int) -> list[Stretch]:
    """Cut rows where the patterns in force change.

    Args:
        batches: rows of the batches table, COLUMNS at least; those of other rows are passed over.
        first: `sequence` of the first row.
        end: of the row after the last one.

    Raises:
        DataLossError: a batch is not among them.
    """
    found: list[Stretch] = []
    chosen = (
        batches.select(COLUMNS)
        .sort(COLUMNS[:2])
        .filter(
            (pl.col("next_sequence") > max(first, 0))
            & (pl.col("first_sequence") < end)
            & (pl.col("next_sequence") > pl.col("first_sequence"))
        )
    )
    reached = first
    for start, after, pins in chosen.iter_rows():
        if start > reached:
            break
        patterns, reached_now = _patterns(pins), min(after, end)
        if found and found[-1].patterns == patterns:
            found[-1] = found[-1]._replace(end=reached_now)
        else:
            found.append(Stretch(reached, reached_now, patterns))
        reached = reached_now
    if reached < end:
        raise DataLossError(f"no closed batch says under which rules sequence {reached} was decided")
    return found


@lru_cache(maxsize=64)
def _patterns(pins: str) -> frozenset[str]:
    return frozenset(
        memory_key(rule, spec.arithmetic_in_force)
        for spec in pinned_specs(json.loads(pins))
        for rule in spec.rules
        if rule.pattern is not None
    )
