"""Compiled readers of amounts that are written as text: decimal numbers, and decimals of Kafka Connect.

They vouch for what is usual and read it as exact_money and decimal_texts do; other texts are left to those.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streaming.arrays.compilation import Bytes, Flags, Ints, compiled, inlined
from streaming.events.json_strings import ESCAPED, STRING, Kinds, unescaped

_MOST_DIGITS, _LONGEST = 18, 100
_SPACE, _DOLLAR, _OPENED, _CLOSED, _MINUS = 32, 36, 40, 41, 45
_ZERO, _NINE = 48, 57

Places = npt.NDArray[np.int8]


@inlined
def _is_digit(byte: int) -> bool:
    return _ZERO <= byte <= _NINE


@compiled
def _marks_end(data: Bytes, at: int, end: int, bracket: int) -> tuple[int, int, int, int]:
    """Return where the marks around digits end, and how many minuses, brackets and signs they are."""
    minuses = brackets = signs = 0
    while at < end:
        byte = data[at]
        second = data[at + 1] if at + 1 < end else 0
        third = data[at + 2] if at + 2 < end else 0
        if byte == _SPACE:
            at += 1
        elif byte == _MINUS:
            minuses += 1
            at += 1
        elif byte == bracket:
            brackets += 1
            at += 1
        elif byte == _DOLLAR:
            signs += 1
            at += 1
        elif byte == 0xC2 and second == 0xA0:  # a blank that breaks no line
            at += 2
        elif byte == 0xC2 and 0xA2 <= second <= 0xA5:  # cent, pound, currency, yen
            signs += 1
            at += 2
        elif (
            byte == 0xE2 and second == 0x82 and 0xA0 <= third <= 0xBF
        ):  # U+20A0 to U+20BF, the euro among them
            signs += 1
            at += 3
        elif byte == 0xE2 and second == 0x88 and third == 0x92:  # U+2212, a minus
            minuses += 1
            at += 3
        else:
            break
    return at, minuses, brackets, signs


@compiled
def _whole_end(data: Bytes, at: int, end: int, group: int) -> tuple[int, int, int]:
    """Return where the digits before the mark end, -1 where not vouched for, their count and value."""
    digits, value, run, grouped = 0, 0, 0, False
    while at < end:
        if _is_digit(data[at]):
            value = value * 10 + (data[at] - _ZERO)
            digits += 1
            run += 1
            if digits > _MOST_DIGITS:
                return -1, 0, 0
        elif data[at] == group and at + 1 < end and _is_digit(data[at + 1]):
            if run == 0 or run > 3 or (grouped and run != 3):
                return -1, 0, 0
            grouped, run = True, 0
        else:
            break
        at += 1
    if digits == 0 or (grouped and run != 3):
        return -1, 0, 0
    return at, digits, value


@compiled
def _decimal(data: Bytes, at: int, end: int, mark: int, group: int) -> tuple[bool, bool, int, int]:
    """Return if a text is vouched for, if it is below zero, its digits, and how many follow the mark."""
    at, minuses, opened, signs = _marks_end(data, at, end, _OPENED)
    at, digits, value = _whole_end(data, at, end, group)
    if at < 0:
        return False, False, 0, 0
    places = 0
    if at < end and data[at] == mark:
        first = at + 1
        at = first
        while at < end and _is_digit(data[at]):
            if digits == _MOST_DIGITS:
                return False, False, 0, 0
            value = value * 10 + (data[at] - _ZERO)
            digits += 1
            at += 1
        places = at - first
        if places == 0:
            return False, False, 0, 0
    at, more_minuses, closed, more_signs = _marks_end(data, at, end, _CLOSED)
    minuses += more_minuses
    good = at == end and opened == closed and minuses + opened <= 1 and signs + more_signs <= 1
    return good, minuses + opened == 1, value, places


@compiled
def decimal_texts(
    data: Bytes,
    kinds: Kinds,
    starts: Ints,
    ends: Ints,
    marks: tuple[int, int],
    digits: Ints,
    places: Places,
    negative: Flags,
    good: Flags,
) -> None:
    """Read every string; all other rows are left as they are.

    Args:
        data: uint8, the bytes of all rows.
        kinds: int8[n], see json_strings.
        starts: int64[n], first byte of each text.
        ends: int64[n], first byte after it.
        marks: the decimal mark's byte, and that between groups of digits, 0 for none.
        digits: int64[n], the number's digits; out.
        places: int8[n], how many of them follow the mark; out.
        negative: bool[n], whether it is below zero; out.
        good: bool[n], whether the row is vouched for; out.
    """
    text = np.empty(_LONGEST, np.uint8)
    for row in range(len(starts)):
        at, end = starts[row], ends[row]
        if end - at > _LONGEST:
            continue
        if kinds[row] == STRING:
            good[row], negative[row], digits[row], places[row] = _decimal(data, at, end, marks[0], marks[1])
        elif kinds[row] == ESCAPED:
            end = unescaped(data, at, end, text, 0)
            good[row], negative[row], digits[row], places[row] = _decimal(text, 0, end, marks[0], marks[1])


@inlined
def _sextet(byte: int) -> int:
    """Return what a digit of base64 is worth, -1 for another byte."""
    if 65 <= byte <= 90:
        return byte - 65
    if 97 <= byte <= 122:
        return byte - 71
    if _is_digit(byte):
        return byte + 4
    return 62 if byte == 43 else 63 if byte == 47 else -1


@compiled
def _unscaled(data: Bytes, at: int, end: int) -> tuple[bool, int]:
    """Return the big-endian integer of one to seven bytes in base64, and whether the text is vouched for."""
    size = end - at
    if size != 4 and size != 8 and size != 12:
        return False, 0
    padding = 0
    while padding < 2 and data[end - 1 - padding] == 61:
        padding += 1
    value = 0
    for place in range(at, end - padding):
        sextet = _sextet(data[place])
        if sextet < 0:
            return False, 0
        value = (value << 6) | sextet
    spare, count = padding * 2, size // 4 * 3 - padding
    if count > 7 or value & ((1 << spare) - 1):
        return False, 0
    value >>= spare
    return True, value - (1 << (8 * count)) if value >> (8 * count - 1) else value


@compiled
def connect_decimals(
    data: Bytes, kinds: Kinds, starts: Ints, ends: Ints, digits: Ints, negative: Flags, good: Flags
) -> None:
    """Read every string without escapes as base64 of an integer; see decimal_texts."""
    for row in range(len(starts)):
        if kinds[row] == STRING:
            good[row], value = _unscaled(data, starts[row], ends[row])
            digits[row], negative[row] = abs(value), value < 0
