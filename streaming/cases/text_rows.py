"""Where texts stand in a column that grows at its end: found by a hash of each, not by going through all."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import polars as pl

_Hashes = npt.NDArray[np.uint64]
_Places = npt.NDArray[np.int64]
_MOST_RECENT = 20_000  # beyond them the others are sorted anew, which takes a tenth of a second for a million


class TextRows:
    """The rows of one column by what they hold. Used by one thread at a time."""

    def __init__(self) -> None:
        self._sorted: tuple[_Hashes, _Places] = np.empty(0, np.uint64), np.empty(0, np.int64)
        self._recent: _Hashes = np.empty(0, np.uint64)

    def of(self, column: pl.Series, texts: Collection[str]) -> _Places:
        """Return the rows that hold any of some texts, int64[n] ascending.

        Args:
            column: as it was given before, with whatever has come behind.
            texts: looked for.
        """
        self._follow(column)
        wanted, (known, rows) = pl.Series(list(texts), dtype=pl.String), self._sorted
        hashes = np.unique(wanted.hash().to_numpy())
        spans = zip(np.searchsorted(known, hashes), np.searchsorted(known, hashes, "right"), strict=True)
        recent = np.flatnonzero(np.isin(self._recent, hashes)) + len(known)
        found: _Places = np.sort(np.concatenate([*(rows[low:high] for low, high in spans), recent]))
        is_held: npt.NDArray[np.bool_] = column.gather(found).is_in(wanted.implode()).to_numpy()
        return found[is_held]

    def _follow(self, column: pl.Series) -> None:
        known, rows = self._sorted
        fresh = column.slice(len(known) + len(self._recent))
        if len(fresh):
            self._recent = np.concatenate([self._recent, fresh.hash().to_numpy()])
        if len(self._recent) > _MOST_RECENT:
            hashes = np.concatenate([known, self._recent])
            places = np.concatenate([rows, np.arange(len(known), len(hashes))])
            order = np.argsort(hashes)
            self._sorted, self._recent = (hashes[order], places[order]), np.empty(0, np.uint64)
