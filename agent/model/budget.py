"""The spending budget: tokens and money per minute and per day, reserved before a call, settled after it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime

from agent.model.steady_clock import SteadyClock
from schemas.instants import Clock
from schemas.llm import Budget

_MINUTE_SECONDS, _DAY_SECONDS = 60, 86_400


@dataclass(frozen=True, slots=True)
class Booking:
    """What is set aside for one call, and when; money in USD."""

    at: datetime
    tokens: int
    usd: float


class _Window:
    """What is spent in the current minute, or the current day, of UTC."""

    def __init__(self, seconds: int, most_tokens: int | None, most_usd: float | None) -> None:
        self._seconds, self._number, self.tokens, self._usd = seconds, 0, 0, 0.0
        self.limit(most_tokens, most_usd)

    def limit(self, most_tokens: int | None, most_usd: float | None) -> None:
        self._most_tokens, self._most_usd = most_tokens, most_usd

    def move_to(self, moment: datetime) -> None:
        number = self._number_of(moment)
        if number > self._number:
            self._number, self.tokens, self._usd = number, 0, 0.0

    def admits(self, tokens: int, usd: float) -> bool:
        tokens_fit = self._most_tokens is None or self.tokens + tokens <= self._most_tokens
        return tokens_fit and (self._most_usd is None or self._usd + usd <= self._most_usd)

    def used(self) -> list[tuple[str, float]]:
        """Return which share of each limit there is is used, by its unit; of a limit of 0 all is."""
        amounts = (("tokens", self.tokens, self._most_tokens), ("usd", self._usd, self._most_usd))
        return [(unit, used / most if most else 1.0) for unit, used, most in amounts if most is not None]

    def spend(self, moment: datetime, tokens: int, usd: float) -> None:
        """Take in what was spent, or was not after all, if `moment` is within the window."""
        if self._number_of(moment) == self._number:
            self.tokens = max(self.tokens + tokens, 0)
            self._usd = max(self._usd + usd, 0.0)

    def _number_of(self, moment: datetime) -> int:
        return int(moment.timestamp()) // self._seconds


class SpendingBudget:
    """Counts tokens and money against a spec's limits. Safe to use from several threads.

    Minutes and days follow one another and never come back, so no clock that is set back refills them.

    Args:
        limits: most that calls may use, input and output together.
        clock: current time, timezone-aware; by default one that goes on where the machine's is set back.

    Attributes:
        refusals: how many calls did not fit, by the window that they did not fit into: `minute`, or `day`,
            also where neither had room.
    """

    def __init__(self, limits: Budget, clock: Clock | None = None) -> None:
        self._clock, self._lock = clock or SteadyClock(), threading.Lock()
        self._newest, self.refusals = self._clock(), {"minute": 0, "day": 0}
        self._day = _Window(_DAY_SECONDS, limits.tokens_per_day, limits.usd_per_day)
        self._minute = _Window(_MINUTE_SECONDS, limits.tokens_per_minute, limits.usd_per_minute)

    def limit(self, limits: Budget) -> None:
        """Go over to other limits; what has been spent counts against them."""
        with self._lock:
            self._day.limit(limits.tokens_per_day, limits.usd_per_day)
            self._minute.limit(limits.tokens_per_minute, limits.usd_per_minute)

    def reserve(self, tokens: int, usd: float = 0.0) -> Booking | None:
        """Set tokens and money aside for a call; None when they do not fit into the minute or the day."""
        with self._lock:
            moment = self._move_on()
            full = [name for name, each in self._named.items() if not each.admits(tokens, usd)]
            if full:
                self.refusals[full[-1]] += 1
                return None
            self._spend(moment, tokens, usd)
            return Booking(moment, tokens, usd)

    def settle(self, booking: Booking, tokens: int, usd: float = 0.0) -> None:
        """Replace a reservation by what the call used; minutes and days that are over stay as they are."""
        with self._lock:
            self._move_on()
            self._spend(booking.at, tokens - booking.tokens, usd - booking.usd)

    def restore(self, at: datetime, tokens: int, usd: float = 0.0) -> None:
        """Take over what an earlier run used at a moment, as its tables tell."""
        with self._lock:
            self._newest = max(self._newest, at)
            self._move_on()
            self._spend(at, tokens, usd)

    def used_shares(self) -> dict[tuple[str, str], float]:
        """Return which share of each limit is used: of `minute` and `day`, in `tokens` and `usd`."""
        with self._lock:
            self._move_on()
            return {(name, unit): share for name, each in self._named.items() for unit, share in each.used()}

    @property
    def _named(self) -> dict[str, _Window]:
        return {"minute": self._minute, "day": self._day}

    def _move_on(self) -> datetime:
        self._newest = max(self._newest, self._clock())
        for window in self._named.values():
            window.move_to(self._newest)
        return self._newest

    def _spend(self, moment: datetime, tokens: int, usd: float) -> None:
        for window in self._named.values():
            window.spend(moment, tokens, usd)
