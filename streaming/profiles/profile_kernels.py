"""The arrays that profiles are made of, and compiled loops that copy them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streaming.arrays.compilation import Codes, Flags, Floats, Ints, compiled

NEVER = int(np.iinfo(np.int64).min)
LEAST_WEIGHT = 1e-3
MOMENTS = 4
ENTITY_PARTS = ("moments", "clocks", "strikes", "struck", "frauds", "judged", "judged_at")
POPULATION_WIDTH = 8
KIND_PARTS = ("labels", "frontier", "population", "pending")


class Blocks(NamedTuple):
    """Where a batch stands in the sequence and how statistics of all rows move forward.

    `rows` is the length of a block and `decay` the factor by which each block ages what came before it.
    """

    first_sequence: int
    rows: int
    decay: float

    def count(self, rows: int) -> int:
        """Return the number of blocks that `rows` rows from `first_sequence` on touch, at least 1."""
        last = self.first_sequence + max(rows, 1) - 1
        return last // self.rows - self.first_sequence // self.rows + 1


class TeachingLimits(NamedTuple):
    """What one row can teach a kind as a whole.

    Attributes:
        standins: float64[blocks], logarithm that counts for an amount of 0 of an entity without history; NaN
            for the mean logarithm of the kind.
        residual: largest squared distance of a log-amount from its entity's mean.
        gap: longest time between two transactions of an entity, in seconds.
    """

    standins: Floats
    residual: float
    gap: float


class State(NamedTuple):
    """Mutable arrays of one kind.

    Attributes:
        moments: float64[m, horizons, 4], decayed count, sum of amounts, of log-amounts and of their squares.
        clocks: int64[m, 3], last and first event time in microseconds, number of transactions.
        strikes: float64[m], decayed nats of the entity's striking transactions; see entity_kernels.recall.
        struck: int64[m], event time in microseconds as of which `strikes` holds.
        frauds, judged: float64[m, memories], decayed numbers of frauds among the labels on the entity's
            transactions and of all labels; see entity_kernels.judge.
        judged_at: int64[m], event time in microseconds as of which they hold.
        labels: float64[2], decayed number of all labels, and of frauds among them.
        frontier: int64[1], highest event time of a transaction with a label.
        population: float64[8], statistics of the kind as of the last block boundary.
        pending: float64[8], what the rows since then will add to them.
    """

    moments: Floats
    clocks: Ints
    strikes: Floats
    struck: Ints
    frauds: Floats
    judged: Floats
    judged_at: Ints
    labels: Floats
    frontier: Ints
    population: Floats
    pending: Floats


class Rows(NamedTuple):
    """Rows of one batch, all of them or those that were sent here.

    Attributes:
        sequences: int64[n], ascending, gaps are allowed.
        codes: int32[n], entity codes, -1 for none.
        times: int64[n], event times in microseconds.
        amounts, log_amounts: float64[n].
    """

    sequences: Ints
    codes: Codes
    times: Ints
    amounts: Floats
    log_amounts: Floats


class LabelEvents(NamedTuple):
    """Labels on earlier transactions, in the order in which they became known.

    Attributes:
        codes: int32[v], entity codes (-1 for none).
        times: int64[v], event times of the transactions, in microseconds.
        blames: float64[v], 0 for genuine, up to 1 for a fraud that nothing but the entity explains; of a
            changed label, by how much that changes.
        firsts: bool[v], it is the first label on its transaction and not a changed one.
        positions: int64[v], ascending; `sequence` of the first row that knows the label.
    """

    codes: Codes
    times: Ints
    blames: Floats
    firsts: Flags
    positions: Ints


class Features(NamedTuple):
    """What the detectors see of each row: its entity's profile just before the row.

    All of it comes from the entity's own rows, so it can be worked out apart for any entities.

    Attributes:
        counts, amounts: float64[n, horizons], decayed count and sum of amounts per horizon.
        sums, squares: float64[n], decayed moments of the log-amount over the longest horizon.
        exposures: float64[n], seconds since the entity was first seen; -1 at its first transaction, NaN
            where the row names no entity of this kind.
        gaps: float64[n], seconds since the entity's newest transaction, negative if late; NaN at the first.
        late: bool[n], the entity has already had a later transaction.
    """

    counts: Floats
    amounts: Floats
    sums: Floats
    squares: Floats
    exposures: Floats
    gaps: Floats
    late: Flags


@compiled
def log_amounts(amounts: Floats) -> Floats:
    """Return the natural logarithms, float64[n]; NaN for amounts that are not above 0.

    It is scalar code because vectorized logarithms may differ in the last bit between the body and the tail
    of an array.
    """
    logs = np.full(len(amounts), np.nan)
    for row in range(len(amounts)):
        if amounts[row] > 0.0:
            logs[row] = np.log(amounts[row])
    return logs


@compiled
def gather(state: State, slots: Ints, copies: State) -> None:
    """Copy the entities at `slots` into `copies`, which stay blank where a slot is -1."""
    for code in range(len(slots)):
        if slots[code] >= 0:
            copies.moments[code] = state.moments[slots[code]]
            copies.clocks[code] = state.clocks[slots[code]]
            copies.strikes[code] = state.strikes[slots[code]]
            copies.struck[code] = state.struck[slots[code]]
            copies.frauds[code] = state.frauds[slots[code]]
            copies.judged[code] = state.judged[slots[code]]
            copies.judged_at[code] = state.judged_at[slots[code]]


@compiled
def scatter(touched: State, slots: Ints, state: State) -> None:
    """Write touched entities back to their slots."""
    for code in range(len(slots)):
        state.moments[slots[code]] = touched.moments[code]
        state.clocks[slots[code]] = touched.clocks[code]
        state.strikes[slots[code]] = touched.strikes[code]
        state.struck[slots[code]] = touched.struck[code]
        state.frauds[slots[code]] = touched.frauds[code]
        state.judged[slots[code]] = touched.judged[code]
        state.judged_at[slots[code]] = touched.judged_at[code]
