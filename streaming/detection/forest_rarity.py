"""How rare a raw score is: -ln of the share of recent rows that score as high.

Scores are nats by which a place is emptier than the whole, so before any were seen e^-s of them are expected
above s > 0 (Markov's inequality for the ratio of two densities). Beyond the highest 1 in 200 an exponential
tail takes over, as in streaming.detection.tails.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from streaming.arrays.compilation import Floats, compiled
from streaming.detection.nats import exceeded_by, tempered

_BINS_PER_NAT = 16
_LOWEST = -32.0
_BINS = 64 * _BINS_PER_NAT
_PRIOR_ROWS = 64.0
_EXTREME = 0.005


class RarityHistogram(NamedTuple):
    """Decayed numbers of rows by raw score, float64[bins + 1]; `pending` awaits its block."""

    settled: Floats
    pending: Floats


def no_scores() -> RarityHistogram:
    """Return a histogram of nothing."""
    return RarityHistogram(np.zeros(_BINS + 1), np.zeros(_BINS + 1))


@compiled
def _shares(settled: Floats, shares: Floats) -> None:
    # The share of rows at or above the lower edge of each bin, held to e^-nats with the weight of 64 rows.
    above, total = 0.0, settled.sum() + _PRIOR_ROWS
    for place in range(len(shares) - 1, -1, -1):
        above += settled[place]
        prior = math.exp(-max(_LOWEST + place / _BINS_PER_NAT, 0.0))
        shares[place] = (above + _PRIOR_ROWS * prior) / total


@compiled
def rarity(raw: Floats, histogram: RarityHistogram, nats: Floats) -> None:
    """Put the surprise of each score into `nats`, float64[n] from 0 up, and count the scores as pending."""
    settled, pending = histogram
    shares = np.empty(len(settled), dtype=np.float64)
    _shares(settled, shares)
    start = exceeded_by(shares, _EXTREME, _LOWEST, _BINS_PER_NAT)
    excess = max(exceeded_by(shares, _EXTREME / 2.0, _LOWEST, _BINS_PER_NAT) - start, 1.0 / _BINS_PER_NAT)
    for row in range(len(raw)):
        position = min(max((raw[row] - _LOWEST) * _BINS_PER_NAT, 0.0), float(_BINS))
        pending[int(position)] += 1.0
        if raw[row] > start:
            nats[row] = tempered((raw[row] - start) / excess * math.log(2.0) - math.log(_EXTREME))
        else:
            place = min(int(position), len(shares) - 2)
            share = shares[place] + (shares[place + 1] - shares[place]) * (position - place)
            nats[row] = max(-math.log(share), 0.0)


@compiled
def promote(histogram: RarityHistogram, decay: float) -> None:
    """Age what was settled and settle what was pending, as happens at a block boundary."""
    histogram.settled[:] = histogram.settled * decay + histogram.pending
    histogram.pending[:] = 0.0
