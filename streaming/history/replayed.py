"""What a replay has decided anew: a slice of it, and how the whole compares with what was published."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from math import inf
from typing import Any

import pyarrow as pa

from agent.triage.triage import TriageResult
from streaming.batch.deciders import Decided
from streaming.batch.flagging import Flagged
from streaming.history.comparison import Difference
from streaming.history.spans import Span
from streaming.history.tolerance import SCORES_WITHIN, Tolerated

REPLAY_MARKS = {"query_id": "replay", "batch_id": 0, "created_at": datetime(1970, 1, 1, tzinfo=UTC)}


@dataclass(frozen=True)
class ExactReplay:
    """What an exact replay found.

    Attributes:
        rows: transactions decided anew.
        backfilled: transactions passed over, since nobody was to be alerted to them.
        reads_newest: see DecidedHistory.
        tolerated: what was let pass of alerts that another machine has computed, None where none has.
    """

    span: Span
    rows: int
    backfilled: int
    alerts: int
    differences: tuple[Difference, ...]
    reads_newest: bool = False
    tolerated: Tolerated | None = None

    def facts(self) -> dict[str, Any]:
        """Return it JSON-serialisable with `default=str`."""
        return {
            "first_sequence": self.span.first,
            "next_sequence": self.span.end,
            "transactions": self.rows,
            "backfilled": self.backfilled,
            "alerts": self.alerts,
            "reads_newest": self.reads_newest,
            "differences": len(self.differences),
            "differing": [asdict(each) for each in self.differences],
            "tolerated": None if self.tolerated is None else asdict(self.tolerated),
        }


@dataclass(frozen=True)
class Slice:
    """A part of a span with what becomes of it; `rows` holds Deciders.columns."""

    span: Span
    rows: pa.Table
    decided: Decided

    @property
    def flagged(self) -> Flagged:
        """The rows that become alerts."""
        (flagged,) = self.decided.flagged
        return flagged

    def margin(self, sequence: int, score: float) -> float:
        """Return how far a row's score lies from its threshold, under a version that gives it such a score.

        Infinite where none does: then the score is what differs.
        """
        place, found = sequence - self.span.first, (each.scored for each in self.decided.judged)
        alike = [each for each in found if abs(each.score[place] - score) <= SCORES_WITHIN]
        return min((abs(float(each.score[place] - each.threshold[place])) for each in alike), default=inf)

    def alerts(self, result: TriageResult) -> pa.Table:
        """Return the alerts under other classifications than the rules', of schema `ALERTS`."""
        return replace(self.decided, results=(result,)).alerts(REPLAY_MARKS)
