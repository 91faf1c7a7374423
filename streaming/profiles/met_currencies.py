"""Whether a stream whose amounts are compared as they stand has held more than one currency so far.

While it has not, what is usual is an amount in that currency; from the first row in another one on it is in
none. No score depends on it, only what sentences may say. It moves on with each row, in `sequence` order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streaming.arrays.arrow_arrays import Saved
from streaming.arrays.compilation import Flags
from streaming.profiles.currency_scales import currency_names


class MetState(NamedTuple):
    """What has been met.

    Attributes:
        first: the currency of the first row, empty where it named none; None before any row.
        several: another one has been met since.
    """

    first: str | None
    several: bool


class MetCurrencies:
    """What a stream has held so far; see the module."""

    def __init__(self) -> None:
        self.state = MetState(None, several=False)

    def advance(self, transactions: pa.Table) -> tuple[Flags, MetState]:
        """Return by row, bool[n], whether there were several, itself included, and the next state.

        The current state stays as it is.

        Args:
            transactions: rows in `sequence` order with their currency.
        """
        rows = transactions.num_rows
        if self.state.several or not rows:
            return np.full(rows, self.state.several), self.state
        names = currency_names(transactions)
        first = names[0].as_py() if self.state.first is None else self.state.first
        others = pc.not_equal(names, first).to_numpy()
        several = np.logical_or.accumulate(others)
        return several, MetState(first, several=bool(several[-1]))

    def snapshot(self) -> Saved:
        """Return the state as it is saved in checkpoints."""
        columns = {
            "first": pa.array([self.state.first], pa.string()),
            "several": pa.array([self.state.several]),
        }
        return {"met": pa.RecordBatch.from_pydict(columns)}

    def restore(self, saved: Saved) -> None:
        """Continue from what snapshot() returned."""
        (row,) = saved["met"].to_pylist()
        self.state = MetState(row["first"], several=row["several"])
