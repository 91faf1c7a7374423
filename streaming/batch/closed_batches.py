"""What the closed batches say of an agent's past: which labels they knew, which rules were in force, when.

Everybody who derives state from them does it here. How much is read depends on what is asked for, not on how
long the agent has run: files are chosen by their statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.instants import micros_of
from streaming.batch.patterns_in_force import COLUMNS, Stretch, stretches
from streaming.delta.stored import STATISTICS_SLACK, StoredTable
from streaming.labels.label_pins import PIN_COLUMNS, LabelPins


def unbalanced(batches: pl.DataFrame) -> int:
    """Return of how many batches not every record read was stored, set aside or left out, by their counts."""
    filtered = batches["filtered"].fill_null(0)
    counted = batches["stored"] + batches["quarantined"] + batches["duplicates"] + filtered
    return int((batches["read"] != counted).sum())


class ClosedBatches:
    """Reads the table `batches`.

    Args:
        table: at the version that is to be read; whoever owns it refreshes it.
    """

    def __init__(self, table: StoredTable) -> None:
        self._table = table

    def label_pins(self, since: int = 0) -> LabelPins:
        """Return which labels each batch knew, ascending, from the batch that ends at row `since` on.

        Files in which nothing new became known are not opened.
        """
        if since:
            rows = self._table.read("next_sequence", since, columns=PIN_COLUMNS)
        else:
            rows = self._table.of_files(self._with_new_labels(), PIN_COLUMNS)
        return LabelPins.of_batches(pl.DataFrame(rows))

    def stretches(self, first: int, end: int) -> list[Stretch]:
        """Return which rules over two events were in force from row `first` on, below `end`."""
        batches = self._table.read("next_sequence", first + 1, columns=COLUMNS)
        return stretches(pl.DataFrame(batches), first, end)

    def closed_before(self, moment: datetime) -> int:
        """Return the row after the last one of the batches that were closed before a moment, 0 for none."""
        at, ends = micros_of(moment), {name: high for name, _, high in self._table.ranges("next_sequence")}
        reached, open_files = 0, list[str]()
        for name, low, high in self._table.ranges("closed_at"):
            if high is None or low is None or low < at <= high + STATISTICS_SLACK:
                open_files.append(name)
            elif high + STATISTICS_SLACK < at:
                reached = max(reached, ends.get(name) or 0)
        rows = self._table.of_files(open_files, ["closed_at", "next_sequence"])
        before = rows.filter(pc.less(rows["closed_at"], pa.scalar(moment)))
        return max(reached, int(pc.max(before["next_sequence"]).as_py() or 0))

    def after(self, reached: int, columns: Sequence[str]) -> dict[str, Any] | None:
        """Return the first closed batch with rows from `reached` on, None when there is none yet."""
        rows = self._table.read("next_sequence", reached + 1, columns=columns)
        return cast("dict[str, Any]", rows.slice(0, 1).to_pylist()[0]) if rows.num_rows else None

    def _with_new_labels(self) -> list[str]:
        """Return the files in which a batch may be the first to know labels.

        `labels_through` never falls from batch to batch. So a file that holds a single value of it says
        nothing new if that is 0, or if a file that ends before it begins reaches the same value.
        """
        firsts = {name: (low, high) for name, low, high in self._table.ranges("first_sequence")}
        reached, throughs = dict[int, int](), self._table.ranges("labels_through")
        for name, _, high in throughs:
            end = firsts[name][1]
            if high is not None and end is not None:
                reached[high] = min(end, reached.get(high, end))
        found = list[str]()
        for name, low, high in throughs:
            begin = firsts[name][0]
            alike = low is not None and low == high and begin is not None
            if not alike or (high and reached[high] >= cast("int", begin)):
                found.append(name)
        return found
