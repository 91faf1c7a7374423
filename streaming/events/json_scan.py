"""A compiled scanner for flat JSON events: positions of the wanted values, straight from the Arrow buffers.

It only vouches for rows it understands completely: one object, all of whose values are plain strings without
escapes, literals or numbers without exponent. Whole numbers have at most 18 digits, so that they fit 64 bits;
decimals at most 15, so that they are exact as an integer divided by a power of ten, both exact doubles
(Clinger 1990, "How to read floating point numbers accurately").
Every other row is left to the exact decoder, which is the definition of what an event means.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streaming.arrays.compilation import Bytes, Flags, Floats, Ints, compiled, read_only

MISSING, STRING, INTEGER, DECIMAL, TRUE, FALSE, NULL = range(7)
_NO_DAY = -2_000_000
_LONGEST_INTEGER, _LONGEST_DECIMAL = 18, 15
_LITERALS = read_only(np.frombuffer(b"truefalsenull", np.uint8))
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
    """Return the position of the closing quote, -1 when the string is not plain."""
    while at < end:
        byte = data[at]
        if byte == _QUOTE:
            return at
        if byte == _BACKSLASH or byte < _SPACE:
            return -1
        at += 1
    return -1


@compiled
def _same(data: Bytes, at: int, end: int, text: Bytes, first: int, last: int) -> bool:
    """Tell whether data[at:end] starts with text[first:last]."""
    if end - at < last - first:
        return False
    for place in range(last - first):
        if data[at + place] != text[first + place]:
            return False
    return True


@compiled
def _digits_end(data: Bytes, at: int, end: int) -> int:
    while at < end and _ZERO <= data[at] <= _NINE:
        at += 1
    return at


@compiled
def _number_end(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return kind and position after a number; kind -1 when it is not vouched for."""
    negative = data[at] == _MINUS
    first = at + 1 if negative else at
    at = _digits_end(data, first, end)
    digits = at - first
    if digits == 0 or digits > _LONGEST_INTEGER or (data[first] == _ZERO and (digits > 1 or negative)):
        return -1, at
    if at < end and (data[at] == 101 or data[at] == 69):
        return -1, at
    if at == end or data[at] != _POINT:
        return INTEGER, at
    first = at + 1
    at = _digits_end(data, first, end)
    places = at - first
    if places == 0 or digits + places > _LONGEST_DECIMAL:
        return -1, at
    if at < end and (data[at] == 101 or data[at] == 69):
        return -1, at
    return DECIMAL, at


