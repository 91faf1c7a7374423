"""How far event time has come, block by block: what decides when an entity has been idle for too long.

The clock of a block is the latest median event time of the blocks before it, so a few transactions dated far
ahead do not make everybody idle, and nothing depends on how the rows were cut into batches.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streaming.arrays.arrow_arrays import Saved
from streaming.arrays.compilation import Ints
from streaming.profiles.profile_kernels import NEVER

# In microseconds: further back than any event, and what is twice as long still fits 64 bits.
LONGEST_SPAN = 1 << 61


class Ticks(NamedTuple):
    """State of the clock.

    Attributes:
        now: event time in microseconds, NEVER before the first block is full.
        times: int64[m], event times of the block that is not full yet.
    """

    now: int
    times: Ints


class BlockClock:
    """Reads event time off the rows.

    Args:
        block_rows: rows per block.
        idle: microseconds after which an entity without a transaction is forgotten; None for never.
    """

    def __init__(self, block_rows: int, idle: int | None) -> None:
        self.block_rows, self._idle = block_rows, None if idle is None else min(idle, LONGEST_SPAN)
        self.ticks = Ticks(NEVER, np.zeros(0, np.int64))

    @property
    def forgotten(self) -> int:
        """Entities not seen after this event time, in microseconds, count as never seen; NEVER for none."""
        return int(self._horizon(np.array([self.ticks.now]))[0])

    def advance(self, times: Ints, first_sequence: int) -> tuple[Ints, Ticks]:
        """Return the event time up to which entities are forgotten, int64[blocks], and the next state.

        Args:
            times: int64[n], event time in microseconds.
            first_sequence: `sequence` of the first row.
        """
        rows = self.block_rows
        blocks = (first_sequence + max(len(times), 1) - 1) // rows - first_sequence // rows + 1
        if self._idle is None:
            return np.full(blocks, NEVER), self.ticks
        joined = np.concatenate([self.ticks.times, times])
        full = joined[: len(joined) // rows * rows].reshape(-1, rows)
        middle = (rows - 1) // 2
        medians = np.partition(full, middle, axis=1)[:, middle]
        clocks = np.maximum.accumulate(np.concatenate([[self.ticks.now], medians]))
        return self._horizon(clocks[:blocks]), Ticks(int(clocks[-1]), joined[full.size :].copy())

    def snapshot(self) -> Saved:
        """Return the state as it is saved in checkpoints."""
        now, times = pa.array([self.ticks.now], pa.int64()), pa.array(self.ticks.times)
        columns = {"now": {"time": now}, "times": {"time": times}}
        return {name: pa.RecordBatch.from_pydict(column) for name, column in columns.items()}

    def restore(self, saved: Saved) -> None:
        """Continue from what snapshot() returned."""
        now, times = saved["now"]["time"], saved["times"]["time"]
        self.ticks = Ticks(now[0].as_py(), times.to_numpy().copy())

    def _horizon(self, clocks: Ints) -> Ints:
        if self._idle is None:
            return np.full(len(clocks), NEVER)
        return np.where(clocks == NEVER, NEVER, clocks - self._idle)
