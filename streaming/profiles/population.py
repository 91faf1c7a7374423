"""What is known of a kind of entities as a whole, block by block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streaming.arrays.compilation import Floats
from streaming.profiles.levels import Levels

_LEAST_VARIANCE = 1e-4
_RESIDUAL_PRIOR = 16.0


@dataclass(frozen=True)
class Population:
    """A kind of entities as a whole, one value per block.

    Attributes:
        horizons: float64[horizons], seconds, ascending.
        weights: float64[blocks], decayed number of transactions; 0 in a cold start.
        means, variances: of all log-amounts.
        within: variance of log-amounts around their own entity's mean.
        rates: transactions per second of one entity, from the gaps between its transactions; 0 if unknown.
        first_seen: share of transactions whose entity was new, with add-one smoothing.
    """

    horizons: Floats
    weights: Floats
    means: Floats
    variances: Floats
    within: Floats
    rates: Floats
    first_seen: Floats


@dataclass(frozen=True)
class PopulationPass:
    """A kind as a whole in one batch.

    Attributes:
        population: per block.
        settled, pending: float64[8], what the batch leads to; see State.
    """

    population: Population
    settled: Floats
    pending: Floats


def population_of(statistics: Floats, horizons: Floats, levels: Levels) -> Population:
    """Turn raw sums, float64[blocks, 8], into what the detectors use; `levels` go before the kind's own."""
    rows, total, squares, gaps, seconds, fresh, residuals, residual_squares = statistics.T
    counted = np.maximum(rows, 1.0)
    own = total / counted
    means = np.where(np.isnan(levels.means), own, levels.means)
    variances = np.where(np.isnan(levels.variances), squares / counted - own * own, levels.variances)
    variances = np.maximum(variances, _LEAST_VARIANCE)
    prior = _RESIDUAL_PRIOR
    within = (residual_squares + prior * variances) / (residuals + prior)
    return Population(
        horizons=horizons,
        weights=np.ascontiguousarray(rows),
        means=means,
        variances=variances,
        within=np.clip(within, _LEAST_VARIANCE, variances),
        rates=gaps / np.maximum(seconds, np.maximum(gaps, 1.0) * 1e-6),
        first_seen=(fresh + 1.0) / (rows + 2.0),
    )
