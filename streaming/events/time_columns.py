"""The times of many events at once, as `exact_times` reads each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contract import EventContract
from schemas.instants import MICRO, micros_of
from schemas.tables import UTC_MICROS
from schemas.time_fields import NANOSECONDS
from streaming.arrays.compilation import Flags, Ints
from streaming.arrays.zones import local_offsets
from streaming.events import json_strings, json_values
from streaming.events.broker_years import in_latest_year
from streaming.events.exact_times import known_zones
from streaming.events.found import Found, buffers_of

_INT64 = 2**63
_TWO_DAYS = 2 * 86_400 * 1_000_000
# More names of zones in a block than an honest sender has are left to the exact decoder.
_MOST_NAMED = 64


def time_bounds(contract: EventContract) -> tuple[int, int, int]:
    """Return the earliest and the latest event time and how far it may be ahead, in microseconds."""
    time = contract.event_time
    return micros_of(time.earliest), micros_of(time.latest), time.max_ahead // MICRO


def time_array(contract: EventContract, found: Mapping[str, Found], vouched: Flags, stamps: Ints) -> pa.Array:
    """Return one time per row, a timestamp in microseconds.

    Args:
        found: by path, what was found of each field.
        vouched: bool[n]; cleared for rows left to the exact decoder, which hold any time.
        stamps: int64[n], the broker's, in microseconds since 1970 UTC; 0 for none.
    """
    parts = [found[source] for source in contract.event_time.sources]
    if contract.event_time.format == "epoch":
        micros, good = _epoch_times(contract, parts[0])
    else:
        micros, good = _written_times(contract, parts, vouched, stamps)
    if len(parts) == 1:
        micros, good = _with_instants(contract, parts[0], micros, good)
    vouched &= good
    return pa.array(micros).cast(UTC_MICROS)


def _written_times(
    contract: EventContract, parts: Sequence[Found], vouched: Flags, stamps: Ints
) -> tuple[Ints, Flags]:
    time, count = contract.event_time, len(vouched)
    micros, zones = np.zeros(count, np.int64), np.full(count, json_values.OFFSET)
    texts, present = _text(parts[0], vouched) if len(parts) == 1 else _joined(parts, vouched)
    good, where = np.zeros(count, np.bool_), (texts.data, texts.starts, texts.ends, present)
    if time.format == "iso8601":
        json_values.iso_times(*where, micros, good, zones)
    elif (steps := json_values.pattern_steps(time.format)) is not None:
        json_values.pattern_times(*where, steps, micros, good, zones)
    if time.year is not None:
        good &= zones == json_values.UNZONED
        micros[good], fits = in_latest_year(time.zone, micros[good], stamps[good] + time_bounds(contract)[2])
        good[good] = fits
        return micros, good
    _to_utc(contract, time.zone, micros, good & (zones == json_values.UNZONED))
    if (named := good & (zones >= 0)).any():
        good &= ~named | _in_named_zones(
            contract, replace(texts, starts=zones, ends=texts.ends - 1), micros, named
        )
    return micros, good


def _to_utc(contract: EventContract, zone: str, micros: Ints, local: Flags) -> Flags:
    """Bring local times to UTC in place, and return for which, bool[n]: those near the contract's bounds.

    No offset brings back what is days out of bounds, so no record makes every year be probed.
    """
    earliest, latest, _ = time_bounds(contract)
    near: Flags = local & (micros > earliest - _TWO_DAYS) & (micros < latest + _TWO_DAYS)
    if zone != "UTC" and near.any():
        micros[near] -= local_offsets(zone, micros[near])
    return near


def _in_named_zones(contract: EventContract, names: Found, micros: Ints, named: Flags) -> Flags:
    """Bring times to UTC in place whose zone is named beside them; return for which that is done, bool[n]."""
    encoded = names.texts(named).dictionary_encode()
    codes, done = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False), np.zeros(len(named), np.bool_)
    if len(encoded.dictionary) > _MOST_NAMED:
        return done
    for code, name in enumerate(encoded.dictionary.to_pylist()):
        if name in known_zones():
            done |= _to_utc(contract, name, micros, codes == code)
    return done


def _with_instants(contract: EventContract, found: Found, micros: Ints, good: Flags) -> tuple[Ints, Flags]:
    """Return times with those that are points in time, or of a local clock, whatever the format says."""
    instants, local = found.are_instants(), found.are_local_times()
    if not (instants | local).any():
        return micros, good
    micros = np.where(instants | local, found.starts, micros)
    return micros, good | instants | _to_utc(contract, contract.event_time.zone, micros, local)


def _text(found: Found, vouched: Flags) -> tuple[Found, Flags]:
    return found, vouched & (found.kinds == json_strings.STRING)


def _joined(parts: Sequence[Found], vouched: Flags) -> tuple[Found, Flags]:
    present = vouched.copy()
    for part in parts:
        present &= part.are_texts() | (part.kinds == json_strings.INTEGER)
    joined = pc.binary_join_element_wise(*(part.texts(present) for part in parts), " ")
    data, offsets = buffers_of(joined.cast(pa.binary()))
    kinds = np.where(present, json_strings.STRING, json_strings.MISSING).astype(np.int8)
    return Found(data, kinds, offsets[:-1], offsets[1:]), present


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
