"""What a run has done so far, counted for whoever shows it."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Protocol

from agent.triage.untrusted_text import escaped
from streaming.batch.late_answers import LateTotals
from streaming.batch.pipeline import ClosedBatch
from streaming.output.log import log
from streaming.service.health import ActiveCondition, Condition

_WINDOW_SECONDS = 10.0


@dataclass
class Totals:
    """What a run has done so far; rates over the last ten seconds."""

    events: int = 0
    events_per_s: float = 0.0
    lag: int | None = None
    quarantined: int = 0
    duplicates: int = 0
    alerts: int = 0
    llm_alerts: int = 0
    llm_calls: int = 0
    tokens: int = 0
    batches: int = 0
    batch_seconds: float = 0.0
    filtered: int = 0
    given_up: int = 0  # alerts that keep the classification by rules for good


@dataclass(frozen=True)
class Activity:
    """What goes on just now, and how far it is.

    Attributes:
        text: in words; how far it is stands after a colon.
        done, whole: how much of it, in the same unit; `whole` is 0 where nobody can know.
    """

    text: str = ""
    done: float = 0.0
    whole: float = 0.0


class Progress(Protocol):
    """Somewhere to show progress; a context manager."""

    totals: Totals

    def __enter__(self) -> Progress:
        """Start showing."""

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""

    def batch(self, closed: ClosedBatch) -> None:
        """Take in a closed batch."""

    def lag(self, lag: int) -> None:
        """Take in how many offsets are unread."""

    def late(self, late: LateTotals) -> None:
        """Take in what late answers have come to."""

    def doing(self, activity: Activity) -> None:
        """Say what goes on from now on."""

    def condition(self, condition: Condition, state: ActiveCondition | None) -> None:
        """Say that a condition has begun, has another cause, or, with None, is over."""


class Counting(ABC):
    """Counts for a display, which says in `show` how it shows."""

    def __init__(self, agent: str) -> None:
        self.agent, self.totals, self.activity = agent, Totals(), Activity()
        self._recent: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()
        self._late = LateTotals()

    def batch(self, closed: ClosedBatch) -> None:
        """See Progress."""
        row, totals = closed.row, self.totals
        with self._lock:
            totals.events += row["read"]
            totals.quarantined += row["quarantined"]
            totals.duplicates += row["duplicates"]
            totals.filtered += row["filtered"]
            totals.alerts += row["alerts"]
            totals.llm_alerts += row["llm_alerts"]
            totals.llm_calls += row["llm_calls"]
            totals.tokens += row["input_tokens"] + row["output_tokens"]
            totals.batches += 1
            totals.batch_seconds = round(closed.seconds, 3)
            self._note_rate(row["read"], closed.seconds)
        self.show()

    def lag(self, lag: int) -> None:
        """See Progress."""
        self.totals.lag = lag
        self.show()

    def late(self, late: LateTotals) -> None:
        """See Progress."""
        with self._lock:
            before, self._late = self._late, late
            self.totals.llm_alerts += late.answered - before.answered
            self.totals.given_up += late.given_up - before.given_up
            self.totals.llm_calls += late.calls - before.calls
            self.totals.tokens += late.tokens - before.tokens

    def doing(self, activity: Activity) -> None:
        """See Progress."""
        self.activity = activity
        self.show()

    def condition(self, condition: Condition, state: ActiveCondition | None) -> None:
        """See Progress."""
        event = "condition_over" if state is None else "condition_holds"
        level = logging.INFO if state is None else logging.WARNING
        text = condition_line(condition, state)
        log(event, text, level=level, agent=self.agent, condition=condition)

    @abstractmethod
    def show(self) -> None:
        """Show what is counted, where that is due."""

    def figures(self) -> dict[str, object]:
        """Return the totals whose change is worth a new line; rates and durations come along with them."""
        totals = asdict(self.totals)
        return {name: totals[name] for name in ("events", "lag", "alerts", "llm_alerts", "quarantined")}

    def _note_rate(self, events: int, seconds: float) -> None:
        now = time.monotonic()
        self._recent.append((now - seconds, events))
        while self._recent[0][0] < now - _WINDOW_SECONDS and len(self._recent) > 1:
            self._recent.popleft()
        span = max(now - self._recent[0][0], 1e-6)
        self.totals.events_per_s = round(sum(count for _, count in self._recent) / span, 1)


def condition_line(condition: Condition, state: ActiveCondition | None) -> str:
    """Return what an operator reads when a condition begins, changes or ends."""
    if state is None:
        return f"{condition}: over"
    return escaped(f"{condition} since {state.since:%Y-%m-%d %H:%M:%S}Z: {state.cause}")
