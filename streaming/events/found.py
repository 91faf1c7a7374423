"""What compiled scanners find in records: where the value of each wanted field lies, and of which kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.arrays.compilation import Bytes, Flags, Floats, Ints, read_only
from streaming.events import json_strings, json_values

_EXACT = 1e15
_POWERS = np.array([10.0**power for power in range(16)])


@dataclass(frozen=True)
class Found:
    """What was found of one field: one entry per row of the block.

    Attributes:
        data: uint8, the bytes that the values lie in.
        kinds: int8[n], see json_strings; of a FLOAT `starts` has the 64 bits, of an INSTANT the microseconds,
            of a LOCAL those of a local clock.
        starts: int64[n], first byte of each value, quotes left out.
        ends: int64[n], first byte after it.
    """

    data: Bytes
    kinds: npt.NDArray[np.int8]
    starts: Ints
    ends: Ints

    def are_null(self) -> Flags:
        """Return which are absent or null, bool[n]."""
        null: Flags = (self.kinds == json_strings.MISSING) | (self.kinds == json_strings.NULL)
        return null

    def are_texts(self) -> Flags:
        """Return which are strings, bool[n]."""
        texts: Flags = (self.kinds == json_strings.STRING) | (self.kinds == json_strings.ESCAPED)
        return texts

    def are_digits(self) -> Flags:
        """Return which are numbers written in digits, bool[n]."""
        digits: Flags = (self.kinds == json_strings.INTEGER) | (self.kinds == json_strings.DECIMAL)
        return digits

    def are_numbers(self) -> Flags:
        """Return which are numbers, bool[n]."""
        numbers: Flags = self.are_digits() | (self.kinds == json_strings.FLOAT)
        return numbers

    def are_instants(self) -> Flags:
        """Return which are points in time, bool[n]."""
        instants: Flags = self.kinds == json_strings.INSTANT
        return instants

    def are_local_times(self) -> Flags:
        """Return which are what a local clock showed, bool[n]."""
        local: Flags = self.kinds == json_strings.LOCAL
        return local

    def are_truths(self) -> Flags:
        """Return which are true or false, bool[n]."""
        truths: Flags = (self.kinds == json_strings.TRUE) | (self.kinds == json_strings.FALSE)
        return truths

    def texts(self, present: Flags) -> pa.Array:
        """Return the present rows' texts, or numbers as they are written, as strings; null elsewhere."""
        offsets = np.empty(len(present) + 1, np.int64)
        bytes_at_most = int((self.ends - self.starts)[present].sum())
        out = np.empty(bytes_at_most, np.uint8)
        json_strings.gather(self.data, self.kinds, self.starts, self.ends, present, offsets, out)
        out = out[: offsets[-1]]
        nulls = None if present.all() else pa.array(present).buffers()[1]
        buffers = [nulls, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(out)]
        return pa.Array.from_buffers(pa.string(), len(present), buffers)

    def digits(self, present: Flags) -> tuple[Ints, npt.NDArray[np.int8]]:
        """Return the digits of the present numbers as integers, and how many follow the point.

        Numbers that are not written in digits are 0, see `hundredths`.
        """
        mantissas, places = np.empty(len(present), np.int64), np.empty(len(present), np.int8)
        written = present & (self.kinds != json_strings.FLOAT)
        json_values.read_numbers(self.data, self.starts, self.ends, written, mantissas, places)
        return mantissas, places

    def hundredths(self) -> tuple[Ints, Flags]:
        """Return the hundredths of numbers that are no digits (int64[n]), and which they are exactly."""
        written = self.starts.view(np.float64)
        small = (self.kinds == json_strings.FLOAT) & (np.abs(written) < _EXACT / 100)
        values = np.where(small, written, 0.0)
        whole = np.rint(values * 100)
        return whole.astype(np.int64), small & (whole / 100 == values)

    def wholes(self, present: Flags) -> Ints:
        """Return the present whole numbers, int64[n]; 0 elsewhere."""
        return self.digits(present)[0]

    def floats(self, present: Flags) -> Floats:
        """Return the present numbers as floats, float64[n]; 0 elsewhere."""
        values, binary = np.empty(len(present)), self.kinds == json_strings.FLOAT
        json_values.to_floats(*self.digits(present), _POWERS, values)
        return np.where(present & binary, self.starts.view(np.float64), values) if binary.any() else values


class FieldFinder(Protocol):
    """Finds the wanted fields of a block of records."""

    def find(self, records: pa.RecordBatch) -> tuple[Sequence[Found], Flags]:
        """Return what was found of each field, and which rows are vouched for (bool[n])."""
        ...


def buffers_of(values: pa.Array) -> tuple[Bytes, Ints]:
    """Return the bytes of binary values, and where each begins (int64[n + 1])."""
    wide = values.cast(pa.large_binary())
    _, offsets, data = wide.buffers()
    bounds = np.frombuffer(offsets, np.int64)[wide.offset : wide.offset + len(wide) + 1]
    content = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    return read_only(content), np.ascontiguousarray(bounds)
