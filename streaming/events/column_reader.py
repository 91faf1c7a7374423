"""The values of one column of many events at once, as `exact_decode` reads each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from schemas.contract import EventContract
from schemas.event_columns import Column, Reading
from streaming.arrays.compilation import Flags
from streaming.events import json_strings
from streaming.events.found import Found


class ColumnReader:
    """Turns what was scanned for one column into an Arrow array, clearing `vouched` where it cannot."""

    def __init__(self, contract: EventContract, column: Column, found: Found, vouched: Flags) -> None:
        self._contract, self._column, self._found, self._vouched = contract, column, found, vouched

    def read(self) -> pa.Array:
        """Return the column; rows that are no longer vouched for hold anything."""
        return _READERS[self._column.reading](self)

    def _keep(self, fit: Flags) -> Flags:
        """Vouch only for fit rows, or null ones where null is allowed; return the fit ones."""
        if self._column.required:
            self._vouched &= fit
        else:
            self._vouched &= fit | self._found.are_null()
        return fit & self._vouched

    def _ids(self) -> pa.Array:
        found = self._found
        wanted = found.kinds == json_strings.INTEGER
        if self._column.json_type == "string":
            wanted |= self._found.are_texts()
        return self._found.texts(self._keep(wanted & (found.ends > found.starts) & self._short()))

    def _strings(self) -> pa.Array:
        return self._found.texts(self._keep(self._found.are_texts() & self._short()))

    def _short(self) -> Flags:
        """No text has more characters than bytes, so they are counted only where the bytes are too many."""
        found, longest = self._found, self._column.max_length or 0
        short: Flags = found.ends - found.starts <= longest
        if not short.all():
            sizes = np.empty(len(short), np.int64)
            json_strings.text_sizes(found.data, found.kinds, found.starts, found.ends, sizes)
            short |= (sizes <= longest) & self._found.are_texts()
        return short

    def _booleans(self) -> pa.Array:
        kinds = self._found.kinds
        present = self._keep((kinds == json_strings.TRUE) | (kinds == json_strings.FALSE))
        return pa.array(kinds == json_strings.TRUE, mask=~present)

    def _integers(self) -> pa.Array:
        fit = self._found.kinds == json_strings.INTEGER
        return pa.array(self._found.wholes(fit), mask=~self._keep(fit))

    def _numbers(self) -> pa.Array:
        fit = self._found.are_numbers()
        return pa.array(self._found.floats(fit), mask=~self._keep(fit))

    def _amounts(self) -> pa.Array:
        fit = self._found.are_numbers()
        values = self._found.floats(fit)
        fit &= (values >= 0) & (values <= self._contract.amount.most)
        return pa.array(values, mask=~self._keep(fit))


_READERS: Mapping[Reading, Callable[[ColumnReader], pa.Array]] = {
    "id": ColumnReader._ids,
    "amount": ColumnReader._amounts,
    "currency": ColumnReader._strings,
    "text": ColumnReader._strings,
    "number": ColumnReader._numbers,
    "integer": ColumnReader._integers,
    "boolean": ColumnReader._booleans,
}
