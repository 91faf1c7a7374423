"""The daily token budget: reserved before a call, settled after it, reset at midnight UTC."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime


class TokenBudget:
    """Counts the tokens of one UTC day against a limit. Safe to use from several threads.

    Args:
        tokens_per_day: most tokens, input and output together, that calls may use in a day.
        now: the wall clock, timezone-aware.
    """

    def __init__(self, tokens_per_day: int, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._limit, self._now = tokens_per_day, now
        self._lock = threading.Lock()
        self._day, self._used = self._today(), 0

    @property
    def remaining(self) -> int:
        """Tokens left today, never below zero."""
        with self._lock:
            self._roll_over()
            return max(self._limit - self._used, 0)

    def reserve(self, tokens: int) -> date | None:
        """Set `tokens` aside for a call; return the day they are booked on, or None when they do not fit."""
        with self._lock:
            self._roll_over()
            if self._used + tokens > self._limit:
                return None
            self._used += tokens
            return self._day

    def settle(self, day: date, reserved: int, used: int) -> None:
        """Replace a reservation made on `day` by what the call used; a past day is closed."""
        with self._lock:
            self._roll_over()
            if day == self._day:
                self._used = max(self._used + used - reserved, 0)

    def restore(self, day: date, used: int) -> None:
        """Take over what earlier runs used on `day`, as the closed batches tell."""
        with self._lock:
            self._roll_over()
            if day == self._day:
                self._used += used

    def _today(self) -> date:
        return self._now().astimezone(UTC).date()

    def _roll_over(self) -> None:
        today = self._today()
        if today != self._day:
            self._day, self._used = today, 0
