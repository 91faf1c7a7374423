"""Live progress: a panel on a terminal, a line now and then for people elsewhere, JSON lines for programs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from schemas.counts import count_of
from streaming.output.terminal import Terminal, print_json, say_line
from streaming.run.progress import Activity, Counting, Progress
from streaming.service.health import ActiveCondition, Condition

_GAP = 2
_BAR_WIDTH = 40
_JSON_EVERY_SECONDS = 10.0
_LINE_EVERY_SECONDS = 5.0
_SAME_EVERY_SECONDS = 30.0


class JsonProgress(Counting):
    """Writes the totals as a JSON object per line: at the first events, then what is new every ten seconds.

    Args:
        clock: seconds of a clock that never goes back.
    """

    def __init__(self, agent: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(agent)
        self._clock = clock
        self._last = clock()
        self._written = self.figures()

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
        if first or (old and self.figures() != self._written):
            self._write()

    def condition(self, condition: Condition, state: ActiveCondition | None) -> None:
        """Write a line of its own, at once."""
        super().condition(condition, state)
        since = None if state is None else state.since.isoformat()
        cause = None if state is None else state.cause
        print_json({"condition": {"name": condition, "cause": cause, "since": since}})

    def _write(self) -> None:
        self._last, self._written = self._clock(), self.figures()
        print_json({"progress": asdict(self.totals)})


class LineProgress(Counting):
    """Writes a line for people: what is new, every five seconds, and what goes on, every thirty.

    Until there is an event the seconds so far are new.

    A run in which nothing goes on and nothing changes says nothing.

    Args:
        clock: seconds of a clock that never goes back.
    """

    def __init__(self, agent: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(agent)
        self._clock = clock
        self._last, self._written, self._read, self._said = clock(), self.figures(), 0, ""
        self._began, self._ended = self._last, threading.Event()
        self._writing = threading.Lock()

    def __enter__(self) -> LineProgress:
        """Start showing."""
        # No worker: it calls show() alone, and ends with the display.
        threading.Thread(target=self._keep_showing, name="progress-lines", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Write the final totals."""
        self._ended.set()
        with self._writing:
            self._write()

    def show(self) -> None:
        """Write a line when there is something to say and the last line is old enough."""
        with self._writing:
            if self._is_due:
                self._write()

    def doing(self, activity: Activity) -> None:
        """Say what goes on from now on; something else than before is said at once."""
        with self._writing:
            before, self.activity = self.activity, activity
            if _what(before) != _what(activity) or self._is_due:
                self._write()

    @property
    def _is_due(self) -> bool:
        first = self.totals.events > 0 and self._written["events"] == 0
        age, doing = self._clock() - self._last, self.activity.text
        if doing and age >= (_SAME_EVERY_SECONDS if self.totals.events else _LINE_EVERY_SECONDS):
            return True
        return first or (
            age >= _LINE_EVERY_SECONDS and (doing, self.figures()) != (self._said, self._written)
        )

    def _keep_showing(self) -> None:
        while not self._ended.wait(1.0):
            self.show()

    def _write(self) -> None:
        since, read = self._last, self._read
        self._last, self._written, self._read = self._clock(), self.figures(), self.totals.events
        self._said = self.activity.text
        rate = (self._read - read) / max(self._last - since, 1.0)
        say_line(f"{datetime.now(UTC):%H:%M:%S}Z {self._line(rate)}")

    @property
    def _so_far(self) -> str:
        if self.activity.whole:
            return self.activity.text
        return f"{self.activity.text}; {self._clock() - self._began:.0f} s so far"

    def _line(self, rate: float) -> str:
        totals, doing = self.totals, self.activity.text
        if not totals.events:
            return self._so_far if doing else "reading; no events yet"
        lag = "unknown" if totals.lag is None else f"{totals.lag:,}"
        parts = [
            *([doing] if doing else []),
            f"{count_of(totals.events, 'event')}, {rate:,.0f}/s",
            f"lag {lag}",
            f"{count_of(totals.alerts, 'alert')}, {totals.llm_alerts:,} of them classified by the model",
            *([f"{totals.quarantined:,} quarantined"] if totals.quarantined else []),
        ]
        return "; ".join(parts)


class TerminalProgress(Counting):
    """Redraws a small panel in place."""

    def __init__(self, agent: str, console: Terminal) -> None:
        super().__init__(agent)
        self._console, self._began = console, time.monotonic()
        self._live = Live(get_renderable=self._panel, console=console, refresh_per_second=4)

    def __enter__(self) -> TerminalProgress:
        """Start drawing."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last drawing on the screen."""
        self._live.stop()

    def show(self) -> None:
        """See Counting: the panel draws itself anew four times a second, and once more at its end."""

    def _panel(self) -> RenderableType:
        return Group(*self._heading(), self._table())

    def _heading(self) -> list[RenderableType]:
        """What goes on, for how long, and a bar where it is known how much there is of it."""
        activity, seconds = self.activity, time.monotonic() - self._began
        if not activity.text:
            return []
        line = Text(f"{seconds:4.0f} s  {activity.text}", "bold", overflow="ellipsis", no_wrap=True)
        if not activity.whole:
            return [line]
        bar = Table.grid()  # a bar alone does not end its line
        width = min(_BAR_WIDTH, self._console.width)
        bar.add_row(ProgressBar(total=activity.whole, completed=activity.done, width=width))
        return [line, bar]

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


def _what(activity: Activity) -> str:
    """Return what goes on, without how far it is."""
    return activity.text.partition(":")[0]


def progress_display(agent: str, *, as_json: bool) -> Progress:
    """Return the display that fits who reads standard output."""
    if as_json:
        return JsonProgress(agent)
    return TerminalProgress(agent, Terminal()) if sys.stdout.isatty() else LineProgress(agent)
