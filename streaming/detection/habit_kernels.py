"""Compiled loop over the hours of the week at which entities are active, and the arrays it works on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streaming.arrays.compilation import Codes, Floats, Ints, compiled
from streaming.profiles.profile_kernels import NEVER, Blocks

_HOURS = 3
BINS = 7 * 24 // _HOURS
_BIN_US = _HOURS * 3_600_000_000
# The weeks since 1970 began on a Thursday, day 3 when Monday is 0.
_FIRST_DAY_BINS = 3 * 24 // _HOURS
_PRIOR_EVENTS = 10.0
_MICROSECONDS = 1e-6


class Hours(NamedTuple):
    """Mutable arrays of one kind of entities.

    Attributes:
        counts: float32[m, BINS], decayed transactions by three hours of the week, from Monday 0:00 on.
        seen: int64[m], newest event time in microseconds, NEVER before the first.
        census, pending: float64[BINS], the same of all entities as of the last block boundary, and what the
            rows since then add.
    """

    counts: npt.NDArray[np.float32]
    seen: Ints
    census: Floats
    pending: Floats


@compiled
def judge_hours(
    blocks: Blocks,
    codes: Codes,
    times: Ints,
    local: Ints,
    memory: Hours,
    forgotten: Ints,
    horizon: float,
    found: Floats,
) -> None:
    """Fill `found`, float64[n], with how unusual each row's hours are for its entity, in nats.

    It is -ln of the probability of hours as unusual or more so, under the posterior mean of the entity's
    shares: a Dirichlet prior that weighs ten transactions and has the shares of all entities (Gelman et al.,
    Bayesian Data Analysis, 3rd ed., section 3.4). The hours are those of `local`,
    int64[n], the moments by local clocks. Counts fade with exp(-age / horizon), in seconds. 0 for an entity
    without history; see profile_kernels.fold for `forgotten`.
    """
    counts, seen, census, pending = memory
    usual, shares = np.empty(BINS), np.empty(BINS)
    first_block = blocks.first_sequence // blocks.rows
    stale = True
    for row in range(len(codes)):
        sequence = blocks.first_sequence + row
        if sequence % blocks.rows == 0:
            for place in range(BINS):
                census[place] = census[place] * blocks.decay + pending[place]
                pending[place] = 0.0
            stale = True
        if stale:
            everybody = census.sum() + BINS
            for place in range(BINS):
                usual[place] = (census[place] + 1.0) / everybody
            stale = False
        found[row] = 0.0
        code, time = codes[row], times[row]
        if code < 0:
            continue
        own = (local[row] // _BIN_US + _FIRST_DAY_BINS) % BINS
        pending[own] += 1.0
        if seen[code] <= forgotten[sequence // blocks.rows - first_block]:
            seen[code] = NEVER
            counts[code, :] = np.float32(0.0)
        weight = 1.0
        if seen[code] == NEVER:
            seen[code] = time
        else:
            elapsed = (np.float64(time) - np.float64(seen[code])) * _MICROSECONDS
            fading = np.exp(-abs(elapsed) / horizon)
            kept = fading if elapsed >= 0.0 else 1.0
            weight = 1.0 if elapsed >= 0.0 else fading
            total = _PRIOR_EVENTS
            for place in range(BINS):
                held = counts[code, place] * kept
                total += held
                shares[place] = held + _PRIOR_EVENTS * usual[place]
                counts[code, place] = held
            tail = 0.0
            for place in range(BINS):
                if shares[place] <= shares[own]:
                    tail += shares[place]
            found[row] = max(-np.log(tail / total), 0.0)
            seen[code] = max(seen[code], time)
        counts[code, own] += weight
