"""Work beside an agent on the same cores: it rests for longer, the more it costs.

What many want done is done by one of them at a time, and not once more for each who has waited.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from schemas.errors import RetryableError

LONGEST_WAIT_SECONDS = 2.0
_PAUSE_SECONDS = 1.0
_RESTS = 9.0  # times as long as a round takes: of ten seconds one is worked


def rest_after(took: float, least: float, most: float) -> float:
    """Return the seconds that work rests after a round, so that it takes a tenth of the time.

    Args:
        took: seconds of the round.
        least: seconds that it rests at least.
        most: seconds that it rests at most, whatever it costs: others wait for what comes of it.
    """
    return min(max(least, _RESTS * took), most)


class StillReadingError(RetryableError):
    """Another is at it, and needs long."""


class PacedWork:
    """Work that is done once a second at most, counted from its end: it may take longer than that.

    Args:
        work: is done by one thread at a time.
        what: is read, in the words of a refusal to whoever would wait too long.
        seconds: monotonic seconds.
        longest: seconds that work which costs much rests at most, see rest_after.

    Attributes:
        fault: what has kept the work from being done the last time, None where nothing has.
    """

    def __init__(
        self,
        work: Callable[[], object],
        what: str,
        seconds: Callable[[], float] = time.monotonic,
        longest: float = _PAUSE_SECONDS,
    ) -> None:
        self._work, self._what, self._seconds = work, what, seconds
        self._lock = threading.Lock()
        self._longest, self._pause = longest, _PAUSE_SECONDS
        self._ended_at: float | None = None
        self.fault: Exception | None = None

    @property
    def is_due(self) -> bool:
        """Whether it has rested for long enough, or was never done; it may be under way."""
        return self._ended_at is None or self._seconds() - self._ended_at >= self._pause

    def do(self) -> None:
        """Do it now, once another is through with it.

        Raises:
            Exception: what the work raises.
        """
        with self._lock:
            self._attempt()

    def catch_up(self) -> None:
        """See that it is not due; whoever waits for another gets what came of it.

        Raises:
            StillReadingError: another is at it, and needs long.
            Exception: what the work raises, or has raised while it is not due.
        """
        if not self._lock.acquire(timeout=LONGEST_WAIT_SECONDS):
            raise StillReadingError(f"{self._what} are still being read: ask again soon")
        try:
            if self.is_due:
                self._attempt()
            elif self.fault is not None:
                raise self.fault
        finally:
            self._lock.release()

    def _attempt(self) -> None:
        begun = self._seconds()
        try:
            self._work()
            self.fault = None
        except Exception as fault:
            self.fault = fault
            raise
        finally:
            self._ended_at = self._seconds()
            self._pause = rest_after(self._ended_at - begun, _PAUSE_SECONDS, self._longest)
