"""One thread of work beside the batches, watched: whatever befalls it is reported, and it begins again.

What a fault means to a worker:

| fault | what becomes of the worker |
|---|---|
| FencedError, DataLossError, ConfigurationError | ends; `check` raises it, so the agent ends, too |
| any other, a library's panic included | begins again after a pause; its condition holds meanwhile |

A worker that the agent can do without takes no fault for fatal.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from schemas.errors import ConfigurationError, DataLossError, FencedError, FlagstreamError
from streaming.service.health import Condition, Health

FATAL: tuple[type[BaseException], ...] = (FencedError, DataLossError, ConfigurationError)
_SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 60.0


class Worker:
    """Repeats a piece of work in a thread until it is done or the worker is closed.

    Args:
        name: of the thread.
        work: does one round; returns the seconds until the next, None when nothing is left to do.
        condition: what holds from a round that failed to the next that succeeds.
        health: notified of it.
        begin: called in the thread before the first round, and again before the one after a fault.
        fatal: faults after which the work is not tried again.
        longest_pause: seconds after a fault, however many there were before it.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], float | None],
        condition: Condition,
        health: Health,
        *,
        begin: Callable[[], None] = lambda: None,
        fatal: tuple[type[BaseException], ...] = FATAL,
        longest_pause: float = LONGEST_PAUSE_SECONDS,
    ) -> None:
        self._work, self._condition, self._health = work, condition, health
        self._begin, self._fatal, self._longest_pause = begin, fatal, longest_pause
        self._begun, self._failures = False, 0
        self._fault: BaseException | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_working(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def is_closing(self) -> bool:
        """Whether the work should come to an end soon."""
        return self._ended.is_set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def check(self) -> None:
        """Raise what has ended the work for good.

        Raises:
            FlagstreamError: one of the fatal faults.
        """
        if self._fault is not None:
            raise self._fault

    def ask_to_end(self) -> None:
        """Let no round begin after the current one, without waiting for that."""
        self._ended.set()

    def close(self) -> None:
        """Wait for the current round, the first one at least."""
        self.ask_to_end()
        if self._thread.is_alive():
            self._thread.join()
        if self._failures:
            self._health.ends(self._condition)

    def attempt(self) -> float | None:
        """Do one round; return the seconds until the next, None for no further one. Never raises."""
        try:
            if not self._begun:
                self._begin()
                self._begun = True
            pause = self._work()
        except BaseException as fault:
            return self._failed(fault)
        if self._failures:
            self._failures = 0
            self._health.ends(self._condition)
        return pause

    def _run(self) -> None:
        pause = self.attempt()
        while pause is not None and not self._ended.wait(pause):
            pause = self.attempt()

    def _failed(self, fault: BaseException) -> float | None:
        self._begun = False
        self._failures += 1
        self._health.begins(self._condition, cause_of(fault))
        if isinstance(fault, self._fatal):
            self._fault = fault
            return None
        return pause_after(self._failures, self._longest_pause)


def pause_after(failures: int, longest: float) -> float:
    """Return the seconds to wait after so many failures in a row."""
    return float(min(_SHORTEST_PAUSE_SECONDS * 2 ** min(failures - 1, 32), longest))


def cause_of(fault: BaseException) -> str:
    """Return what operators read of a fault: one line, with its kind where it was not raised on purpose."""
    known = isinstance(fault, FlagstreamError | OSError)
    try:
        text = str(fault) if known else f"{type(fault).__name__}: {fault}"
    except Exception:  # what Java raised has its words in a JVM, which may have ended
        text = type(fault).__name__
    return " ".join(text.split())[:500]
