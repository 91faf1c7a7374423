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
_ROOM = 16 * WINDOW


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
    # The window lies sorted somewhere in a longer array, so that taking out near one end and putting in near
    # the other, as a stream that is almost in order does, moves few numbers.
    room = np.empty(_ROOM, dtype=np.int64)
    low = (_ROOM - WINDOW) // 2
    room[low : low + WINDOW] = np.sort(times[:WINDOW])
    for row in range(len(shown)):
        if low == 0 or low + WINDOW == _ROOM:
            middle = (_ROOM - WINDOW) // 2
            room[middle : middle + WINDOW] = room[low : low + WINDOW].copy()
            low = middle
        leaving, coming = times[row], times[row + WINDOW]
        place = low
        while room[place] != leaving:
            place += 1
        if place - low < _MEDIAN:
            while place > low:
                room[place] = room[place - 1]
                place -= 1
            low += 1
        else:
            while place < low + WINDOW - 1:
                room[place] = room[place + 1]
                place += 1
        high = low + WINDOW - 1  # behind the last of one less than a window
        if coming >= room[low + _MEDIAN]:
            place = high
            while place > low and room[place - 1] > coming:
                room[place] = room[place - 1]
                place -= 1
        else:
            low -= 1
            place = low
            while place < high - 1 and room[place + 1] < coming:
                room[place] = room[place + 1]
                place += 1
        room[place] = coming
        now = max(now, room[low + _MEDIAN])
        shown[row] = now
