"""The population pass of profiles: what all rows of a kind together say, in `sequence` order.

It needs nothing but what the entity half has found of each row, see entity_kernels.
"""

from __future__ import annotations

import numpy as np

from streaming.arrays.compilation import Floats, Ints, compiled
from streaming.profiles.entity_kernels import fold_entities
from streaming.profiles.profile_kernels import (
    LEAST_WEIGHT,
    POPULATION_WIDTH,
    Blocks,
    Features,
    Rows,
    State,
    TeachingLimits,
)

_ROWS, _ROW_SUM, _ROW_SQUARES, _GAPS, _GAP_SECONDS, _FRESH, _RESIDUALS, _RESIDUAL_SQUARES = range(8)
_FIRST_SEEN = -1.0


@compiled
def _promote(population: Floats, pending: Floats, decay: float) -> None:
    for place in range(POPULATION_WIDTH):
        population[place] = population[place] * decay + pending[place]
        pending[place] = 0.0


@compiled
def _standin(population: Floats, given: float) -> float:
    return float(population[_ROW_SUM] / max(population[_ROWS], 1.0)) if np.isnan(given) else given


@compiled
def _squared_residual(log_amount: float, count: float, total: float) -> float:
    # The difference to a mean of n values has (1 + 1/n) times the variance of one value.
    residual = log_amount - total / count
    return residual * residual * count / (count + 1.0)


@compiled
def _learn(
    start: int,
    stop: int,
    logs: Floats,
    features: Features,
    standin: float,
    most: tuple[float, float],
    pending: Floats,
) -> None:
    counts, _, sums, _, exposures, gaps, late = features
    longest = counts.shape[1] - 1
    most_residual, most_gap = most
    for row in range(start, stop):
        if np.isnan(exposures[row]):
            continue
        if exposures[row] == _FIRST_SEEN:
            pending[_FRESH] += 1.0
        elif not late[row]:
            pending[_GAPS] += 1.0
            pending[_GAP_SECONDS] += min(gaps[row], most_gap)
        history, log_amount = counts[row, longest], logs[row]
        if np.isnan(log_amount):
            log_amount = sums[row] / history if history > LEAST_WEIGHT else standin
        pending[_ROWS] += 1.0
        pending[_ROW_SUM] += log_amount
        pending[_ROW_SQUARES] += log_amount * log_amount
        if history > LEAST_WEIGHT:
            residual = _squared_residual(log_amount, history, sums[row])
            pending[_RESIDUALS] += 1.0
            pending[_RESIDUAL_SQUARES] += min(residual, most_residual)


@compiled
def fold_population(
    blocks: Blocks,
    logs: Floats,
    features: Features,
    limits: TeachingLimits,
    population: Floats,
    pending: Floats,
    populations: Floats,
) -> None:
    """Fill in `populations`, float64[blocks, 8], moving the kind's statistics past all rows.

    Args:
        blocks: where the rows stand; there is no gap between them.
        logs: float64[n], log-amounts, NaN for those that are not above 0.
        features: of all rows, in `sequence` order.
        limits: what one row can teach.
        population, pending: float64[8], see State.
        populations: is filled with `population` as of each block that the rows touch; see Population.
    """
    start, block = 0, 0
    populations[0] = population
    while start < len(logs):
        begun = (blocks.first_sequence + start) % blocks.rows
        if begun == 0:
            _promote(population, pending, blocks.decay)
            populations[block] = population
        stop = min(start + blocks.rows - begun, len(logs))
        standin = _standin(population, limits.standins[block])
        _learn(start, stop, logs, features, standin, (limits.residual, limits.gap), pending)
        start, block = stop, block + 1


@compiled
def fold_by_turns(
    blocks: Blocks,
    rows: Rows,
    state: State,
    features: Features,
    horizons: Floats,
    forgotten: Ints,
    limits: TeachingLimits,
) -> None:
    """Do the entity half and the population pass block by block, as the first arithmetic needs it.

    There the mean of the kind stands in for the logarithm of an amount of 0, so what an entity learns in one
    block rests on all rows of the blocks before it. `state`, `population` and `pending` included, moves past
    all rows; see fold_entities for the rest.
    """
    population, pending, standins = state.population, state.pending, limits.standins.copy()
    places = np.arange(len(rows.codes))
    start, block = 0, 0
    while start < len(places):
        begun = (blocks.first_sequence + start) % blocks.rows
        if begun == 0:
            _promote(population, pending, blocks.decay)
        stop = min(start + blocks.rows - begun, len(places))
        standins[block] = _standin(population, standins[block])
        fold_entities(places[start:stop], blocks, rows, state, features, horizons, forgotten, standins)
        _learn(
            start, stop, rows.log_amounts, features, standins[block], (limits.residual, limits.gap), pending
        )
        start, block = stop, block + 1
