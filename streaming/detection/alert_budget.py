"""The threshold that keeps alerts at a budget: which share of transactions may be flagged, at today's pace.

Scores state a tail frequency, so a threshold of 1 - share flags that share; the share is the budget over the
stream's pace in transactions per day of event time. The pace is a ratio of rows to seconds; both fade over a
day and move forward only at block boundaries, so that cutting the rows into other batches changes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streaming.arrays.compilation import Floats, Ints, compiled

_SECONDS_PER_DAY = 86_400.0
_MICROSECONDS = 1e-6
_LARGEST_SHARE = 0.5
_NEVER = -(2**63)


class StreamRate(NamedTuple):
    """How fast the stream goes.

    Attributes:
        seen: float64[2], decayed numbers of rows and of seconds of event time.
        clocks: int64[2], microseconds: the highest event time so far, and as of the last block boundary.
    """

    seen: Floats
    clocks: Ints


@compiled
def _thresholds(
    first_sequence: int, block_rows: int, times: Ints, pace: StreamRate, budget: float, found: Floats
) -> None:
    seen, clocks = pace.seen, pace.clocks
    for row in range(len(times)):
        if (first_sequence + row) % block_rows == 0 and clocks[0] != _NEVER:
            if clocks[1] != _NEVER:
                elapsed = (clocks[0] - clocks[1]) * _MICROSECONDS
                fading = np.exp(-elapsed / _SECONDS_PER_DAY)
                seen[0] = seen[0] * fading + block_rows
                seen[1] = seen[1] * fading + elapsed
            clocks[1] = clocks[0]
        clocks[0] = max(clocks[0], times[row])
        share = 0.0
        if seen[0] > 0.0:
            share = min(budget * seen[1] / (seen[0] * _SECONDS_PER_DAY), _LARGEST_SHARE)
        found[row] = 1.0 - share


class AlertBudget:
    """A budget of alerts per day.

    Args:
        alerts_per_day: how many, in event time.
        block_rows: rows per block.
    """

    def __init__(self, alerts_per_day: float, block_rows: int) -> None:
        self._budget, self._block_rows = alerts_per_day, block_rows
        self.pace = StreamRate(np.zeros(2), np.full(2, _NEVER))

    def thresholds(self, times: Ints, first_sequence: int) -> tuple[Floats, StreamRate]:
        """Return the score each row must reach, float64[n], and the pace this leads to.

        Nothing is flagged in the first two blocks: the pace is that between two of their ends.

        Args:
            times: int64[n], event time in microseconds, read-only.
            first_sequence: `sequence` of the first row.
        """
        pace = StreamRate._make(part.copy() for part in self.pace)
        found = np.empty(len(times))
        _thresholds(first_sequence, self._block_rows, times, pace, self._budget, found)
        return found, pace
