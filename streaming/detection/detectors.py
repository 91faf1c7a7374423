"""Detectors: how surprising a row is given its entity's profile, in nats (0 = not at all).

Each surprise is -ln of a tail probability or an upper bound on one, so surprises of different detectors
are on one scale. Above 16 nats they grow with the logarithm only, so that one feature cannot drown all
others; the order is kept.

Amount: see `tails`; here is only what is usual. An entity's usual amount is its mean, shrunk towards
    the population's geometric mean with the strength of the ratio of the variance of log-amounts within
    entities to that between them (Gelman et al., Bayesian Data Analysis, 3rd ed., section 5.4). Where the
    spec names peers it is shrunk towards what is usual among them, which is shrunk towards the population.
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

from streaming.arrays.compilation import Floats, Ints, compiled
from streaming.arrays.cores import ALL_CORES, Cores
from streaming.detection.nats import tempered
from streaming.profiles.population import Population
from streaming.profiles.profile_kernels import Features

AMOUNT, RATE, NOVELTY, RECURRENCE, RISK = "amount", "rate", "novelty", "recurrence", "risk"
COUNTERPARTIES, TRAVEL, HABIT = "counterparties", "travel", "habit"
MULTIVARIATE = "multivariate"
OF_PROFILES: tuple[str, ...] = (AMOUNT, RATE, NOVELTY, RECURRENCE, RISK)

_PRIOR_EVENTS = 2.0
_LEAST_EXPOSURE = 60.0
_BY_ROW = ("log_amounts", "counts", "amounts", "exposures", "peers")
_BY_BLOCK = ("weights", "means", "variances", "within", "rates", "first_seen")


class DetectorInput(NamedTuple):
    """What the detectors see of one batch: rows of one kind and that kind's population per block.

    `peers`, float64[n], is what is usual among the entity's peers, NaN for the population's geometric mean.
    """

    first_sequence: int
    block_rows: int
    log_amounts: Floats
    horizons: Floats
    counts: Floats
    amounts: Floats
    exposures: Floats
    weights: Floats
    means: Floats
    variances: Floats
    within: Floats
    rates: Floats
    first_seen: Floats
    peers: Floats

    def part(self, rows: slice) -> DetectorInput:
        """Return the same of a span of rows."""
        first = self.first_sequence + rows.start
        blocks = slice(first // self.block_rows - self.first_sequence // self.block_rows, None)
        by_row = {name: getattr(self, name)[rows] for name in _BY_ROW}
        by_block = {name: getattr(self, name)[blocks] for name in _BY_BLOCK}
        return self._replace(first_sequence=first, **by_row, **by_block)


class Norm(NamedTuple):
    """The population's log-amounts: decayed number, mean, variance, and variance within one entity."""

    weight: float
    mean: float
    variance: float
    within: float


class DecayedRate(NamedTuple):
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
def _usual(norm: Norm, events: float, paid: float, peers: float) -> float:
    centre = math.exp(norm.mean) if math.isnan(peers) else peers
    prior = norm.within / max(norm.variance - norm.within, 0.01 * norm.variance)
    return (prior * centre + paid) / (prior + events)


@compiled
def _log_ratios(seen: DetectorInput, ratios: Floats) -> None:
    first_sequence, block_rows, logs, _, counts, amounts, exposures = seen[:7]
    weights, means, variances, within, _, _, peers = seen[7:]
    for row in range(len(ratios)):
        block = (first_sequence + row) // block_rows - first_sequence // block_rows
        ratios[row] = np.nan
        if weights[block] > 0.0 and not math.isnan(logs[row]) and not math.isnan(exposures[row]):
            norm = Norm(weights[block], means[block], variances[block], within[block])
            usual = _usual(norm, counts[row, -1], amounts[row, -1], peers[row])
            ratios[row] = logs[row] - math.log(usual)


@compiled
def _population_log_ratios(seen: DetectorInput, ratios: Floats) -> None:
    first_block = seen.first_sequence // seen.block_rows
    for row in range(len(ratios)):
        block = (seen.first_sequence + row) // seen.block_rows - first_block
        known = seen.weights[block] > 0.0
        ratios[row] = seen.log_amounts[row] - seen.means[block] if known else np.nan


