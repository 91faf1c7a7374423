"""Which labels each batch knew: two numbers in its row, and all batches' numbers in columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

PIN_COLUMNS = ["first_sequence", "labels_through", "labels_below"]
_Longs = npt.NDArray[np.int64]


class LabelPin(NamedTuple):
    """Which labels count from a row on.

    Attributes:
        first: `sequence` of that row.
        through: labels with a lower `label_sequence` count.
        below: their transactions have a lower `sequence`; a label on any other counts for nothing.
    """

    first: int
    through: int
    below: int


@dataclass(frozen=True, eq=False)
class LabelPins:
    """The pins of batches, ascending, never changed: those that hold them share them.

    A batch that is the first to know a label adds 24 bytes, so a year of one a minute takes 13 MB.

    Attributes:
        firsts: the rows that they count from.
        throughs: see LabelPin; no two are alike where they come from batches.
        belows: see LabelPin.
    """

    firsts: _Longs
    throughs: _Longs
    belows: _Longs

    @classmethod
    def of(cls, pins: Iterable[LabelPin] = ()) -> LabelPins:
        """Return pins that are given in ascending order."""
        return cls(*np.array(list(pins), np.int64).reshape(-1, 3).T.copy())

    @classmethod
    def of_batches(cls, batches: pl.DataFrame) -> LabelPins:
        """Return the pins of closed batches, without those that repeat the one before.

        Args:
            batches: rows of the batches table, PIN_COLUMNS at least.
        """
        rows = batches.select(PIN_COLUMNS).sort(PIN_COLUMNS)
        changed = rows.filter(pl.col("labels_through") > pl.col("labels_through").shift(1).fill_null(0))
        return cls(*(changed[name].to_numpy() for name in PIN_COLUMNS))

    @property
    def newest(self) -> LabelPin:
        """The last pin; before the first one, a pin that knows no label."""
        if not len(self.firsts):
            return LabelPin(0, 0, 0)
        return LabelPin(int(self.firsts[-1]), int(self.throughs[-1]), int(self.belows[-1]))

    def then(self, pin: LabelPin) -> LabelPins:
        """Return these pins and one more behind them."""
        columns = (self.firsts, self.throughs, self.belows)
        return LabelPins(*(np.append(column, number) for column, number in zip(columns, pin, strict=True)))

    def before(self, row: int) -> LabelPins:
        """Return the pins that count from rows below `row` on."""
        count = int(np.searchsorted(self.firsts, row))
        return LabelPins(self.firsts[:count], self.throughs[:count], self.belows[:count])

    def counted(self, labels: pl.DataFrame) -> pl.DataFrame:
        """Add to labels the row that each counts from on, and the bound its transaction has to lie below.

        Args:
            labels: column `label_sequence`, each below the newest pin's `through`.
        """
        place = np.searchsorted(self.throughs, labels["label_sequence"].to_numpy(), side="right")
        return labels.with_columns(position=self.firsts[place], below=self.belows[place])
