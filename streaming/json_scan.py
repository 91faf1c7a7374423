"""A compiled scanner for flat JSON events: positions of the wanted values, straight from the Arrow buffers.

It only vouches for rows it understands completely: one object, wanted values that are plain strings without
escapes, or numbers of at most 15 significant digits without exponent. Such a decimal is exact as an integer
divided by a power of ten, both exact doubles (Clinger 1990, "How to read floating point numbers accurately").
Every other row is left to the exact decoder, which is the definition of what an event means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streaming.compilation import Bytes, Flags, Floats, Ints, compiled

MISSING, STRING, INTEGER, DECIMAL, TRUE, FALSE, NULL = range(7)
_LONGEST_MANTISSA = 15
_QUOTE, _BACKSLASH, _MINUS, _POINT, _COLON, _COMMA = 34, 92, 45, 46, 58, 44
_OPEN, _CLOSE, _ZERO, _NINE, _SPACE = 123, 125, 48, 57, 32

Kinds = npt.NDArray[np.int8]


@compiled
def _skip_space(data: Bytes, at: int, end: int) -> int:
    while at < end and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@compiled
def _string_end(data: Bytes, at: int, end: int) -> int:
    """Return the position of the closing quote, −1 when the string is not plain."""
    while at < end:
        byte = data[at]
        if byte == _QUOTE:
            return at
        if byte == _BACKSLASH or byte < _SPACE:
            return -1
        at += 1
    return -1


@compiled
def _literal(data: Bytes, at: int, end: int, text: Bytes) -> bool:
    if end - at < len(text):
        return False
    for place in range(len(text)):
        if data[at + place] != text[place]:
            return False
    return True


@compiled
def _number(data: Bytes, at: int, end: int) -> tuple[int, int, int, int]:
    """Read a number: kind, position after it, mantissa, decimal places; kind −1 when it is not vouched for."""
    negative = data[at] == _MINUS
    if negative:
        at += 1
    first = at
    mantissa = 0
    while at < end and _ZERO <= data[at] <= _NINE:
        mantissa = mantissa * 10 + (data[at] - _ZERO)
        at += 1
        if at - first > _LONGEST_MANTISSA:
            return -1, at, 0, 0
    digits = at - first
    if digits == 0 or (data[first] == _ZERO and (digits > 1 or negative)):
        return -1, at, 0, 0
    places = 0
    kind = INTEGER
    if at < end and data[at] == _POINT:
        kind = DECIMAL
        at += 1
        while at < end and _ZERO <= data[at] <= _NINE:
            mantissa = mantissa * 10 + (data[at] - _ZERO)
            at += 1
            places += 1
            if digits + places > _LONGEST_MANTISSA:
                return -1, at, 0, 0
        if places == 0:
            return -1, at, 0, 0
    if at < end and (data[at] == 101 or data[at] == 69):
        return -1, at, 0, 0
    return kind, at, -mantissa if negative else mantissa, places


@compiled
def _wanted(data: Bytes, at: int, end: int, names: Bytes, bounds: Ints, guess: int) -> int:
    """Return which wanted field a key is, trying `guess` first; −1 for none."""
    count = len(bounds) - 1
    for step in range(count):
        field = guess + step
        if field >= count:
            field -= count
        length = bounds[field + 1] - bounds[field]
        if length == end - at:
            same = True
            for place in range(length):
                if data[at + place] != names[bounds[field] + place]:
                    same = False
                    break
            if same:
                return field
    return -1


@compiled
def _scan_row(
    data: Bytes,
    at: int,
    end: int,
    names: Bytes,
    bounds: Ints,
    literals: tuple[Bytes, Bytes, Bytes],
    kinds: Kinds,
    starts: Ints,
    ends: Ints,
    mantissas: Ints,
    places: Kinds,
) -> bool:
    """Scan one object into one row of the outputs; False when the row is not vouched for."""
    at = _skip_space(data, at, end)
    if at >= end or data[at] != _OPEN:
        return False
    at = _skip_space(data, at + 1, end)
    guess = 0
    if at < end and data[at] == _CLOSE:
        return _skip_space(data, at + 1, end) == end
    while True:
        if at >= end or data[at] != _QUOTE:
            return False
        key_end = _string_end(data, at + 1, end)
        if key_end < 0:
            return False
        field = _wanted(data, at + 1, key_end, names, bounds, guess)
        at = _skip_space(data, key_end + 1, end)
        if at >= end or data[at] != _COLON:
            return False
        at = _skip_space(data, at + 1, end)
        if at >= end:
            return False
        byte = data[at]
        start, mantissa, decimals = at, 0, 0
        if byte == _QUOTE:
            kind = STRING
            start = at + 1
            stop = _string_end(data, start, end)
            if stop < 0:
                return False
            at = stop + 1
        elif byte == _MINUS or _ZERO <= byte <= _NINE:
            kind, at, mantissa, decimals = _number(data, at, end)
            if kind < 0:
                return False
            stop = at
        elif _literal(data, at, end, literals[0]):
            kind, at = TRUE, at + 4
            stop = at
        elif _literal(data, at, end, literals[1]):
            kind, at = FALSE, at + 5
            stop = at
        elif _literal(data, at, end, literals[2]):
            kind, at = NULL, at + 4
            stop = at
        else:
            return False
        if field >= 0:
            kinds[field], starts[field], ends[field] = kind, start, stop
            mantissas[field], places[field] = mantissa, decimals
            guess = field + 1 if field + 2 < len(bounds) else 0
        at = _skip_space(data, at, end)
        if at < end and data[at] == _COMMA:
            at = _skip_space(data, at + 1, end)
        elif at < end and data[at] == _CLOSE:
            return _skip_space(data, at + 1, end) == end
        else:
            return False


@compiled
def scan(
    data: Bytes,
    offsets: Ints,
    names: Bytes,
    bounds: Ints,
    literals: tuple[Bytes, Bytes, Bytes],
    vouched: Flags,
    kinds: Any,
    starts: Any,
    ends: Any,
    mantissas: Any,
    places: Any,
) -> None:
    """Scan every row that `vouched` still holds to be fit; clears it for those left to the exact decoder.

    Args:
        data: uint8, the values' bytes; row r is data[offsets[r]:offsets[r + 1]].
        offsets: int64[n + 1].
        names: the wanted field names one after the other, delimited by `bounds` (int64[fields + 1]).
        literals: the bytes of true, false and null.
        kinds, starts, ends, mantissas, places: [n, fields] outputs, `kinds` zeroed.
    """
    for row in range(len(offsets) - 1):
        if vouched[row]:
            vouched[row] = _scan_row(
                data,
                offsets[row],
                offsets[row + 1],
                names,
                bounds,
                literals,
                kinds[row],
                starts[row],
                ends[row],
                mantissas[row],
                places[row],
            )


@compiled
def gather_sizes(starts: Ints, ends: Ints, present: Flags, offsets: Ints) -> None:
    """Write the Arrow offsets (int64[n + 1]) of the slices `starts:ends`; an absent row is empty."""
    total = 0
    offsets[0] = 0
    for row in range(len(starts)):
        if present[row]:
            total += ends[row] - starts[row]
        offsets[row + 1] = total


@compiled
def gather_bytes(data: Bytes, starts: Ints, present: Flags, offsets: Ints, out: Bytes) -> None:
    """Copy the slices into one buffer laid out by `offsets`."""
    for row in range(len(starts)):
        if present[row]:
            start = starts[row]
            first = offsets[row]
            for place in range(offsets[row + 1] - first):
                out[first + place] = data[start + place]


@compiled
def to_floats(mantissas: Ints, places: Kinds, powers: Floats, out: Floats) -> None:
    """Write mantissa / 10**places; exact because both are exact doubles."""
    for row in range(len(mantissas)):
        out[row] = mantissas[row] / powers[places[row]]


@compiled
def _two_digits(data: Bytes, at: int) -> int:
    high, low = data[at], data[at + 1]
    if not (_ZERO <= high <= _NINE and _ZERO <= low <= _NINE):
        return -1
    return (high - _ZERO) * 10 + (low - _ZERO)


@compiled
def _days_since_1970(year: int, month: int, day: int) -> int:
    """Days of the proleptic Gregorian calendar (Hinnant, "chrono-Compatible Low-Level Date Algorithms")."""
    shifted = year - 1 if month <= 2 else year
    era = shifted // 400
    year_of_era = shifted - era * 400
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146097 + day_of_era - 719468


@compiled
def _month_days(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


@compiled
def _zone_minutes(data: Bytes, at: int, end: int, naive_is_utc: bool) -> int:
    """Return the offset from UTC in minutes, 10,000 when the text is not vouched for."""
    if at == end:
        return 0 if naive_is_utc else 10_000
    if data[at] == 90:
        return 0 if at + 1 == end else 10_000
    if end - at != 6 or data[at + 3] != _COLON or (data[at] != 43 and data[at] != _MINUS):
        return 10_000
    hours, minutes = _two_digits(data, at + 1), _two_digits(data, at + 4)
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return 10_000
    return -(hours * 60 + minutes) if data[at] == _MINUS else hours * 60 + minutes


@compiled
def _iso_micros(data: Bytes, at: int, end: int, naive_is_utc: bool) -> tuple[bool, int]:
    if end - at < 19 or data[at + 4] != _MINUS or data[at + 7] != _MINUS:
        return False, 0
    if (data[at + 10] != 84 and data[at + 10] != 32) or data[at + 13] != _COLON or data[at + 16] != _COLON:
        return False, 0
    century, years = _two_digits(data, at), _two_digits(data, at + 2)
    month, day = _two_digits(data, at + 5), _two_digits(data, at + 8)
    hour, minute, second = _two_digits(data, at + 11), _two_digits(data, at + 14), _two_digits(data, at + 17)
    if century < 0 or years < 0 or month < 1 or month > 12 or day < 1:
        return False, 0
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return False, 0
    year = century * 100 + years
    if year < 1 or day > _month_days(year, month):
        return False, 0
    at += 19
    micros = 0
    if at < end and data[at] == _POINT:
        at += 1
        scale = 100_000
        first = at
        while at < end and _ZERO <= data[at] <= _NINE:
            if scale == 0:
                return False, 0
            micros += (data[at] - _ZERO) * scale
            scale //= 10
            at += 1
        if at == first:
            return False, 0
    offset = _zone_minutes(data, at, end, naive_is_utc)
    if offset == 10_000:
        return False, 0
    seconds = _days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second
    return True, (seconds - offset * 60) * 1_000_000 + micros


@compiled
def iso_times(
    data: Bytes, starts: Ints, ends: Ints, present: Flags, naive_is_utc: bool, out: Ints, good: Flags
) -> None:
    """Read `YYYY-MM-DD[T ]HH:MM:SS[.ffffff][Z|±HH:MM]` into microseconds; `good` is False for other texts."""
    for row in range(len(starts)):
        good[row] = False
        if present[row]:
            good[row], out[row] = _iso_micros(data, starts[row], ends[row], naive_is_utc)
