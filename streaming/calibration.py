"""Turns total surprise into a calibrated score: the share of transactions that surprise less.

The tail frequency q(S) comes from a decayed histogram of earlier totals plus a little prior weight with the
tail of a gamma distribution (the sum of k unit exponentials, which -ln of k independent p-values would be).
The score is 1 - q(S): 0.99 means that about one transaction in a hundred scores that high. Like all
statistics of many rows, the histogram moves forward only at block boundaries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from streaming.compilation import Floats, compiled

BINS_PER_NAT = 16
BINS = 64 * BINS_PER_NAT
LOWEST_SCORE = 1e-3
SCORE_RESOLUTION = 1e-6
_PRIOR_ROWS = 64.0


class Histogram(NamedTuple):
    """Decayed counts of totals by bin, float64[BINS + 1], the last bin open; `pending` awaits its block."""

    counts: Floats
    pending: Floats


class Batch(NamedTuple):
    """Where a batch stands and its weighed surprises, float64[rows, reasons]."""

    first_sequence: int
    block_rows: int
    block_decay: float
    surprises: Floats


@dataclass(frozen=True)
class Calibrated:
    """Scores of one batch and the histogram they lead to.

    Attributes:
        scores: float64[n] in (0, 1).
        log_odds: float64[n], ln(score / (1 - score)).
        contributions: float64[n, reasons]; with `base` they add up to log_odds. Empty when not asked for.
        base: log-odds of a transaction that does not surprise at all.
    """

    scores: Floats
    log_odds: Floats
    contributions: Floats
    base: float
    histogram: Histogram


@compiled
def _sum_tails(counts: Floats, prior: Floats, tails: Floats) -> None:
    above = 0.0
    for place in range(len(counts) - 1, -1, -1):
        above += counts[place]
        tails[place] = prior[place] + above


@compiled
def _score(total: float, tails: Floats) -> float:
    # Both ends are kept off 0 and 1 by strictly monotone terms, so that order and log-odds survive rounding.
    position = total * BINS_PER_NAT
    if position < BINS:
        place = int(position)
        tail = tails[place] + (tails[place + 1] - tails[place]) * (position - place)
    else:
        tail = tails[BINS] * BINS / position
    share = tail / tails[0]
    span = 1.0 - LOWEST_SCORE - SCORE_RESOLUTION
    floor = SCORE_RESOLUTION * 0.5 * (1.0 + 1.0 / (1.0 + total))
    return 1.0 - float(span * share + floor)


@compiled
def _promote(histogram: Histogram, decay: float) -> None:
    for place in range(len(histogram.counts)):
        histogram.counts[place] = histogram.counts[place] * decay + histogram.pending[place]
        histogram.pending[place] = 0.0


@compiled
def _explain(row: int, batch: Batch, rise: float, contributions: Floats) -> None:
    # rise: log-odds above base per nat.
    for reason in range(batch.surprises.shape[1]):
        contributions[row, reason] = rise * batch.surprises[row, reason]


@compiled
def _calibrate(batch: Batch, histogram: Histogram, prior: Floats, out: tuple[Floats, Floats, Floats]) -> None:
    scores, log_odds, contributions = out
    tails = np.empty(len(prior), dtype=np.float64)
    base = math.log(LOWEST_SCORE / (1.0 - LOWEST_SCORE))
    _sum_tails(histogram.counts, prior, tails)
    for row in range(len(scores)):
        sequence = batch.first_sequence + row
        if sequence % batch.block_rows == 0:
            _promote(histogram, batch.block_decay)
            _sum_tails(histogram.counts, prior, tails)
        total = 0.0
        for reason in range(batch.surprises.shape[1]):
            total += batch.surprises[row, reason]
        # The first block meets no population yet: its totals say nothing about later ones.
        if sequence >= batch.block_rows:
            histogram.pending[int(min(total * BINS_PER_NAT, float(BINS)))] += 1.0
        scores[row] = _score(total, tails)
        log_odds[row] = math.log(scores[row] / (1.0 - scores[row]))
        if len(contributions) > 0:
            rise = (log_odds[row] - base) / total if total > 0.0 else 0.0
            _explain(row, batch, rise, contributions)


def gamma_tail(totals: Floats, terms: int) -> Floats:
    """Survival function of a gamma distribution with whole shape `terms` and scale 1, elementwise."""
    series = term = np.ones_like(totals)
    for order in range(1, terms):
        term = term * totals / order
        series = series + term
    return np.asarray(np.exp(-totals) * series)


class Calibration:
    """The histogram and its prior.

    Args:
        reasons: number of surprises that add up to a total.
        scale: mean weight of those surprises.
        block_rows: rows per block.
        block_decay: what one block leaves of the histogram before it.
    """

    def __init__(self, reasons: int, scale: float, block_rows: int, block_decay: float) -> None:
        edges = np.arange(BINS + 1) / BINS_PER_NAT / scale
        self._prior = _PRIOR_ROWS * gamma_tail(edges, max(reasons, 1))
        self._block_rows, self._block_decay = block_rows, block_decay
        self.histogram = Histogram(np.zeros(BINS + 1), np.zeros(BINS + 1))

    def calibrate(self, surprises: Floats, first_sequence: int, *, explain: bool = True) -> Calibrated:
        """Score one batch, leaving the current histogram as it is.

        Args:
            surprises: weighed surprises, float64[n, reasons], C-ordered.
            first_sequence: `sequence` of the first row.
            explain: also work out contributions.
        """
        rows = len(surprises)
        histogram = Histogram(*(part.copy() for part in self.histogram))
        contributions = np.empty(surprises.shape if explain else (0, 0))
        scores, log_odds = np.empty(rows), np.empty(rows)
        batch = Batch(first_sequence, self._block_rows, self._block_decay, surprises)
        _calibrate(batch, histogram, self._prior, (scores, log_odds, contributions))
        base = math.log(LOWEST_SCORE / (1.0 - LOWEST_SCORE))
        return Calibrated(scores, log_odds, contributions, base, histogram)
