"""Live progress: one refreshing line block on a terminal, JSON lines everywhere else."""

from __future__ import annotations

import logging
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Protocol

from rich.live import Live
from rich.table import Table

from agent.triage.untrusted_text import escaped
from streaming.batch.late_answers import LateTotals
from streaming.batch.pipeline import ClosedBatch
from streaming.output.log import log
from streaming.output.terminal import Terminal, print_json
from streaming.service.health import ActiveCondition, Condition

_WINDOW_SECONDS = 10.0
_GAP = 2
_JSON_EVERY_SECONDS = 10.0


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

    def condition(self, condition: Condition, state: ActiveCondition | None) -> None:
        """Say that a condition has begun, has another cause, or, with None, is over."""


class _Counting(ABC):
    def __init__(self, agent: str) -> None:
        self.agent, self.totals = agent, Totals()
        self._recent: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()
        self._late = LateTotals()

    def batch(self, closed: ClosedBatch) -> None:
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
        self.totals.lag = lag
        self.show()

    def late(self, late: LateTotals) -> None:
        with self._lock:
            before, self._late = self._late, late
            self.totals.llm_alerts += late.answered - before.answered
            self.totals.llm_calls += late.calls - before.calls
            self.totals.tokens += late.tokens - before.tokens

    def condition(self, condition: Condition, state: ActiveCondition | None) -> None:
        event = "condition_over" if state is None else "condition_holds"
        level = logging.INFO if state is None else logging.WARNING
        text = condition_line(condition, state)
        log(event, text, level=level, agent=self.agent, condition=condition)

    @abstractmethod
    def show(self) -> None: ...

    def _note_rate(self, events: int, seconds: float) -> None:
        now = time.monotonic()
        self._recent.append((now - seconds, events))
        while self._recent[0][0] < now - _WINDOW_SECONDS and len(self._recent) > 1:
            self._recent.popleft()
        span = max(now - self._recent[0][0], 1e-6)
        self.totals.events_per_s = round(sum(count for _, count in self._recent) / span, 1)


class JsonProgress(_Counting):
    """Writes the totals as a JSON object per line: at the first events, then what is new every ten seconds.

    Args:
        clock: seconds of a clock that never goes back.
    """

    def __init__(self, agent: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(agent)
        self._clock = clock
        self._last = clock()
        self._written = self._telling()

    def __enter__(self) -> JsonProgress:
        """Start showing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write the final totals."""
        self._write()

    def show(self) -> None:
        """Write a line when there is something new and the last line is old enough."""
        first = self.totals.events > 0 and self._written["events"] == 0
        old = self._clock() - self._last >= _JSON_EVERY_SECONDS
        if first or (old and self._telling() != self._written):
            self._write()

    def condition(self, condition: Condition, state: ActiveCondition | None) -> None:
        """Write a line of its own, at once."""
        super().condition(condition, state)
        since = None if state is None else state.since.isoformat()
        cause = None if state is None else state.cause
        print_json({"condition": {"name": condition, "cause": cause, "since": since}})

    def _write(self) -> None:
        self._last, self._written = self._clock(), self._telling()
        print_json({"progress": asdict(self.totals)})

    def _telling(self) -> dict[str, object]:
        """Return what a new line is worth; rates and durations come along with it."""
        totals = asdict(self.totals)
        return {name: totals[name] for name in ("events", "lag", "alerts", "llm_alerts", "quarantined")}


class TerminalProgress(_Counting):
    """Redraws a small table in place."""

    def __init__(self, agent: str, console: Terminal) -> None:
        super().__init__(agent)
        self._console = console
        self._live = Live(self._table(), console=console, refresh_per_second=4)

    def __enter__(self) -> TerminalProgress:
        """Start drawing."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last drawing on the screen."""
        self.show()
        self._live.stop()

    def show(self) -> None:
        """Redraw."""
        self._live.update(self._table())

    def _table(self) -> Table:
        totals = self.totals
        lag = "…" if totals.lag is None else f"{totals.lag:,}"
        cells = {
            "events": f"{totals.events:,}",
            "events/s": f"{totals.events_per_s:,.0f}",
            "lag": lag,
            "quarantined": f"{totals.quarantined:,}",
            "alerts": f"{totals.alerts:,}",
            "by LLM": f"{totals.llm_alerts:,}",
            "LLM calls": f"{totals.llm_calls:,}",
            "tokens": f"{totals.tokens:,}",
            "batch s": f"{totals.batch_seconds:.2f}",
        }
        shown = _that_fit(cells, self._console.width)
        table = Table(*shown, box=None, padding=(0, _GAP, 0, 0))
        table.add_row(*shown.values())
        return table


def _that_fit(cells: dict[str, str], width: int) -> dict[str, str]:
    """Return the cells that a line has room for, the first ones first."""
    shown, left = {}, width
    for name, value in cells.items():
        left -= max(len(name), len(value)) + _GAP
        if left < 0:
            break
        shown[name] = value
    return shown


def progress_display(agent: str, *, as_json: bool) -> Progress:
    """Return the display that fits where standard output goes."""
    if as_json or not sys.stdout.isatty():
        return JsonProgress(agent)
    return TerminalProgress(agent, Terminal())


def condition_line(condition: Condition, state: ActiveCondition | None) -> str:
    """Return what an operator reads when a condition begins, changes or ends."""
    if state is None:
        return f"{condition}: over"
    return escaped(f"{condition} since {state.since:%Y-%m-%d %H:%M:%S}Z: {state.cause}")
