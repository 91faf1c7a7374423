"""What of a budget is spent already, as the tables tell when an agent starts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any

import polars as pl

from agent.model.budget import SpendingBudget
from agent.model.steady_clock import SteadyClock
from schemas.instants import micros_of, moment_of
from schemas.lake_tables import Table
from schemas.llm import Budget
from streaming.delta.lake import Lake
from streaming.delta.lake_reader import LakeReader
from streaming.delta.lake_table import LakeTable

_BOOKED: tuple[tuple[Table, str], ...] = (("batches", "closed_at"), ("late", "at"))

_TAKEN = ["input_tokens", "output_tokens", "cost_usd"]


@dataclass(frozen=True)
class SpentOnModels:
    """What questions to models have taken; money in USD."""

    tokens: int
    usd: float


def spent_since(reader: LakeReader, moment: datetime) -> SpentOnModels:
    """Return what was booked from a moment on, by the closed batches and the late answers.

    What a running agent has asked and not booked yet is not in it.
    """
    tokens, usd = 0, 0.0
    for name, column in _BOOKED:
        table = reader.table(name)
        if table is not None:
            rows = pl.DataFrame(table.read(column, micros_of(moment), columns=_TAKEN))
            taken_in, taken_out, cost = (rows[each].sum() for each in _TAKEN)
            tokens, usd = tokens + int(taken_in) + int(taken_out), usd + float(cost)
    return SpentOnModels(tokens, usd)


def restored_budget(limits: Budget, lake: Lake, clock: SteadyClock) -> SpendingBudget:
    """Return the budget less what was used on its newest day, by the closed batches and the late answers.

    The clock goes on from the newest moment on record, so that a clock set back opens no day again.
    """
    tables = ((lake.batches, "next_sequence", "closed_at"), (lake.late, "commit", "at"))
    for table, _, moment in tables:
        clock.reach(moment_of(table.maximum(moment) or 0))
    budget = SpendingBudget(limits, clock)
    today = clock().replace(hour=0, minute=0, second=0, microsecond=0)
    for table, order, moment in tables:
        rows = _since(table, order, moment, today)
        # Written after a moment and stamped before it: by a clock set back in between.
        moments = accumulate((row[moment] for row in rows), max)
        for row, at in zip(rows, moments, strict=True):
            budget.restore(at, row["input_tokens"] + row["output_tokens"], row["cost_usd"])
    return budget


def _since(table: LakeTable, order: str, moment: str, since: datetime) -> list[dict[str, Any]]:
    """Return, in the order written, the rows from the first one on whose moment is `since` or later."""
    after = table.read(moment, micros_of(since), columns=[order])
    if after.num_rows == 0:
        return []
    first = min(after[order].to_pylist())
    columns = [order, moment, "input_tokens", "output_tokens", "cost_usd"]
    return sorted(
        table.read(order, first, columns=columns).to_pylist(), key=lambda row: (row[order], row[moment])
    )
