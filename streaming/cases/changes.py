"""Changes of cases for those who must hear of them: each with the case as it was right then.

What is said of a change follows from the events up to it, and from nothing later: whoever hears of it twice
hears the same. An action that is undone afterwards was a change all the same, and is among them.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Any

import polars as pl

from streaming.cases.case_store import CaseMemory
from streaming.cases.folding import fold, together

_OPENED, _CLOSED = "opened", "closed"
_FIELDS = ("number", "event", "case_id", "at", "who", "reason", "text")
_STATE = (
    "status", "severity", "level", "kind", "entity", "entity_id", "rule", "alerts", "amount", "refunds",
    "currency", "opened_at", "assignee",
)  # fmt: skip


def changes_of(
    memory: CaseMemory, first: int, wanted: Collection[str], most: int, case_id: str | None = None
) -> list[dict[str, Any]]:
    """Return changes in the order of their numbers.

    Args:
        memory: all events.
        first: number from which on.
        wanted: names of changes, see schemas.cases.CaseChange.
        most: how many, the first ones.
        case_id: of which case, None for all.

    Returns:
        Of each the event (number, event, case_id, at, who, reason, text) and, as `case`, the case after it. A
        change of a case that retention has taken out meanwhile is left out.
    """
    named = pl.when(pl.col("event") == _CLOSED)
    change = named.then(pl.format("closed_{}", "reason")).otherwise("event")
    rows = memory.moves.filter(pl.col("number") >= first).filter(change.is_in(list(wanted))).sort("number")
    rows = rows if case_id is None else rows.filter(pl.col("case_id") == case_id)
    found = (_change_of(memory, row) for row in rows.iter_rows(named=True))
    return list(islice((each for each in found if each is not None), most))


def _change_of(memory: CaseMemory, row: dict[str, Any]) -> dict[str, Any] | None:
    # The alert that opens a case is the row behind, of the same commit.
    upto = row["number"] + (row["event"] == _OPENED)
    moves = memory.moves.filter(pl.col("number") <= upto)
    own = pl.col("case_id").is_in(list(together([row["case_id"]], moves)))
    members = memory.members.filter(own & (pl.col("number") <= upto))
    state = fold(moves.filter(own), members, memory.refunds).filter(pl.col("case_id") == row["case_id"])
    if state.height == 0:
        return None
    return {**{name: row[name] for name in _FIELDS}, "case": state.select(_STATE).to_dicts()[0]}
