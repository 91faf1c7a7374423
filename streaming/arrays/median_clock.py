"""A clock that reads the time off rows and that no single row can move.

As of each row it shows the highest median so far of the times of 64 rows in a row, the 32nd smallest of them,
where rows that have not come yet count as before all time. So it takes 33 rows out of 64 that are dated ahead
to set it ahead, it never goes back, and it does not depend on how the rows were cut into batches.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streaming.arrays.compilation import Ints, compiled

BEFORE_ALL = -(1 << 62)
WINDOW = 64
_MEDIAN = (WINDOW - 1) // 2


class MedianClock(NamedTuple):
    """The clock's state.

    Attributes:
        now: microseconds; BEFORE_ALL until half the window has come.
        latest: int64[64], times of the last rows, oldest first; BEFORE_ALL for rows that have not come.
    """

    now: int
    latest: Ints

    @classmethod
    def blank(cls) -> MedianClock:
        """Return the clock before any row."""
        return cls(BEFORE_ALL, np.full(WINDOW, BEFORE_ALL))

    @classmethod
    def after(cls, times: Ints, now: int | None) -> MedianClock:
        """Return the clock after rows of which the last ones are known.

        Args:
            times: int64[n], of the last 64 rows, or of all if they are fewer.
            now: what it showed; None where that is not on record.
        """
        _, clock = cls.blank().advance(times)
        return clock._replace(now=max(clock.now, BEFORE_ALL if now is None else now))

    def advance(self, times: Ints) -> tuple[Ints, MedianClock]:
        """Return what the clock shows as of each row, int64[n], and its next state.

        Args:
            times: int64[n], microseconds, in the order of the rows.
        """
        joined, shown = np.concatenate([self.latest, times]), np.empty(len(times), np.int64)
        _run(self.now, joined, shown)
        now = int(shown[-1]) if len(shown) else self.now
        return shown, MedianClock(now, joined[-WINDOW:].copy())


@compiled
def _run(now: int, times: Ints, shown: Ints) -> None:
    ordered = np.sort(times[:WINDOW])
    for row in range(len(shown)):
        leaving, coming = times[row], times[row + WINDOW]
        place, high = 0, WINDOW
        while place < high:
            middle = (place + high) // 2
            if ordered[middle] < leaving:
                place = middle + 1
            else:
                high = middle
        while place < WINDOW - 1 and ordered[place + 1] < coming:
            ordered[place] = ordered[place + 1]
            place += 1
        while place > 0 and ordered[place - 1] > coming:
            ordered[place] = ordered[place - 1]
            place -= 1
        ordered[place] = coming
        now = max(now, ordered[_MEDIAN])
        shown[row] = now
