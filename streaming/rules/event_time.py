"""How far event time has come, as rules over two events see it: by arithmetic.

In the first arithmetic it is the newest event time of any row, so that one row dated ahead ends every wait.
In the second it is what a median clock shows.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from schemas.spec import FIRST_ARITHMETIC
from streaming.arrays.compilation import Ints
from streaming.arrays.median_clock import BEFORE_ALL, MedianClock


class EventClock(Protocol):
    """Event time, in microseconds; never changed, each step gives the next one."""

    @property
    def now(self) -> int:
        """What it shows."""

    def advance(self, times: Ints) -> tuple[Ints, EventClock]:
        """Return what it shows as of each row, int64[n], and the clock after them."""


class NewestTime(NamedTuple):
    """The newest event time of all rows."""

    now: int

    def advance(self, times: Ints) -> tuple[Ints, NewestTime]:
        """See EventClock."""
        shown = np.maximum.accumulate(np.maximum(times, self.now))
        return shown, NewestTime(int(shown[-1]) if len(shown) else self.now)


def blank_clock(arithmetic: int) -> EventClock:
    """Return the clock before any row."""
    return NewestTime(BEFORE_ALL) if arithmetic == FIRST_ARITHMETIC else MedianClock.blank()


def state_of(clock: EventClock) -> Ints:
    """Return what restored_clock() needs."""
    latest = clock.latest if isinstance(clock, MedianClock) else np.empty(0, np.int64)
    return np.concatenate([np.array([clock.now]), latest])


def restored_clock(state: Ints) -> EventClock:
    """Return the clock whose state_of() this is."""
    now, latest = int(state[0]), state[1:]
    return MedianClock(now, latest.copy()) if len(latest) else NewestTime(now)
