"""Compiled readers of scanned values: numbers and times, from their bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streaming.arrays.compilation import Bytes, Flags, Floats, Ints, compiled

_NO_DAY, _NO_ZONE = -2_000_000, 10_000
_MINUS, _POINT, _COLON, _ZERO, _NINE, _BRACKET, _END_BRACKET = 45, 46, 58, 48, 57, 91, 93
UNZONED, OFFSET = -2, -1
_LONGEST = 100  # bytes; longer texts are left to the exact decoder, which refuses them
YEAR, SHORT_YEAR, MONTH, DAY, HOUR, MINUTE, SECOND, FRACTION, ZONE = range(-9, 0)
_DIRECTIVES = {
    **{"Y": YEAR, "y": SHORT_YEAR, "m": MONTH, "d": DAY, "H": HOUR, "M": MINUTE, "S": SECOND},
    **{"f": FRACTION, "z": ZONE},
}

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
def _zone_minutes(data: Bytes, at: int, end: int, bare: bool) -> tuple[int, int]:
    """Return the offset from UTC in minutes and the position after it, _NO_ZONE for what is not vouched for.

    `bare` offsets may come without a colon.
    """
    if at < end and data[at] == 90:
        return 0, at + 1
    if end - at < 5 or (data[at] != 43 and data[at] != _MINUS):
        return _NO_ZONE, at
    colon = 1 if data[at + 3] == _COLON else 0
    stop = at + 5 + colon
    if stop > end or (colon == 0 and not bare):
        return _NO_ZONE, at
    hours, minutes = _two_digits(data, at + 1), _two_digits(data, at + 3 + colon)
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return _NO_ZONE, at
    return (-(hours * 60 + minutes) if data[at] == _MINUS else hours * 60 + minutes), stop


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
def _basic_date_days(data: Bytes, at: int) -> int:
    """Return the days since 1970 of `YYYYMMDD`, see _date_days."""
    century, years = _two_digits(data, at), _two_digits(data, at + 2)
    month, day = _two_digits(data, at + 4), _two_digits(data, at + 6)
    year = century * 100 + years
    if century < 0 or years < 0 or year < 1 or month < 1 or month > 12:
        return _NO_DAY
    if day < 1 or day > _month_days(year, month):
        return _NO_DAY
    return _days_since_1970(year, month, day)


@compiled
def _clock_seconds(data: Bytes, at: int, end: int, colon: int) -> tuple[int, int]:
    """Return the seconds since midnight of `HH:MM[:SS]` and the position after it.

    Seconds are -1 when the text is not vouched for. `colon` is 1 where there are colons, else 0.
    """
    stop = at + 4 + colon
    if stop > end or (colon == 1 and data[at + 2] != _COLON):
        return -1, at
    hour, minute, second = _two_digits(data, at), _two_digits(data, at + 2 + colon), 0
    has_seconds = stop < end and (data[stop] == _COLON if colon == 1 else _ZERO <= data[stop] <= _NINE)
    if has_seconds:
        if stop + colon + 2 > end:
            return -1, at
        second = _two_digits(data, stop + colon)
        stop += colon + 2
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return -1, at
    if not has_seconds and stop < end and data[stop] == _POINT:
        return -1, at
    return hour * 3_600 + minute * 60 + second, stop


@compiled
def _fraction(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return the microseconds that one to six digits mean and the position after them, -1 for other texts."""
    last = _digits_end(data, at, end)
    if last == at or last > at + 6:
        return -1, at
    micros, scale = 0, 100_000
    for place in range(at, last):
        micros += (data[place] - _ZERO) * scale
        scale //= 10
    return micros, last


@compiled
def _is_bracket(data: Bytes, at: int, end: int) -> bool:
    """Return whether data[at:end] is one bracket with something in it, such as `[Europe/Paris]`."""
    if end - at < 3 or data[at] != _BRACKET or data[end - 1] != _END_BRACKET:
        return False
    for place in range(at + 1, end - 1):
        if data[place] == _BRACKET or data[place] == _END_BRACKET:
            return False
    return True


