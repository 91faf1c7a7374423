"""How rarely an amount exceeds what is usual by so much: tail frequencies learned from the stream itself.

A view compares each amount with something usual (the entity's own, or all payments') and keeps a decayed
histogram of the logarithm of the ratio, by how much history stands behind the usual amount: 0, 1-3, 4-15 or
16 and more transactions. A thin depth leans on all depths together, and all of them on a log-normal ratio,
each with the weight of 64 rows (shrinkage). The surprise is -ln of the share of rows with a higher ratio;
beyond the highest 1 in 200 an exponential tail takes over, fitted to the median excess (peaks over threshold
with shape 0: Coles, An Introduction to Statistical Modeling of Extreme Values, 2001, chapter 4; the median
because frauds lie in that tail). Nothing depends on the unit of the amounts.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from streaming.arrays.compilation import Floats, compiled
from streaming.detection.nats import exceeded_by, tempered

DEPTHS = 4
_LEAST_HISTORY = (1.0, 4.0, 16.0)
_BINS_PER_NAT = 32
_LOWEST_LOG = -8.0
_BINS = 16 * _BINS_PER_NAT
_PRIOR_ROWS = 64.0
_EXTREME = 0.005
_LEAST_SCALE = 1e-3
_FAR = 600.0


class Counts(NamedTuple):
    """Decayed numbers of rows, float64[DEPTHS, bins], the last bin open; `pending` awaits its block."""

    settled: Floats
    pending: Floats


class Course(NamedTuple):
    """Where a batch stands in the sequence, and how statistics move forward at block boundaries."""

    first_sequence: int
    block_rows: int
    block_decay: float


class _Tail(NamedTuple):
    """The exponential tail of one depth: log-ratio where it starts, its ratio, and the scale in ratios."""

    start: float
    ratio: float
    scale: float


@compiled
def _shares(counts: Floats, pooled: Floats, prior: Floats, shares: Floats) -> None:
    # shares[b] is the share of rows at or above the lower edge of bin b.
    rows, above, all_rows, all_above = counts.sum(), 0.0, pooled.sum(), 0.0
    for place in range(len(shares) - 1, -1, -1):
        above += counts[place]
        all_above += pooled[place]
        common = (all_above + _PRIOR_ROWS * prior[place]) / (all_rows + _PRIOR_ROWS)
        shares[place] = (above + _PRIOR_ROWS * common) / (rows + _PRIOR_ROWS)


@compiled
def _fit(shares: Floats) -> _Tail:
    start = exceeded_by(shares, _EXTREME, _LOWEST_LOG, _BINS_PER_NAT)
    ratio = math.exp(start)
    excess = math.exp(exceeded_by(shares, _EXTREME / 2.0, _LOWEST_LOG, _BINS_PER_NAT)) - ratio
    return _Tail(start, ratio, max(excess, _LEAST_SCALE * ratio) / math.log(2.0))


@compiled
def _depth(history: float) -> int:
    depth = 0
    while depth < DEPTHS - 1 and history >= _LEAST_HISTORY[depth]:
        depth += 1
    return depth


@compiled
def _nats(log_ratio: float, shares: Floats, start: float, ratio: float, scale: float) -> float:
    if log_ratio > start:
        return tempered(-math.log(_EXTREME) + (math.exp(min(log_ratio, _FAR)) - ratio) / scale)
    position = (log_ratio - _LOWEST_LOG) * _BINS_PER_NAT
    if position <= 0.0:
        return 0.0
    place = min(int(position), len(shares) - 2)
    share = shares[place] + (shares[place + 1] - shares[place]) * min(position - place, 1.0)
    return max(-math.log(share), 0.0)


@compiled
def _surprises(
    course: Course, log_ratios: Floats, histories: Floats, counts: Counts, prior: Floats, nats: Floats
) -> None:
    settled, pending = counts
    shares = np.empty((DEPTHS, len(prior)), dtype=np.float64)
    starts, ratios, scales = np.empty(DEPTHS), np.empty(DEPTHS), np.empty(DEPTHS)
    stale = True
    for row in range(len(log_ratios)):
        sequence = course.first_sequence + row
        if sequence % course.block_rows == 0:
            settled[:, :] = settled * course.block_decay + pending
            pending[:, :] = 0.0
            stale = True
        if stale:
            pooled = settled.sum(axis=0)
            for depth in range(DEPTHS):
                _shares(settled[depth], pooled, prior, shares[depth])
                tail = _fit(shares[depth])
                starts[depth], ratios[depth], scales[depth] = tail.start, tail.ratio, tail.scale
            stale = False
        log_ratio = log_ratios[row]
        nats[row] = 0.0
        if math.isnan(log_ratio):
            continue
        depth = _depth(histories[row])
        nats[row] = _nats(log_ratio, shares[depth], starts[depth], ratios[depth], scales[depth])
        # The first block meets no population yet: its ratios say nothing about later ones.
        if sequence >= course.block_rows:
            place = int(max(min((log_ratio - _LOWEST_LOG) * _BINS_PER_NAT, _BINS), 0.0))
            pending[depth, place] += 1.0


def _normal_tail() -> Floats:
    edges = _LOWEST_LOG + np.arange(_BINS + 1) / _BINS_PER_NAT
    return np.array([0.5 * math.erfc(edge / math.sqrt(2.0)) for edge in edges.tolist()])


class TailFrequencies:
    """The tails of one view.

    Args:
        block_rows: rows per block.
        block_decay: what one block leaves of the histogram before it.
    """

    def __init__(self, block_rows: int, block_decay: float) -> None:
        self._block_rows, self._block_decay = block_rows, block_decay
        self._prior = _normal_tail()
        self.counts = Counts(np.zeros((DEPTHS, _BINS + 1)), np.zeros((DEPTHS, _BINS + 1)))

    def surprises(self, log_ratios: Floats, histories: Floats, first_sequence: int) -> tuple[Floats, Counts]:
        """Return nats ≥ 0, float64[n], and the counts they lead to, leaving the current ones as they are.

        Args:
            log_ratios: float64[n], ln(amount / usual); NaN where there is nothing to compare.
            histories: float64[n], decayed number of transactions behind the usual amount.
            first_sequence: `sequence` of the first row.
        """
        counts = Counts(*(part.copy() for part in self.counts))
        nats = np.empty(len(log_ratios))
        course = Course(first_sequence, self._block_rows, self._block_decay)
        _surprises(course, log_ratios, histories, counts, self._prior, nats)
        return nats, counts
