"""Compiled loops over the strings of JSON: where they end, what their escapes stand for, how long they are.

Strings are searched 32 bytes at a time: most bytes of a large event belong to strings that nobody wants.
Numba's own loops stop at every byte there, and its checks of indexes cost as much again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from streaming.arrays.compilation import Bytes, Flags, Ints, compiled, inlined

MISSING, STRING, INTEGER, DECIMAL, TRUE, FALSE, NULL, ESCAPED, CONTAINER, FLOAT, INSTANT, LOCAL = range(12)
_WIDE = 32
_QUOTE, _BACKSLASH, _ZERO, _NINE, _SPACE, _U = 34, 92, 48, 57, 32, 117
_HIGH, _LOW, _AFTER = 0xD800, 0xDC00, 0xE000

Kinds = npt.NDArray[np.int8]


def _inlined(define: Callable[..., Any]) -> Callable[..., int]:
    """Make machine code a function that kernels can call: `define` gives its type and what builds it."""
    return cast(Callable[..., int], intrinsic(define))


@_inlined
def specials_at(_: Any, data: Any, at: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001 -- typed below
    """Bit i of the result says that data[at + i] is a quote, a backslash or a control byte."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        vector = ir.VectorType(ir.IntType(8), _WIDE)
        pointer = builder.bitcast(builder.gep(array.data, [args[1]]), vector.as_pointer())
        bytes_ = builder.load(pointer, align=1)
        quote, backslash, space = (
            ir.Constant(vector, [each] * _WIDE) for each in (_QUOTE, _BACKSLASH, _SPACE)
        )
        found = builder.or_(
            builder.icmp_unsigned("==", bytes_, quote), builder.icmp_unsigned("==", bytes_, backslash)
        )
        found = builder.or_(found, builder.icmp_unsigned("<", bytes_, space))
        return builder.zext(builder.bitcast(found, ir.IntType(_WIDE)), ir.IntType(64))

    return types.int64(data, types.int64), build


@_inlined
def _first_bit(_: Any, mask: Any) -> tuple[Any, Callable[..., Any]]:
    """Return the place of the lowest bit that is set."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001 -- Numba's signature
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(mask), build


@_inlined
def byte_at(_: Any, data: Any, at: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001 -- typed below
    """Return data[at] for an `at` that is never negative."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.zext(builder.load(builder.gep(array.data, [args[1]])), ir.IntType(64))

    return types.int64(data, types.int64), build


@compiled
def _code_unit(data: Bytes, at: int, end: int) -> int:
    """Return the UTF-16 code unit of the four hexadecimal digits at `at`, -1 where they are not."""
    if at + 4 > end:
        return -1
    unit = 0
    for place in range(at, at + 4):
        byte = byte_at(data, place)
        if _ZERO <= byte <= _NINE:
            unit = unit * 16 + byte - _ZERO
        elif 97 <= byte <= 102 or 65 <= byte <= 70:
            unit = unit * 16 + (byte & 7) + 9
        else:
            return -1
    return unit


@compiled
def _escape_end(data: Bytes, at: int, end: int) -> int:
    """Return the position after the escape at `at`, -1 for one that JSON does not know."""
    if at + 1 >= end:
        return -1
    kind = byte_at(data, at + 1)
    if kind == _U:
        return at + 6 if _code_unit(data, at + 2, end) >= 0 else -1
    if kind == _QUOTE or kind == _BACKSLASH or kind == 47:
        return at + 2
    if kind == 98 or kind == 102 or kind == 110 or kind == 114 or kind == 116:
        return at + 2
    return -1


@inlined
def string_end(data: Bytes, at: int, end: int) -> tuple[int, bool]:
    """Return where the closing quote is, -1 for a string that is not valid, and whether it has escapes."""
    escaped = False
    last = len(data) - _WIDE
    while at < end:
        if at <= last:
            mask = specials_at(data, at)
            if mask == 0:
                at += _WIDE
                continue
            at += _first_bit(mask)
            if at >= end:
                return -1, escaped
        byte = byte_at(data, at)
        if byte == _QUOTE:
            return at, escaped
        if byte < _SPACE:
            return -1, escaped
        if byte == _BACKSLASH:
            escaped = True
            at = _escape_end(data, at, end)
            if at < 0:
                return -1, escaped
        else:
            at += 1
    return -1, escaped


