"""The times of many events at once, as `exact_times` reads each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contract import EventContract
from schemas.instants import MICRO, micros_of
from schemas.tables import UTC_MICROS
from schemas.time_fields import NANOSECONDS
from streaming.arrays.compilation import Bytes, Flags, Ints
from streaming.events import json_strings, json_values
from streaming.events.found import Found, buffers_of
from streaming.events.zones import local_offsets

_INT64 = 2**63
_TWO_DAYS = 2 * 86_400 * 1_000_000


def time_bounds(contract: EventContract) -> tuple[int, int, int]:
    """Return the earliest and the latest event time and how far it may be ahead, in microseconds."""
    time = contract.event_time
    return micros_of(time.earliest), micros_of(time.latest), time.max_ahead // MICRO


def time_array(contract: EventContract, found: Mapping[str, Found], vouched: Flags) -> pa.Array:
    """Return one time per row, a timestamp in microseconds.

    Args:
        found: by path, what was found of each field.
        vouched: bool[n]; cleared for rows left to the exact decoder, which hold any time.
    """
    parts = [found[source] for source in contract.event_time.sources]
    if contract.event_time.format == "epoch":
        micros, good = _epoch_times(contract, parts[0])
    else:
        micros, good = _written_times(contract, parts, vouched)
    if len(parts) == 1 and (instants := parts[0].are_instants()).any():
        micros, good = np.where(instants, parts[0].starts, micros), good | instants
    vouched &= good
    return pa.array(micros).cast(UTC_MICROS)


def _written_times(contract: EventContract, parts: Sequence[Found], vouched: Flags) -> tuple[Ints, Flags]:
    time, count = contract.event_time, len(vouched)
    micros = np.zeros(count, np.int64)
    good, zoned = np.zeros(count, np.bool_), np.ones(count, np.bool_)
    if time.year is not None:
        return micros, good
    texts = _texts(parts[0], vouched) if len(parts) == 1 else _joined(parts, vouched)
    if time.format == "iso8601":
        json_values.iso_times(*texts, micros, good, zoned)
    elif (steps := json_values.pattern_steps(time.format)) is not None:
        json_values.pattern_times(*texts, steps, micros, good, zoned)
    # No offset brings back what is days out of bounds, so no record makes every year be probed.
    earliest, latest, _ = time_bounds(contract)
    local = good & ~zoned & (micros > earliest - _TWO_DAYS) & (micros < latest + _TWO_DAYS)
    if time.zone != "UTC" and local.any():
        micros[local] -= local_offsets(time.zone, micros[local])
    return micros, good


def _texts(found: Found, vouched: Flags) -> tuple[Bytes, Ints, Ints, Flags]:
    return found.data, found.starts, found.ends, vouched & (found.kinds == json_strings.STRING)


def _joined(parts: Sequence[Found], vouched: Flags) -> tuple[Bytes, Ints, Ints, Flags]:
    present = vouched.copy()
    for part in parts:
        present &= part.are_texts() | (part.kinds == json_strings.INTEGER)
    joined = pc.binary_join_element_wise(*(part.texts(present) for part in parts), " ")
    data, offsets = buffers_of(joined.cast(pa.binary()))
    return data, offsets[:-1], offsets[1:], present


def _epoch_times(contract: EventContract, found: Found) -> tuple[Ints, Flags]:
    """Read numbers just as the exact decoder does, but only where 64 bits suffice."""
    time, kinds = contract.event_time, found.kinds
    unit = NANOSECONDS[time.unit]
    start = micros_of(time.epoch)
    mantissas, _ = found.digits(kinds == json_strings.INTEGER)
    whole = np.abs(mantissas) < _INT64 // 4 // max(unit, 1_000)
    fractions = found.are_numbers() & (kinds != json_strings.INTEGER)
    floats = found.floats(fractions) * (unit / 1_000)
    near = np.abs(floats) < _INT64 // 4
    micros = np.where(whole, mantissas, 0) * unit // 1_000 + start
    rounded = np.rint(np.where(near, floats, 0)).astype(np.int64) + start
    good = (whole & (kinds == json_strings.INTEGER)) | (near & fractions)
    return np.where(kinds == json_strings.INTEGER, micros, rounded), good
