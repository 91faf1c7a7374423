"""One batch as profiles and detectors see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streaming.arrays.columns import entity_ids, microseconds, numbers
from streaming.arrays.compilation import Flags, Floats, Ints, read_only
from streaming.profiles.block_clock import BlockClock, Ticks
from streaming.profiles.currency_scales import InUnits
from streaming.profiles.directions import are_refunds, entity_of, holds_refunds
from streaming.profiles.entity_half import KnownLabels
from streaming.profiles.profile_kernels import log_amounts


@dataclass(frozen=True)
class Frame:
    """Rows in `sequence` order, without a gap.

    Attributes:
        transactions: with amount, currency, event_time and the columns of the entities.
        labels: what became known of earlier transactions; None for nothing.
        first_sequence: `sequence` of the first row.
        pairs: what each pair of entities is called → its entities.
        times: int64[n], event time in microseconds since 1970, read-only.
        amounts: float64[n], read-only.
        log_amounts: float64[n].
        forgotten: int64[blocks], microseconds; in each block that the rows touch, an entity not seen after
            it is as if never seen.
        block_rows: rows per block.
        refunds: bool[n], which rows are refunds; None where none are known apart.
    """

    transactions: pa.Table
    labels: pa.Table | None
    first_sequence: int
    pairs: Mapping[str, tuple[str, str]]
    times: Ints
    amounts: Floats
    log_amounts: Floats
    forgotten: Ints
    block_rows: int
    refunds: Flags | None = None

    @classmethod
    def of(
        cls,
        transactions: pa.Table,
        labels: pa.Table | None,
        first_sequence: int,
        pairs: Mapping[str, tuple[str, str]],
        clock: BlockClock,
        *,
        refunds: bool = False,
    ) -> tuple[Frame, Ticks]:
        """Take the numbers out of the tables; returns the clock's next state as well.

        Args:
            refunds: refunds have kinds of their own, see streaming.profiles.directions.
        """
        amounts = read_only(numbers(transactions["amount"], pa.float64()))
        times = read_only(numbers(microseconds(transactions["event_time"]), pa.int64()))
        forgotten, ticks = clock.advance(times, first_sequence)
        columns = (times, amounts, log_amounts(amounts), forgotten)
        apart = are_refunds(transactions) if refunds else None
        return cls(transactions, labels, first_sequence, pairs, *columns, clock.block_rows, apart), ticks

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.times)

    def forgotten_by_row(self) -> Ints:
        """Return `forgotten` for each row, int64[n]."""
        blocks = np.arange(self.first_sequence, self.first_sequence + len(self)) // self.block_rows
        return self.forgotten[blocks - self.first_sequence // self.block_rows]

    def ids(self, kind: str) -> pa.ChunkedArray:
        """Return each row's entity of one kind; null where it has none, or belongs to the other direction."""
        return self._ids(self.transactions, kind)

    def in_units(self, found: InUnits) -> Frame:
        """Return the same rows with their amounts in units of what is usual in their currencies."""
        return replace(self, amounts=read_only(found.amounts), log_amounts=found.log_amounts)

    def logs_of(self, *, refunds: bool) -> Floats:
        """Return the log-amounts of one direction, float64[n]; NaN in rows of the other."""
        if self.refunds is None:
            return self.log_amounts
        return np.where(self.refunds == refunds, self.log_amounts, np.nan)

    def known(self, kind: str) -> KnownLabels | None:
        """Return the labels with the entities of one kind that they concern."""
        if self.labels is None:
            return None
        return KnownLabels(
            self._ids(self.labels, kind),
            read_only(numbers(microseconds(self.labels["event_time"]), pa.int64())),
            read_only(numbers(self.labels["blame"], pa.float64())),
            read_only(numbers(self.labels["first"], pa.bool_())),
            read_only(numbers(self.labels["position"], pa.int64())),
        )

    def _ids(self, rows: pa.Table, kind: str) -> pa.ChunkedArray:
        entity = entity_of(kind)
        ids = entity_ids(rows, self.pairs.get(entity, (entity,)))
        if self.refunds is None:
            return ids
        return pc.if_else(pa.array(are_refunds(rows) == holds_refunds(kind)), ids, None)
