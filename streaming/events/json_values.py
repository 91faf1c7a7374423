"""Compiled readers of scanned values: numbers and times, from their bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streaming.arrays.compilation import Bytes, Flags, Floats, Ints, compiled

_NO_DAY = -2_000_000
_MINUS, _POINT, _COLON, _ZERO, _NINE = 45, 46, 58, 48, 57

Kinds = npt.NDArray[np.int8]


@compiled
def _digits_end(data: Bytes, at: int, end: int) -> int:
    while at < end and _ZERO <= data[at] <= _NINE:
        at += 1
    return at


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
