"""Detectors: how surprising a row is given its entity's profile, in nats (0 = not at all).

Each surprise is -ln of a tail probability or an upper bound on one, so surprises of different detectors
are on one scale. Above 16 nats they grow with the logarithm only, so that one feature cannot drown all
others; the order is kept.

Amount: upper tail of the log-amount under a normal-inverse-gamma posterior of the entity, whose prior is
    the population, its strength being the ratio of the variance within entities to that between them
    (Gelman et al., Bayesian Data Analysis, 3rd ed., sections 3.3 and 5.4). The predictive Student t is
    turned into a normal deviate after Wallace (1959), Annals of Mathematical Statistics 30, 1124-1130.
Rate: Chernoff bound of the count over a shorter horizon against the rate over the longest one. For a
    Poisson count it is n ln(n/lambda) - n + lambda (Boucheron, Lugosi, Massart, Concentration
    Inequalities, section 2.2); with a gamma posterior of the rate it becomes the negative binomial's
    n ln(n/lambda) - (n + a) ln((n + a)/(lambda + a)). It holds for decayed counts too, as weights within
    [0, 1] only lower the moment generating function. Of m horizons the largest counts, less ln m.
Novelty: -ln of the share of transactions whose entity is new; 0 for known entities.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from streaming.compilation import Floats, Ints, compiled
from streaming.profile_kernels import Features
from streaming.profiles import Population

AMOUNT, RATE, NOVELTY = "amount", "rate", "novelty"
DETECTORS: tuple[str, ...] = (AMOUNT, RATE, NOVELTY)

_LINEAR_NATS = 16.0
_FREEDOM = 8.0
_PRIOR_EVENTS = 2.0
_LEAST_EXPOSURE = 60.0
_LEAST_COUNT = 1e-9
_FAR = 30.0


class Lookout(NamedTuple):
    """What the detectors see of one batch: rows of one kind and that kind's population per block."""

    first_sequence: int
    block_rows: int
    log_amounts: Floats
    horizons: Floats
    counts: Floats
    sums: Floats
    squares: Floats
    exposures: Floats
    weights: Floats
    means: Floats
    variances: Floats
    within: Floats
    rates: Floats
    first_seen: Floats


class Norm(NamedTuple):
    """The population's log-amounts: decayed number, mean, variance, and variance within one entity."""

    weight: float
    mean: float
    variance: float
    within: float


class Past(NamedTuple):
    """An entity's log-amounts over the longest horizon: decayed count, sum and sum of squares."""

    events: float
    total: float
    squares: float


class Window(NamedTuple):
    """Transactions counted over an exposure, both decayed over one horizon."""

    events: float
    seconds: float


class Burst(NamedTuple):
    """The most surprising count, over `horizon` seconds."""

    nats: float
    horizon: float
    events: float
    expected: float


@compiled
def _tempered(nats: float) -> float:
    if nats <= _LINEAR_NATS:
        return max(nats, 0.0)
    return _LINEAR_NATS * (1.0 + math.log(nats / _LINEAR_NATS))


@compiled
def _normal_surprise(deviate: float) -> float:
    # -ln of the upper tail; erfc underflows from 38 on, its asymptotic series is exact to 1e-12 from 30 on.
    if deviate < _FAR:
        return -math.log(0.5 * math.erfc(deviate * math.sqrt(0.5)))
    inverse = 1.0 / (deviate * deviate)
    series = 1.0 - inverse * (1.0 - 3.0 * inverse * (1.0 - 5.0 * inverse))
    return 0.5 * deviate * deviate + math.log(deviate * math.sqrt(2.0 * math.pi)) - math.log(series)


@compiled
def _student_deviate(value: float, freedom: float) -> float:
    scale = (8.0 * freedom + 1.0) / (8.0 * freedom + 3.0)
    return math.copysign(scale * math.sqrt(freedom * math.log1p(value * value / freedom)), value)


@compiled
def _usual(norm: Norm, past: Past) -> tuple[float, float]:
    # Posterior mean of the log-amount and the weight behind it.
    prior = norm.within / max(norm.variance - norm.within, 0.01 * norm.variance)
    if past.events < _LEAST_COUNT:
        return norm.mean, prior
    return (prior * norm.mean + past.total) / (prior + past.events), prior + past.events


@compiled
def _amount(log_amount: float, norm: Norm, past: Past) -> float:
    if norm.weight <= 0.0 or log_amount <= 0.0:
        return 0.0
    usual, strength = _usual(norm, past)
    spread, freedom = _FREEDOM * norm.within, _FREEDOM
    if past.events >= _LEAST_COUNT:
        spread += max(past.squares - past.total * past.total / past.events, 0.0)
        freedom += past.events
    variance = spread / freedom + norm.within / strength
    deviation = (log_amount - usual) / math.sqrt(variance)
    return _tempered(_normal_surprise(_student_deviate(deviation, freedom)))


@compiled
def _long_run(exposure: float, longest: float, count: float) -> Window:
    # The first transaction opened the exposure, so it is not counted within it.
    first = math.exp(-exposure / longest)
    return Window(max(count - first, 0.0), (1.0 - first) * longest)


