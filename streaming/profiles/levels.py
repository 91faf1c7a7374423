"""The level of all amounts: mean and variance of their logarithms, block by block.

In the first arithmetic each kind of entities goes by the rows it has seen, as they are, so that a few absurd
amounts move what is usual for everybody. In the second there is one level for all kinds, from `sequence` and
amount alone. A block is folded once it is full: a row then counts as at most a hundred times, or four robust
standard deviations, from the block's median, whichever is more (winsorized by median and median absolute
deviation, as in Huber, Robust Statistics, 1981, section 5.1). So fewer absurd rows than half a block move it
by no more than so much each, and nothing depends on how the rows were cut into batches.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from streaming.arrays.arrow_arrays import Saved
from streaming.arrays.compilation import Floats, compiled
from streaming.profiles.profile_kernels import TeachingLimits

_ORDINARY = math.log(100.0)
_DEVIATIONS = 4.0
_DEVIATION_OF_NORMAL = 1.4826
_ROWS, _SUM, _SQUARES = range(3)


class Levels(NamedTuple):
    """The level per block, float64[blocks]; NaN where each kind goes by its own rows."""

    means: Floats
    variances: Floats
    winsorized: bool

    def limits(self, horizons: Floats) -> TeachingLimits:
        """Return what one row can teach a kind; a gap counts as at most the longest of its horizons."""
        if not self.winsorized:
            return TeachingLimits(self.means, math.inf, math.inf)
        return TeachingLimits(self.means, _ORDINARY * _ORDINARY, float(horizons[-1]))


def own_levels(blocks: int) -> Levels:
    """Return levels that leave each kind to its own rows."""
    unknown = np.full(blocks, np.nan)
    return Levels(unknown, unknown, winsorized=False)


class LevelState(NamedTuple):
    """State of a level.

    Attributes:
        sums: float64[3], decayed number of positive amounts, sum of their logarithms and of the squares.
        logs: float64[m], log-amounts of the block that is not full yet, NaN for those that are not positive.
    """

    sums: Floats
    logs: Floats


class AmountLevel(Protocol):
    """How the level of amounts moves on."""

    state: LevelState

    def advance(self, logs: Floats, first_sequence: int) -> tuple[Levels, LevelState]:
        """Return the levels of the blocks that rows touch, and the next state.

        Args:
            logs: float64[n] from log_amounts.
            first_sequence: `sequence` of the first row.
        """

    def snapshot(self) -> Saved:
        """Return the state as it is saved in checkpoints."""

    def restore(self, saved: Saved) -> None:
        """Continue from what snapshot() returned."""


@compiled
def _fold_block(sums: Floats, logs: Floats, decay: float) -> None:
    known = logs[~np.isnan(logs)]
    sums *= decay
    if len(known) == 0:
        return
    centre = np.median(known)
    reach = max(_ORDINARY, _DEVIATIONS * _DEVIATION_OF_NORMAL * np.median(np.abs(known - centre)))
    for row in range(len(known)):
        value = min(max(known[row], centre - reach), centre + reach)
        sums[_ROWS] += 1.0
        sums[_SUM] += value
        sums[_SQUARES] += value * value


@compiled
def _fold_blocks(sums: Floats, full: Floats, decay: float, after: Floats) -> None:
    after[0] = sums
    for block in range(len(full)):
        _fold_block(sums, full[block], decay)
        after[block + 1] = sums


def _blocks(rows: int, first_sequence: int, block_rows: int) -> int:
    return (first_sequence + max(rows, 1) - 1) // block_rows - first_sequence // block_rows + 1


class OwnLevels:
    """Each kind goes by its own rows: the first arithmetic."""

    def __init__(self, block_rows: int) -> None:
        self._block_rows = block_rows
        self.state = LevelState(np.zeros(0), np.zeros(0))

    def advance(self, logs: Floats, first_sequence: int) -> tuple[Levels, LevelState]:
        """See AmountLevel."""
        return own_levels(_blocks(len(logs), first_sequence, self._block_rows)), self.state

    def snapshot(self) -> Saved:
        """See AmountLevel; nothing is remembered."""
        return {}

    def restore(self, saved: Saved) -> None:
        """See AmountLevel."""


class CommonLevel:
    """One winsorized level for all kinds: the second arithmetic.

    Args:
        block_rows: rows per block.
        block_decay: what one block leaves of what came before it.
    """

    def __init__(self, block_rows: int, block_decay: float) -> None:
        self._block_rows, self._decay = block_rows, block_decay
        self.state = LevelState(np.zeros(3), np.zeros(0))

    def advance(self, logs: Floats, first_sequence: int) -> tuple[Levels, LevelState]:
        """See AmountLevel."""
        rows = self._block_rows
        joined = np.concatenate([self.state.logs, logs])
        full = joined[: len(joined) // rows * rows].reshape(-1, rows)
        sums, after = self.state.sums.copy(), np.empty((len(full) + 1, 3))
        _fold_blocks(sums, full, self._decay, after)
        touched = after[: _blocks(len(logs), first_sequence, rows)]
        counted = np.maximum(touched[:, _ROWS], 1.0)
        means = touched[:, _SUM] / counted
        levels = Levels(means, touched[:, _SQUARES] / counted - means * means, winsorized=True)
        return levels, LevelState(sums, joined[full.size :].copy())

    def snapshot(self) -> Saved:
        """See AmountLevel."""
        columns = zip(LevelState._fields, self.state, strict=True)
        return {name: pa.RecordBatch.from_pydict({"value": pa.array(part)}) for name, part in columns}

    def restore(self, saved: Saved) -> None:
        """See AmountLevel."""
        self.state = LevelState(*(saved[name]["value"].to_numpy().copy() for name in LevelState._fields))
