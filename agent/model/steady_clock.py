"""A clock that never goes back, whatever becomes of the machine's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from schemas.instants import Clock, utc_now


class SteadyClock:
    """Goes by the wall clock forwards; where that is set back, by the seconds that have passed since.

    Safe to use from several threads.

    Args:
        now: the wall clock, timezone-aware.
        seconds: monotonic seconds.
    """

    def __init__(
        self,
        now: Clock = utc_now,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now, self._seconds, self._lock = now, seconds, threading.Lock()
        self._moment, self._read_at = now(), seconds()

    def __call__(self) -> datetime:
        """Return the moment, never before one that was returned or reached."""
        with self._lock:
            seconds = self._seconds()
            passed = timedelta(seconds=seconds - self._read_at)
            self._moment, self._read_at = max(self._moment + passed, self._now()), seconds
            return self._moment

    def reach(self, moment: datetime) -> None:
        """Go on from a moment that is on record, unless the clock is past it already."""
        self()
        with self._lock:
            self._moment = max(self._moment, moment)