@compiled
def _value_end(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return kind and position after a value; kind -1 when it is not vouched for."""
    byte = data[at]
    if byte == _QUOTE:
        stop = _string_end(data, at + 1, end)
        return (STRING, stop + 1) if stop >= 0 else (-1, at)
    if byte == _MINUS or _ZERO <= byte <= _NINE:
        return _number_end(data, at, end)
    if _same(data, at, end, _LITERALS, 0, 4):
        return TRUE, at + 4
    if _same(data, at, end, _LITERALS, 4, 9):
        return FALSE, at + 5
    if _same(data, at, end, _LITERALS, 9, 13):
        return NULL, at + 4
    return -1, at


@compiled
def _wanted(data: Bytes, at: int, end: int, names: Bytes, bounds: Ints, guess: int) -> int:
    """Return which wanted field a key is, trying `guess` first; -1 for none."""
    count = len(bounds) - 1
    for step in range(count):
        field = guess + step
        if field >= count:
            field -= count
        first, last = bounds[field], bounds[field + 1]
        if last - first == end - at and _same(data, at, end, names, first, last):
            return field
    return -1


@compiled
def _scan_row(
    data: Bytes,
    at: int,
    end: int,
    names: Bytes,
    bounds: Ints,
    row: int,
    kinds: Kinds,
    starts: Ints,
    ends: Ints,
) -> bool:
    """Scan one object into column `row` of the outputs; False when the row is not vouched for."""
    if end - at >= 3 and data[at] == 239 and data[at + 1] == 187 and data[at + 2] == 191:
        at += 3  # UTF-8's byte order mark
    at = _skip_space(data, at, end)
    if at >= end or data[at] != _OPEN:
        return False
    at = _skip_space(data, at + 1, end)
    if at < end and data[at] == _CLOSE:
        return _skip_space(data, at + 1, end) == end
    guess = 0
    while at < end and data[at] == _QUOTE:
        key = at + 1
        key_end = _string_end(data, key, end)
        if key_end < 0:
            return False
        at = _skip_space(data, key_end + 1, end)
        if at >= end or data[at] != _COLON:
            return False
        start = _skip_space(data, at + 1, end)
        if start >= end:
            return False
        kind, stop = _value_end(data, start, end)
        if kind < 0:
            return False
        field = _wanted(data, key, key_end, names, bounds, guess)
        if field >= 0:
            quotes = 1 if kind == STRING else 0
            kinds[field, row], starts[field, row], ends[field, row] = kind, start + quotes, stop - quotes
            guess = field + 1 if field + 2 < len(bounds) else 0
        at = _skip_space(data, stop, end)
        if at < end and data[at] == _CLOSE:
            return _skip_space(data, at + 1, end) == end
        if at >= end or data[at] != _COMMA:
            return False
        at = _skip_space(data, at + 1, end)
    return False


@compiled
def scan(
    data: Bytes,
    offsets: Ints,
    names: Bytes,
    bounds: Ints,
    vouched: Flags,
    kinds: Kinds,
    starts: Ints,
    ends: Ints,
) -> None:
    """Scan every row that `vouched` still holds to be fit; clears it for those left to the exact decoder.

    Args:
        data: uint8, the values' bytes; row r is data[offsets[r]:offsets[r + 1]].
        offsets: int64[n + 1].
        names: the wanted field names one after the other, delimited by `bounds` (int64[fields + 1]).
        vouched: bool[n], in and out.
        kinds: int8[fields, n], zeroed; out.
        starts: int64[fields, n], first byte of each value, quotes left out; out.
        ends: int64[fields, n], first byte after it; out.
    """
    for row in range(len(offsets) - 1):
        if vouched[row]:
            vouched[row] = _scan_row(
                data, offsets[row], offsets[row + 1], names, bounds, row, kinds, starts, ends
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
def read_numbers(
    data: Bytes, starts: Ints, ends: Ints, present: Flags, mantissas: Ints, places: Kinds
) -> None:
    """Write the digits of the present numbers as integers, and how many of them follow the point."""
    for row in range(len(starts)):
        mantissas[row] = places[row] = 0
        if present[row]:
            negative = data[starts[row]] == _MINUS
            mantissa, point = 0, ends[row] - 1
            for at in range(starts[row] + 1 if negative else starts[row], ends[row]):
                if data[at] == _POINT:
                    point = at
                else:
                    mantissa = mantissa * 10 + (data[at] - _ZERO)
            mantissas[row], places[row] = -mantissa if negative else mantissa, ends[row] - 1 - point


@compiled
def to_floats(mantissas: Ints, places: Kinds, powers: Floats, out: Floats) -> None:
    """Write mantissa / 10**places, rounded once: one of the two always is an exact double, mostly both."""
    for row in range(len(mantissas)):
        out[row] = mantissas[row] / powers[places[row]]


@compiled
def _two_digits(data: Bytes, at: int) -> int:
    high, low = data[at], data[at + 1]
    if not (_ZERO <= high <= _NINE and _ZERO <= low <= _NINE):
        return -1
    value: int = (high - _ZERO) * 10 + (low - _ZERO)
    return value


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
def _date_days(data: Bytes, at: int) -> int:
    """Return the days since 1970 of `YYYY-MM-DD`, _NO_DAY when the text is not vouched for."""
    century, years = _two_digits(data, at), _two_digits(data, at + 2)
    month, day = _two_digits(data, at + 5), _two_digits(data, at + 8)
    if data[at + 4] != _MINUS or data[at + 7] != _MINUS or century < 0 or years < 0:
        return _NO_DAY
    year = century * 100 + years
    if year < 1 or month < 1 or month > 12 or day < 1 or day > _month_days(year, month):
        return _NO_DAY
    return _days_since_1970(year, month, day)


@compiled
def _clock_seconds(data: Bytes, at: int) -> int:
    """Return the seconds since midnight of `HH:MM:SS`, -1 when the text is not vouched for."""
    hour, minute, second = _two_digits(data, at), _two_digits(data, at + 3), _two_digits(data, at + 6)
    if data[at + 2] != _COLON or data[at + 5] != _COLON:
        return -1
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return -1
    return hour * 3_600 + minute * 60 + second


@compiled
def _fraction(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return microseconds and position after `.ffffff`, -1 microseconds when it is not vouched for."""
    if at == end or data[at] != _POINT:
        return 0, at
    last = _digits_end(data, at + 1, end)
    if last == at + 1 or last > at + 7:
        return -1, at
    micros, scale = 0, 100_000
    for place in range(at + 1, last):
        micros += (data[place] - _ZERO) * scale
        scale //= 10
    return micros, last


@compiled
def _iso_micros(data: Bytes, at: int, end: int, naive_is_utc: bool) -> tuple[bool, int]:
    if end - at < 19 or (data[at + 10] != 84 and data[at + 10] != 32):
        return False, 0
    days, seconds = _date_days(data, at), _clock_seconds(data, at + 11)
    micros, at = _fraction(data, at + 19, end)
    if days == _NO_DAY or seconds < 0 or micros < 0:
        return False, 0
    offset = _zone_minutes(data, at, end, naive_is_utc)
    if offset == 10_000:
        return False, 0
    return True, (days * 86_400 + seconds - offset * 60) * 1_000_000 + micros


@compiled
def iso_times(
    data: Bytes, starts: Ints, ends: Ints, present: Flags, naive_is_utc: bool, out: Ints, good: Flags
) -> None:
    """Read `YYYY-MM-DD[T ]HH:MM:SS[.ffffff][Z|±HH:MM]` into microseconds; `good` is False for other texts."""
    for row in range(len(starts)):
        good[row] = False
        if present[row]:
            good[row], out[row] = _iso_micros(data, starts[row], ends[row], naive_is_utc)
