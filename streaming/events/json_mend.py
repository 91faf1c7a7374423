"""Mends JSON whose outline is sound: a value that no parser would take becomes one that fits no field.

Quotes, brackets, colons and commas say where each value of an event begins and ends. As long as they do, what
is wrong with one value is not the fault of the others: a broken escape, a number or word that is none, or
containers in containers without end, which parsers refuse by their depth.
"""

from __future__ import annotations

import numpy as np

from streaming.arrays.compilation import Bytes, compiled, read_only

DEEPEST = 64
_LONGEST_NUMBER = 4_000
_MOST_GROWTH = 4  # a broken escape of two bytes becomes seven
_QUOTE, _BACKSLASH, _U, _MINUS, _PLUS, _POINT, _ZERO = 34, 92, 117, 45, 43, 46, 48
_OTHER, _MARK, _OPENS, _CLOSES, _STRING = range(5)


def _table(*groups: tuple[bytes, int]) -> Bytes:
    table = np.zeros(256, np.uint8)
    for members, value in groups:
        table[list(members)] = value
    return read_only(table)


_KIND = _table((b" \n\r\t:,", _MARK), (b"{[", _OPENS), (b"}]", _CLOSES), (b'"', _STRING))
_DIGIT, _HEX, _EXPONENT = (
    _table((b"0123456789", 1)),
    _table((b"0123456789abcdefABCDEF", 1)),
    _table((b"eE", 1)),
)
_ESCAPED = _table((b'"\\/bfnrt', 1))
_BROKEN = read_only(np.frombuffer(b"\\ud800", np.uint8))
_WORDS = (b"true", b"false", b"null", b"NaN", b"Infinity", b"-Infinity")
_WORD_BYTES = read_only(np.frombuffer(b"".join(_WORDS), np.uint8))
_WORD_BOUNDS = read_only(np.cumsum([0, *map(len, _WORDS)]).astype(np.int64))


def mend(value: bytes) -> bytes:
    """Return the JSON text `value` with every value replaced that a parser could choke on.

    Containers deeper than `DEEPEST`, and numbers and words that JSON does not know, become `{}`, which fits
    no field. An escape that does not exist becomes a lone surrogate, which is no character. Time and memory
    grow with the length alone, however deep the text goes.
    """
    data = np.frombuffer(value, np.uint8)
    out = np.empty(_MOST_GROWTH * len(data) + 8, np.uint8)
    return out[: _mend(read_only(data), out)].tobytes()


@compiled
def _mend(data: Bytes, out: Bytes) -> int:
    at, size, depth = 0, 0, 0
    while at < len(data):
        kind = _KIND[data[at]]
        if kind == _STRING:
            at, size = _string(data, at, out, size)
        elif kind == _OTHER:
            at, size = _word(data, at, out, size)
        elif kind == _OPENS and depth == DEEPEST:
            at, size = _past_container(data, at), _empty_object(out, size)
        else:
            depth += (kind == _OPENS) - (kind == _CLOSES)
            out[size] = data[at]
            at, size = at + 1, size + 1
    return size


@compiled
def _string(data: Bytes, at: int, out: Bytes, size: int) -> tuple[int, int]:
    """Copy a string from its opening quote on; return the places behind it in both."""
    out[size] = _QUOTE
    at, size = at + 1, size + 1
    while at < len(data):
        byte = data[at]
        if byte == _BACKSLASH:
            at, size = _escape(data, at, out, size)
            continue
        out[size] = byte
        at, size = at + 1, size + 1
        if byte == _QUOTE:
            break
    return at, size


@compiled
def _escape(data: Bytes, at: int, out: Bytes, size: int) -> tuple[int, int]:
    length = _escape_length(data, at)
    for place in range(length):
        out[size + place] = data[at + place]
    if length:
        return at + length, size + length
    for place in range(len(_BROKEN)):
        out[size + place] = _BROKEN[place]
    return at + 1, size + len(_BROKEN)


@compiled
def _escape_length(data: Bytes, at: int) -> int:
    """Return how many bytes the escape at `at` takes, 0 for one that does not exist."""
    if at + 1 >= len(data):
        return 0
    if _ESCAPED[data[at + 1]]:
        return 2
    if data[at + 1] != _U or at + 6 > len(data):
        return 0
    for place in range(at + 2, at + 6):
        if not _HEX[data[place]]:
            return 0
    return 6


@compiled
def _past_container(data: Bytes, at: int) -> int:
    """Return the place behind the bracket that closes the one at `at`."""
    depth = 0
    while at < len(data):
        kind = _KIND[data[at]]
        if kind == _STRING:
            at = _past_string(data, at)
            continue
        depth += (kind == _OPENS) - (kind == _CLOSES)
        at += 1
        if depth == 0:
            break
    return at


@compiled
def _past_string(data: Bytes, at: int) -> int:
    at += 1
    while at < len(data) and data[at] != _QUOTE:
        at += 2 if data[at] == _BACKSLASH else 1
    return min(at + 1, len(data))


@compiled
def _word(data: Bytes, at: int, out: Bytes, size: int) -> tuple[int, int]:
    """Copy a number or a word; one that JSON does not know becomes an empty object."""
    end = at
    while end < len(data) and _KIND[data[end]] == _OTHER:
        end += 1
    if not (_is_number(data, at, end) or _is_known(data, at, end)):
        return end, _empty_object(out, size)
    for place in range(at, end):
        out[size + place - at] = data[place]
    return end, size + end - at


@compiled
def _empty_object(out: Bytes, size: int) -> int:
    out[size], out[size + 1] = 123, 125
    return size + 2


@compiled
def _is_known(data: Bytes, at: int, end: int) -> bool:
    for word in range(len(_WORD_BOUNDS) - 1):
        first, last = _WORD_BOUNDS[word], _WORD_BOUNDS[word + 1]
        if np.array_equal(data[at:end], _WORD_BYTES[first:last]):
            return True
    return False


@compiled
def _is_number(data: Bytes, at: int, end: int) -> bool:
    if end - at > _LONGEST_NUMBER:
        return False
    first = at + 1 if data[at] == _MINUS else at
    at = _past_digits(data, first, end)
    if at == first or (data[first] == _ZERO and at > first + 1):
        return False
    if at < end and data[at] == _POINT:
        first, at = at + 1, _past_digits(data, at + 1, end)
        if at == first:
            return False
    if at < end and _EXPONENT[data[at]]:
        signed = at + 1 < end and (data[at + 1] == _PLUS or data[at + 1] == _MINUS)
        first = at + 2 if signed else at + 1
        at = _past_digits(data, first, end)
        if at == first:
            return False
    return at == end


@compiled
def _past_digits(data: Bytes, at: int, end: int) -> int:
    while at < end and _DIGIT[data[at]]:
        at += 1
    return at
