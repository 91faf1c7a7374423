"""How many requests somebody makes in a minute: a bucket that fills evenly, of as many as a minute has."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_KEYS = 10_000
_SECONDS = 60.0


class Rates:
    """The buckets of those who ask. Safe to use from several threads.

    Args:
        seconds: monotonic seconds.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._lock = seconds, threading.Lock()
        # key → requests left, and when that was.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, key: str, per_minute: int) -> float:
        """Take a request out of a bucket; return the seconds until there is one, 0 where it was taken."""
        with self._lock:
            now = self._seconds()
            left, at = self._left.get(key, (float(per_minute), now))
            left = min(per_minute, left + (now - at) * per_minute / _SECONDS)
            missing = max(0.0, 1.0 - left)
            self._left[key] = (left if missing else left - 1.0, now)
            self._left.move_to_end(key)
            if len(self._left) > _MOST_KEYS:
                self._left.popitem(last=False)
            return missing * _SECONDS / per_minute
