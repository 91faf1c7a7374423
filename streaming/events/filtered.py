"""The records of a block that a contract does not want, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from schemas.contract import EventContract
from schemas.tables import COORDINATES
from streaming.arrays.compilation import Flags
from streaming.events.found import Found
from streaming.events.where import NOT_JUDGED, NOT_WANTED, TOMBSTONE, Truth

# In the order of their codes.
REASONS = (NOT_WANTED, NOT_JUDGED, TOMBSTONE)
_WANTED = -1
_SCHEMA = pa.schema([*COORDINATES, pa.field("reason", pa.string())])
NOTHING_FILTERED = _SCHEMA.empty_table()


class LeftOut:
    """Which rows of a block are left out.

    Args:
        rows: how many there are.
    """

    def __init__(self, rows: int) -> None:
        self._codes = np.full(rows, _WANTED, np.int8)

    @property
    def rows(self) -> Flags:
        """Those that are left out so far, bool[n]."""
        found: Flags = self._codes != _WANTED
        return found

    def add(self, row: int, reason: str) -> None:
        """Leave one row out."""
        self._codes[row] = REASONS.index(reason)

    def judge(
        self, contract: EventContract, values: pa.Array, found: Mapping[str, Found], vouched: Flags
    ) -> None:
        """Leave out what a contract does not want of the vouched rows, and vouch no more for it.

        Args:
            values: the records; null ones are tombstones, whether vouched for or not.
            found: what a scan found of each field.
            vouched: bool[n], in and out.
        """
        if contract.leaves_out_tombstones and values.null_count:
            self._codes[values.is_null().to_numpy(zero_copy_only=False)] = REASONS.index(TOMBSTONE)
        wanted = contract.wanted
        if wanted is None:
            return
        truth = Truth.of(wanted, found, vouched)
        self._codes[truth.fails] = REASONS.index(NOT_WANTED)
        self._codes[vouched & ~truth.holds & ~truth.fails] = REASONS.index(NOT_JUDGED)
        vouched &= truth.holds

    def table(self, coordinates: Sequence[pa.Array]) -> pa.Table:
        """Return coordinates and reason of what is left out.

        Args:
            coordinates: of all rows.
        """
        rows = self.rows
        if not rows.any():
            return NOTHING_FILTERED
        reasons = pa.array(REASONS).take(pa.array(self._codes[rows]))
        kept = pa.array(rows)
        return pa.Table.from_arrays([*(each.filter(kept) for each in coordinates), reasons], schema=_SCHEMA)
