"""Spans of the recorded sequence, what decided them, and which alerts are theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from schemas.spec import AgentSpec
from streaming.batch.backfill_mark import PIN as BACKFILL
from streaming.delta.pins import pinned_spec
from streaming.delta.stored import StoredTable


class Span(NamedTuple):
    """Transactions with `first` <= sequence < `end`."""

    first: int
    end: int

    def __str__(self) -> str:
        """Return it as a person would say it."""
        return f"sequence {self.first} to {self.end - 1}"


@dataclass(frozen=True)
class PinnedSpan:
    """A span that was decided under one set of pins."""

    span: Span
    pins: dict[str, Any]

    @property
    def spec(self) -> AgentSpec:
        """The spec in force then."""
        return pinned_spec(self.pins)

    @property
    def backfilled(self) -> bool:
        """Whether it was loaded from history, so that nobody was alerted to it."""
        return BACKFILL in self.pins


@dataclass(frozen=True)
class Tables:
    """Transactions and alerts as they stood when a span was decided."""

    transactions: StoredTable
    alerts: StoredTable


def raised_in(alerts: StoredTable, span: Span) -> pa.Table:
    """Return the alerts that the rows of a span raised, as they first went out.

    Rows raise them by themselves, or make the absence of another one certain.
    """
    own = alerts.read("sequence", *span)
    if "passed_by" in alerts.schema.names:
        others = alerts.read("passed_by", *span).select(own.column_names)
        own = pa.concat_tables([own.filter(pc.is_null(own["passed_by"])), others])
    return own.filter(pc.equal(own["revision"], 1))


def within(alerts: pa.Table, span: Span) -> pa.Table:
    """Return those of `alerts` that the rows of a span raised, in whichever revision."""
    raised = alerts["sequence"]
    if "passed_by" in alerts.column_names:
        raised = pc.coalesce(alerts["passed_by"], raised)
    return alerts.filter(pc.and_(pc.greater_equal(raised, span.first), pc.less(raised, span.end)))