@compiled
def pairs_up(data: Bytes, at: int, end: int) -> bool:
    """Return whether every surrogate in a valid string has its other half."""
    while at < end:
        if byte_at(data, at) != _BACKSLASH:
            at += 1
        elif byte_at(data, at + 1) != _U:
            at += 2
        else:
            unit = _code_unit(data, at + 2, end)
            at += 6
            if _LOW <= unit < _AFTER:
                return False
            if _HIGH <= unit < _LOW:
                if at + 6 > end or byte_at(data, at) != _BACKSLASH or byte_at(data, at + 1) != _U:
                    return False
                if not _LOW <= _code_unit(data, at + 2, end) < _AFTER:
                    return False
                at += 6
    return True


@compiled
def unescaped(data: Bytes, at: int, end: int, out: Bytes, to: int) -> int:
    """Write the text of a valid string whose surrogates pair up to `out`; return where it ends there."""
    while at < end:
        byte = byte_at(data, at)
        at += 1
        if byte == _BACKSLASH:
            byte = byte_at(data, at)
            at += 1
            if byte == _U:
                code = _code_unit(data, at, end)
                at += 4
                if code >= _HIGH and code < _AFTER:
                    code = 0x10000 + ((code - _HIGH) << 10) + _code_unit(data, at + 2, end) - _LOW
                    at += 6
                to = _as_utf8(code, out, to)
                continue
            if byte == 98:
                byte = 8
            elif byte == 102:
                byte = 12
            elif byte == 110:
                byte = 10
            elif byte == 114:
                byte = 13
            elif byte == 116:
                byte = 9
        out[to] = byte
        to += 1
    return to


@compiled
def _as_utf8(code: int, out: Bytes, to: int) -> int:
    """Write one character; return where it ends."""
    if code < 0x80:
        out[to] = code
        return to + 1
    if code < 0x800:
        out[to], out[to + 1] = 0xC0 | (code >> 6), 0x80 | (code & 63)
        return to + 2
    if code < 0x10000:
        out[to], out[to + 1] = 0xE0 | (code >> 12), 0x80 | ((code >> 6) & 63)
        out[to + 2] = 0x80 | (code & 63)
        return to + 3
    out[to], out[to + 1] = 0xF0 | (code >> 18), 0x80 | ((code >> 12) & 63)
    out[to + 2], out[to + 3] = 0x80 | ((code >> 6) & 63), 0x80 | (code & 63)
    return to + 4


@compiled
def text_sizes(data: Bytes, kinds: Kinds, starts: Ints, ends: Ints, sizes: Ints) -> None:
    """Write the number of characters of each string that was scanned (int64[n]), 0 for other values."""
    for row in range(len(starts)):
        sizes[row] = 0
        if kinds[row] == STRING:
            for at in range(starts[row], ends[row]):
                sizes[row] += (byte_at(data, at) & 192) != 128
        elif kinds[row] == ESCAPED:
            sizes[row] = _characters(data, starts[row], ends[row])


@compiled
def _characters(data: Bytes, at: int, end: int) -> int:
    count = 0
    while at < end:
        byte = byte_at(data, at)
        if byte == _BACKSLASH:
            if byte_at(data, at + 1) == _U:
                count += not _LOW <= _code_unit(data, at + 2, end) < _AFTER
                at += 6
                continue
            at += 1
        count += (byte & 192) != 128
        at += 1
    return count


@compiled
def gather(
    data: Bytes, kinds: Kinds, starts: Ints, ends: Ints, present: Flags, offsets: Ints, out: Bytes
) -> None:
    """Write the texts of the present rows one after the other, and where each begins (int64[n + 1])."""
    to = 0
    offsets[0] = 0
    for row in range(len(starts)):
        if present[row]:
            if kinds[row] == ESCAPED:
                to = unescaped(data, starts[row], ends[row], out, to)
            else:
                for at in range(starts[row], ends[row]):
                    out[to] = byte_at(data, at)
                    to += 1
        offsets[row + 1] = to