@compiled
def _iso_micros(data: Bytes, at: int, end: int) -> tuple[bool, int, int]:
    """Return whether a text is vouched for, its zone as iso_times has it, and the microseconds."""
    begin, colon = at, 1 if end - at >= 16 and data[at + 4] == _MINUS else 0
    at += 8 + 2 * colon
    if end - at < 5 or end - begin > _LONGEST or (data[at] != 84 and data[at] != 32):
        return False, UNZONED, 0
    days = _date_days(data, begin) if colon == 1 else _basic_date_days(data, begin)
    seconds, at = _clock_seconds(data, at + 1, end, colon)
    micros = 0
    if at < end and data[at] == _POINT:
        micros, at = _fraction(data, at + 1, end)
    if days == _NO_DAY or seconds < 0 or micros < 0:
        return False, UNZONED, 0
    if at == end or _is_bracket(data, at, end):
        zone = UNZONED if at == end else at + 1
        return True, zone, (days * 86_400 + seconds) * 1_000_000 + micros
    minutes, at = _zone_minutes(data, at, end, False)
    return (
        minutes != _NO_ZONE and (at == end or _is_bracket(data, at, end)),
        OFFSET,
        (days * 86_400 + seconds - minutes * 60) * 1_000_000 + micros,
    )


@compiled
def iso_times(
    data: Bytes, starts: Ints, ends: Ints, present: Flags, out: Ints, good: Flags, zones: Ints
) -> None:
    """Read `YYYY-MM-DD[T ]HH:MM[:SS[.ffffff]][Z|±HH:MM][[zone]]` into microseconds.

    The date and the time of day may also be without their signs, `YYYYMMDD[T ]HHMM[SS[.ffffff]]`.
    `good` is False for other texts. `zones` is OFFSET where one is named, which the time is then free of,
    else where the name of a zone in a bracket begins, or UNZONED: then the time is the local clock's.
    """
    for row in range(len(starts)):
        good[row] = False
        if present[row]:
            good[row], zones[row], out[row] = _iso_micros(data, starts[row], ends[row])


@compiled
def _pattern_micros(data: Bytes, at: int, end: int, steps: Ints) -> tuple[bool, int, int]:
    """See _iso_micros, for a text of the pattern that `steps` describe."""
    year, month, day, seconds, micros, minutes, zone = 1900, 1, 1, 0, 0, 0, UNZONED
    for step in range(len(steps)):
        kind = steps[step]
        if kind == FRACTION:
            micros, at = _fraction(data, at, end)
            if micros < 0:
                return False, UNZONED, 0
        elif kind == ZONE:
            minutes, at = _zone_minutes(data, at, end, True)
            if minutes == _NO_ZONE:
                return False, UNZONED, 0
            zone = OFFSET
        elif kind >= 0:
            if at >= end or data[at] != kind:
                return False, UNZONED, 0
            at += 1
        else:
            size = 4 if kind == YEAR else 2
            if kind != YEAR and kind != SHORT_YEAR and _digits_end(data, at, end) == at + 1:
                size = 1
            if at + size > end:
                return False, UNZONED, 0
            value = data[at] - _ZERO if size == 1 else _two_digits(data, at)
            low = _two_digits(data, at + 2) if kind == YEAR else 0
            if value < 0 or low < 0:
                return False, UNZONED, 0
            at += size
            if kind == YEAR:
                year = value * 100 + low
            elif kind == SHORT_YEAR:
                year = value + (2000 if value < 69 else 1900)
            elif kind == MONTH:
                month = value
            elif kind == DAY:
                day = value
            else:
                if value > (23 if kind == HOUR else 59):
                    return False, UNZONED, 0
                seconds += value * (3_600 if kind == HOUR else 60 if kind == MINUTE else 1)
    if at != end or year < 1 or month < 1 or month > 12 or day < 1 or day > _month_days(year, month):
        return False, UNZONED, 0
    days = _days_since_1970(year, month, day)
    return True, zone, (days * 86_400 + seconds - minutes * 60) * 1_000_000 + micros


@compiled
def pattern_times(
    data: Bytes,
    starts: Ints,
    ends: Ints,
    present: Flags,
    steps: Ints,
    out: Ints,
    good: Flags,
    zones: Ints,
) -> None:
    """Read the texts of a pattern, see `pattern_steps`, as `iso_times` does those of RFC 3339."""
    for row in range(len(starts)):
        good[row] = False
        if present[row]:
            good[row], zones[row], out[row] = _pattern_micros(data, starts[row], ends[row], steps)


def pattern_steps(pattern: str) -> Ints | None:
    """Return a strptime pattern as numbers: bytes that must be there, and below zero what is read.

    None for a pattern with directives that depend on a locale or are rare, or with blanks other than a space:
    texts of such patterns are not vouched for.
    """
    steps: list[int] = []
    parts = iter(pattern)
    for each in parts:
        if each != "%":
            steps += each.encode()
        elif (directive := next(parts, "")) == "%":
            steps.append(ord("%"))
        elif directive in _DIRECTIVES:
            steps.append(_DIRECTIVES[directive])
        else:
            return None
    return None if any(each.isspace() and each != " " for each in pattern) else np.array(steps, np.int64)
