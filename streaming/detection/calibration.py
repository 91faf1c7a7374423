"""Turns a row's total evidence into a calibrated score: the share of transactions with less of it.

The tail frequency q(S) comes from a decayed histogram of earlier totals plus a little prior weight: the union
bound on surprises of which each exceeds s nats with probability e^-s. The score is 1 - q(S): 0.99 means that
about one transaction in a hundred scores that high. Like all statistics of many rows, the histogram moves
forward only at block boundaries. Contributions to the log-odds are shares of the way from the score of no
evidence to the row's score along the straight line from no evidence to the row's (the prices of Aumann and
Shapley; Sundararajan, Taly, Yan, Axiomatic Attribution for Deep Networks, 2017, section 3), so they add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from streaming.arrays.compilation import Floats, compiled

BINS_PER_NAT = 16
LOWEST_NATS = -8.0
BINS = 72 * BINS_PER_NAT
LOWEST_SCORE = 1e-3
SCORE_RESOLUTION = 1e-6
_PRIOR_ROWS = 64.0
_TOLL_NATS = 3.0


class TotalsHistogram(NamedTuple):
    """Decayed counts of totals by bin, float64[BINS + 1], the last bin open; `pending` awaits its block."""

    counts: Floats
    pending: Floats


class Batch(NamedTuple):
    """Where a batch stands and its total evidence in nats, float64[rows]."""

    first_sequence: int
    block_rows: int
    block_decay: float
    totals: Floats


@dataclass(frozen=True)
class Calibrated:
    """Scores of one batch and the histogram they lead to.

    Attributes:
        scores: float64[n] in (0, 1).
        log_odds: float64[n], ln(score / (1 - score)).
        base: float64[n], log-odds of a transaction without any evidence.
    """

    scores: Floats
    log_odds: Floats
    base: Floats
    histogram: TotalsHistogram


@compiled
def _sum_tails(counts: Floats, prior: Floats, tails: Floats) -> None:
    above = 0.0
    for place in range(len(counts) - 1, -1, -1):
        above += counts[place]
        tails[place] = prior[place] + above


@compiled
def _score(total: float, tails: Floats) -> float:
    # Both ends are kept off 0 and 1 by strictly monotone terms, so that order and log-odds survive rounding.
    position = (total - LOWEST_NATS) * BINS_PER_NAT
    if position <= 0.0:
        tail = tails[0]
    elif position < BINS:
        place = int(position)
        tail = tails[place] + (tails[place + 1] - tails[place]) * (position - place)
    else:
        tail = tails[BINS] * BINS / position
    share = tail / tails[0]
    span = 1.0 - LOWEST_SCORE - SCORE_RESOLUTION
    height = math.atan(total) / math.pi + 0.5
    floor = SCORE_RESOLUTION * (1.0 - 0.5 * height)
    return 1.0 - float(span * share + floor)


@compiled
def _promote(histogram: TotalsHistogram, decay: float) -> None:
    for place in range(len(histogram.counts)):
        histogram.counts[place] = histogram.counts[place] * decay + histogram.pending[place]
        histogram.pending[place] = 0.0


@compiled
def _log_odds(score: float) -> float:
    return math.log(score / (1.0 - score))


@compiled
def _calibrate(
    batch: Batch, histogram: TotalsHistogram, prior: Floats, out: tuple[Floats, Floats, Floats]
) -> None:
    scores, log_odds, bases = out
    tails = np.empty(len(prior), dtype=np.float64)
    _sum_tails(histogram.counts, prior, tails)
    base = _log_odds(_score(0.0, tails))
    for row in range(len(scores)):
        sequence = batch.first_sequence + row
        if sequence % batch.block_rows == 0:
            _promote(histogram, batch.block_decay)
            _sum_tails(histogram.counts, prior, tails)
            base = _log_odds(_score(0.0, tails))
        total = batch.totals[row]
        # The first block meets no population yet: its totals say nothing about later ones.
        if sequence >= batch.block_rows:
            place = min(max((total - LOWEST_NATS) * BINS_PER_NAT, 0.0), float(BINS))
            histogram.pending[int(place)] += 1.0
        scores[row] = _score(total, tails)
        log_odds[row] = _log_odds(scores[row])
        bases[row] = base


def prior_tail(reasons: int) -> Floats:
    """Share of totals expected at or above each bin's lower edge, float64[BINS + 1], before any were seen."""
    edges = LOWEST_NATS + np.arange(BINS + 1) / BINS_PER_NAT
    return np.where(edges <= 0.0, 1.0, np.minimum(1.0, max(reasons, 1) * np.exp(-edges - _TOLL_NATS)))


class Calibration:
    """The histogram and its prior.

    Args:
        reasons: number of parts that add up to a total.
        block_rows: rows per block.
        block_decay: what one block leaves of the histogram before it.
    """

    def __init__(self, reasons: int, block_rows: int, block_decay: float) -> None:
        self._prior = _PRIOR_ROWS * prior_tail(reasons)
        self._block_rows, self._block_decay = block_rows, block_decay
        self.histogram = TotalsHistogram(np.zeros(BINS + 1), np.zeros(BINS + 1))

    def calibrate(self, totals: Floats, first_sequence: int) -> Calibrated:
        """Score one batch, leaving the current histogram as it is.

        Args:
            totals: nats, float64[n].
            first_sequence: `sequence` of the first row.
        """
        rows = len(totals)
        histogram = TotalsHistogram(*(part.copy() for part in self.histogram))
        scores, log_odds, bases = np.empty(rows), np.empty(rows), np.empty(rows)
        batch = Batch(first_sequence, self._block_rows, self._block_decay, totals)
        _calibrate(batch, histogram, self._prior, (scores, log_odds, bases))
        return Calibrated(scores, log_odds, bases, histogram)
