"""What pairs of runs beside each other say of a difference: its median, and how sure that is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_CASES = 0.95


@dataclass(frozen=True)
class Overhead:
    """By how many percent something is more in runs of one kind than in those of another kind beside them.

    Attributes:
        median: over all pairs.
        low, high: the interval that holds the median of ever more pairs in 95 of 100 cases; of fewer than
            six pairs, between the smallest and the largest.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, percents: Sequence[float]) -> Overhead:
        """Count the pairs below and above, whatever they are distributed like."""
        found, outside = sorted(percents), 0
        while outside < (len(found) - 1) // 2 and _missed(len(found), outside + 1) <= 1 - _CASES:
            outside += 1
        return cls(statistics.median(found), found[outside], found[-1 - outside])

    def conclusion(self, most: float) -> str:
        """Say whether it is within so many percent, and whether that is certain."""
        if self.median > most:
            certain = "certainly" if self.low > most else "perhaps: more rounds say it more closely"
            return f"above {most:g} %, {certain}"
        certain = "certainly" if self.high <= most else "perhaps: more rounds say it more closely"
        return f"within {most:g} %, {certain}"


def _missed(pairs: int, outside: int) -> float:
    """Return how likely the median lies outside, where so many pairs are left out on either side."""
    cases = sum(math.comb(pairs, each) for each in range(outside + 1))
    return math.ldexp(cases, 1 - pairs)