def population_log_ratios(seen: DetectorInput, cores: Cores = ALL_CORES) -> Floats:
    """Return ln(amount / geometric mean of all amounts), float64[n]; NaN where there is none."""
    ratios = np.empty(len(seen.log_amounts))
    cores.over(lambda rows: _population_log_ratios(seen.part(rows), ratios[rows]), len(ratios))
    return ratios


def log_ratios(seen: DetectorInput, cores: Cores = ALL_CORES) -> Floats:
    """Return ln(amount / usual amount), float64[n]; NaN without an entity, an amount or a population."""
    ratios = np.empty(len(seen.log_amounts))
    cores.over(lambda rows: _log_ratios(seen.part(rows), ratios[rows]), len(ratios))
    return ratios


@compiled
def _long_run(exposure: float, longest: float, count: float) -> DecayedRate:
    # The first transaction opened the exposure, so it is not counted within it.
    first = math.exp(-exposure / longest)
    return DecayedRate(max(count - first, 0.0), (1.0 - first) * longest)


@compiled
def _expected(rate: float, recent: DecayedRate, whole: DecayedRate) -> tuple[float, float]:
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
    return tempered(-math.log(first_seen))


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
def _surprises(seen: DetectorInput, found: Floats) -> None:
    # Arrays stay out of the functions called per row: handing them over costs more than the arithmetic.
    first_sequence, block_rows, _, horizons, counts, _, exposures = seen[:7]
    weights, _, _, _, rates, first_seen, _ = seen[7:]
    penalty = math.log(len(horizons) - 1.0)
    for row in range(len(exposures)):
        exposure = exposures[row]
        if math.isnan(exposure):
            continue
        block = (first_sequence + row) // block_rows - first_sequence // block_rows
        if exposure >= 0.0 and rates[block] > 0.0:
            burst = _busiest(row, rates[block], exposure, counts, horizons)
            found[row, 0] = tempered(burst.nats - penalty)
        found[row, 1] = _novelty(exposure, weights[block], first_seen[block])


@compiled
def _evidence(seen: DetectorInput, rows: Ints) -> Floats:
    found = np.zeros((len(rows), 6), dtype=np.float64)
    first_block = seen.first_sequence // seen.block_rows
    for place in range(len(rows)):
        row = rows[place]
        block = (seen.first_sequence + row) // seen.block_rows - first_block
        norm = Norm(seen.weights[block], seen.means[block], seen.variances[block], seen.within[block])
        found[place, 0] = _usual(norm, seen.counts[row, -1], seen.amounts[row, -1], seen.peers[row])
        found[place, 1] = seen.counts[row, -1]
        found[place, 5] = 1.0 / seen.first_seen[block]
        if seen.rates[block] > 0.0 and seen.exposures[row] >= 0.0:
            burst = _busiest(row, seen.rates[block], seen.exposures[row], seen.counts, seen.horizons)
            found[place, 2], found[place, 3] = burst.horizon, burst.events
            found[place, 4] = burst.expected
    return found


class Evidence(NamedTuple):
    """The numbers behind one row's surprises.

    Attributes:
        usual: amount usual for the entity; while it has no history, for the population.
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


def evidence(seen: DetectorInput, rows: Ints) -> list[Evidence]:
    """Return the numbers behind the surprises of `rows`."""
    return [Evidence(*numbers) for numbers in _evidence(seen, rows).tolist()]


def detector_input(
    features: Features,
    population: Population,
    log_amounts: Floats,
    place: tuple[int, int],
    peers: Floats | None = None,
) -> DetectorInput:
    """Bring together what the detectors need; `place` is (sequence of the first row, rows per block)."""
    return DetectorInput(
        first_sequence=place[0],
        block_rows=place[1],
        log_amounts=log_amounts,
        horizons=population.horizons,
        counts=features.counts,
        amounts=features.amounts,
        exposures=features.exposures,
        weights=population.weights,
        means=population.means,
        variances=population.variances,
        within=population.within,
        rates=population.rates,
        first_seen=population.first_seen,
        peers=np.full(len(log_amounts), np.nan) if peers is None else peers,
    )


def surprises(seen: DetectorInput, cores: Cores = ALL_CORES) -> Floats:
    """Return the nats ≥ 0 of rate and novelty, float64[n, 2]; 0 without an entity and in a cold start."""
    found = np.zeros((len(seen.exposures), 2))
    cores.over(lambda rows: _surprises(seen.part(rows), found[rows]), len(found))
    return found