@compiled
def _expected(rate: float, recent: Window, whole: Window) -> tuple[float, float]:
    # Count expected from the rate of the time before the recent window, and the events behind that rate.
    behind = _PRIOR_EVENTS + max(whole.events - recent.events, 0.0)
    seconds = _PRIOR_EVENTS / rate + max(whole.seconds - recent.seconds, 0.0)
    return behind / seconds * recent.seconds, behind


@compiled
def _excess(count: float, expected: float, behind: float) -> float:
    if count <= expected or expected <= 0.0:
        return 0.0
    nats = count * math.log(count / expected)
    return max(nats - (count + behind) * math.log((count + behind) / (expected + behind)), 0.0)


@compiled
def _novelty(exposure: float, weight: float, first_seen: float) -> float:
    if exposure >= 0.0 or weight <= 0.0:
        return 0.0
    return _tempered(-math.log(first_seen))


@compiled
def _busiest(row: int, rate: float, exposure: float, counts: Floats, horizons: Floats) -> Burst:
    exposure = max(exposure, _LEAST_EXPOSURE)
    whole = _long_run(exposure, horizons[-1], counts[row, -1])
    found = Burst(0.0, horizons[0], 0.0, 0.0)
    for horizon in range(len(horizons) - 1):
        recent = _long_run(exposure, horizons[horizon], counts[row, horizon])
        if recent.events > 0.0:
            expected, behind = _expected(rate, recent, whole)
            nats = _excess(recent.events, expected, behind)
            if nats > found.nats:
                found = Burst(nats, horizons[horizon], recent.events, expected)
    return found


@compiled
def _surprises(seen: Lookout, which: Ints) -> Floats:
    # Arrays stay out of the functions called per row: handing them over costs more than the arithmetic.
    first_sequence, block_rows, logs, horizons, counts, sums, squares, exposures = seen[:8]
    weights, means, variances, within, rates, first_seen = seen[8:]
    found = np.zeros((len(sums), len(which)), dtype=np.float64)
    penalty = math.log(len(horizons) - 1.0)
    for row in range(len(sums)):
        exposure = exposures[row]
        if math.isnan(exposure):
            continue
        block = (first_sequence + row) // block_rows - first_sequence // block_rows
        for place in range(len(which)):
            if which[place] == 0:
                norm = Norm(weights[block], means[block], variances[block], within[block])
                found[row, place] = _amount(logs[row], norm, Past(counts[row, -1], sums[row], squares[row]))
            elif which[place] == 1:
                if exposure >= 0.0 and rates[block] > 0.0:
                    burst = _busiest(row, rates[block], exposure, counts, horizons)
                    found[row, place] = _tempered(burst.nats - penalty)
            else:
                found[row, place] = _novelty(exposure, weights[block], first_seen[block])
    return found


@compiled
def _evidence(seen: Lookout, rows: Ints) -> Floats:
    found = np.zeros((len(rows), 6), dtype=np.float64)
    first_block = seen.first_sequence // seen.block_rows
    for place in range(len(rows)):
        row = rows[place]
        block = (seen.first_sequence + row) // seen.block_rows - first_block
        norm = Norm(seen.weights[block], seen.means[block], seen.variances[block], seen.within[block])
        past = Past(seen.counts[row, -1], seen.sums[row], seen.squares[row])
        found[place, 0] = math.expm1(_usual(norm, past)[0])
        found[place, 1] = past.events
        found[place, 5] = 1.0 / seen.first_seen[block]
        if seen.rates[block] > 0.0 and seen.exposures[row] >= 0.0:
            burst = _busiest(row, seen.rates[block], seen.exposures[row], seen.counts, seen.horizons)
            found[place, 2], found[place, 3] = burst.horizon, burst.events
            found[place, 4] = burst.expected
    return found


class Evidence(NamedTuple):
    """The numbers behind one row's surprises.

    Attributes:
        usual: amount usual for the entity, or for the population while the entity has no history.
        events: decayed number of the entity's transactions over the longest horizon.
        horizon: seconds; the horizon with the most surprising count.
        recent, expected: transactions over that horizon after the first one, and what was expected.
        one_in: one in so many transactions comes from a new entity.
    """

    usual: float
    events: float
    horizon: float
    recent: float
    expected: float
    one_in: float


def evidence(seen: Lookout, rows: Ints) -> list[Evidence]:
    """Return the numbers behind the surprises of `rows`."""
    return [Evidence(*numbers) for numbers in _evidence(seen, rows).tolist()]


def look(features: Features, population: Population, log_amounts: Floats, place: tuple[int, int]) -> Lookout:
    """Bring together what the detectors need; `place` is (sequence of the first row, rows per block)."""
    return Lookout(
        first_sequence=place[0],
        block_rows=place[1],
        log_amounts=log_amounts,
        horizons=population.horizons,
        counts=features.counts,
        sums=features.sums,
        squares=features.squares,
        exposures=features.exposures,
        weights=population.weights,
        means=population.means,
        variances=population.variances,
        within=population.within,
        rates=population.rates,
        first_seen=population.first_seen,
    )


def surprises(seen: Lookout, detectors: tuple[str, ...]) -> Floats:
    """Return nats ≥ 0, float64[rows, detectors], 0 for rows that name no entity and in a cold start."""
    return _surprises(seen, np.array([DETECTORS.index(name) for name in detectors], np.int64))
