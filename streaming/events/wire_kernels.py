"""Compiled readers of single values that binary formats share, and of numbers into digits."""

from __future__ import annotations

from typing import Any

import numpy as np

from streaming.arrays.compilation import Bytes, Floats, compiled, inlined
from streaming.events.json_strings import byte_at

# Numbers from this one on, either side of zero, are left to the exact decoder.
LARGEST_WRITTEN = 10**18
# A number that is written out takes no more bytes.
NUMBER_BYTES = 20


@inlined
def varint(data: Bytes, at: int, end: int) -> tuple[Any, int]:
    """Return the bits of a variable-length integer and the position after it, -1 for a broken one."""
    value, shift = np.uint64(0), np.uint64(0)
    while at < end and shift < 64:
        byte = np.uint64(byte_at(data, at))
        at += 1
        if shift == np.uint64(63) and byte > np.uint64(1):
            return 0, -1
        value |= (byte & np.uint64(127)) << shift
        if byte < np.uint64(128):
            return np.int64(value), at
        shift += np.uint64(7)
    return 0, -1


@inlined
def zigzag(bits: Any) -> Any:
    """Return the signed number that unsigned bits stand for."""
    whole = np.uint64(bits)
    return np.int64(whole >> np.uint64(1)) ^ -np.int64(whole & np.uint64(1))


@inlined
def little_endian(data: Bytes, at: int, size: int) -> Any:
    """Return `size` bytes as the low bits of an integer."""
    bits = np.uint64(0)
    for place in range(size):
        bits |= np.uint64(byte_at(data, at + place)) << np.uint64(8 * place)
    return np.int64(bits)


@compiled
def write_number(value: int, places: int, out: Bytes, to: int) -> int:
    """Write digits with a point before the last `places`, at most 18; return where they end."""
    if value < 0:
        out[to] = 45
        to += 1
        value = -value
    digits, rest = 1, value // 10
    while rest > 0:
        digits += 1
        rest //= 10
    digits = max(digits, places + 1)
    end = to + digits + (1 if places > 0 else 0)
    at = end
    for place in range(digits):
        if places > 0 and place == places:
            at -= 1
            out[at] = 46
        at -= 1
        out[at] = 48 + value % 10
        value //= 10
    return end


@inlined
def _sound_float(value: float) -> bool:
    """Return whether a float is finite and not negative zero, which a contract may refuse."""
    return np.isfinite(value) and not (value == 0.0 and np.signbit(value))


@compiled
def float_bits(data: Bytes, at: int, size: int, room: Floats) -> tuple[bool, int]:
    """Return whether a float of 4 or 8 bytes is sound, and its bits as one of 8; `room` holds one float."""
    bits = little_endian(data, at, size)
    if size == 4:
        room.view(np.int32)[0] = np.int32(bits)
        room[0] = room.view(np.float32)[0]
    else:
        room.view(np.int64)[0] = bits
    return _sound_float(room[0]), room.view(np.int64)[0]
