"""Look-ups between shares of rows, what they exceed, and nats of surprise."""

from __future__ import annotations

import math
import sys

from streaming.arrays.compilation import Floats, compiled

_LINEAR_NATS = 16.0
_MOST_NATS = math.log(sys.float_info.max)


def exponential(nats: float) -> float:
    """Return e to the power of `nats`, the largest number there is where that is more."""
    return math.exp(min(nats, _MOST_NATS))


@compiled
def tempered(nats: float) -> float:
    """Return 0 or more: beyond 16 nats their logarithm goes on, so that no one surprise drowns the others."""
    if nats <= _LINEAR_NATS:
        return max(nats, 0.0)
    return _LINEAR_NATS * (1.0 + math.log(nats / _LINEAR_NATS))


@compiled
def exceeded_by(shares: Floats, share: float, lowest: float, bins_per_unit: int) -> float:
    """Return the value that a share of rows exceeds.

    Args:
        shares: float64[bins], of rows at or above the lower edge of each bin; the last bin is open.
        lowest: lower edge of the first bin.
        bins_per_unit: bins are that fine.
    """
    place = len(shares) - 1
    while place > 0 and shares[place] < share:
        place -= 1
    if place == len(shares) - 1:
        return lowest + place / bins_per_unit
    step = shares[place] - shares[place + 1]
    within = (shares[place] - share) / step if step > 0.0 else 0.0
    return lowest + (place + within) / bins_per_unit
