"""Work that many want done: by one of them at a time, and not once more for each who has waited."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from schemas.errors import RetryableError

LONGEST_WAIT_SECONDS = 2.0
_PAUSE_SECONDS = 1.0


class StillReadingError(RetryableError):
    """Another is at it, and needs long."""


class PacedWork:
    """Work that is done once a second at most, counted from its end: it may take longer than that.

    Args:
        work: is done by one thread at a time.
        what: is read, in the words of a refusal to whoever would wait too long.
        seconds: monotonic seconds.

    Attributes:
        fault: what has kept the work from being done the last time, None where nothing has.
    """

    def __init__(
        self, work: Callable[[], object], what: str, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._work, self._what, self._seconds = work, what, seconds
        self._lock = threading.Lock()
        self._ended_at: float | None = None
        self.fault: Exception | None = None

    @property
    def is_due(self) -> bool:
        """Whether it was not done within the last second; it may be under way."""
        return self._ended_at is None or self._seconds() - self._ended_at >= _PAUSE_SECONDS

    def do(self) -> None:
        """Do it now, once another is through with it.

        Raises:
            Exception: what the work raises.
        """
        with self._lock:
            self._attempt()

    def catch_up(self) -> None:
        """See that it was done within the last second; whoever waits for another gets what came of it.

        Raises:
            StillReadingError: another is at it, and needs long.
            Exception: what the work raises, or has raised within the last second.
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
        try:
            self._work()
            self.fault = None
        except Exception as fault:
            self.fault = fault
            raise
        finally:
            self._ended_at = self._seconds()
