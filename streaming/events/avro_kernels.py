"""A compiled reader of Avro's binary encoding: a program made of the writer's schema, run over each record.

See avro_program for how programs are made. A record is vouched for only if all of it is as the schema says
and nothing in it needs a judgement: all others are left to the exact decoder.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from streaming.arrays.compilation import Bytes, Flags, Floats, Ints, compiled
from streaming.events.json_strings import (
    CONTAINER,
    DECIMAL,
    FALSE,
    FLOAT,
    INTEGER,
    NULL,
    STRING,
    TRUE,
    Kinds,
    byte_at,
)
from streaming.events.utf8_kernels import is_utf8
from streaming.events.wire_kernels import LARGEST_WRITTEN, float_bits, varint, write_number, zigzag

NOTHING, LONG, FLOAT4, FLOAT8, BOOLEAN, SIZED, FIXED, ENUM = range(8)
UNION, JUMP, ITEMS, BLOCK, AT_PLACE, NEXT_ITEM, CALL, RETURN, DONE, INSIDE, UNSURE = range(8, 19)
WANT_NULL, WANT_LONG, WANT_INSTANT, WANT_FLOAT4, WANT_FLOAT8, WANT_BOOLEAN = range(19, 25)
WANT_TEXT, WANT_UUID, WANT_ENUM, WANT_DECIMAL = range(25, 29)
OP, ARG, OUT, MORE = range(4)
GOOD, DOUBTFUL, TOO_DEEP = range(3)
_DEEPEST = 60
_FARTHEST = 2**62 // 1_000
_UUID_BYTES = 36


class Program(NamedTuple):
    """What to do for each record.

    Attributes:
        steps: int64[steps, 4]; by `OP` what is done, by `ARG` and `MORE` with what, by `OUT` for which field.
        table: int64, branches of unions, each list after its length, and where symbols lie.
        symbols: uint8, the names of enumerated values, one after the other.
    """

    steps: Ints
    table: Ints
    symbols: Bytes


@compiled
def _is_uuid(data: Bytes, at: int, size: int) -> bool:
    """Return whether a text is a UUID as it is written everywhere: 36 characters, lower case."""
    if size != _UUID_BYTES:
        return False
    for place in range(size):
        byte = byte_at(data, at + place)
        if place == 8 or place == 13 or place == 18 or place == 23:
            if byte != 45:
                return False
        elif not (48 <= byte <= 57 or 97 <= byte <= 102):
            return False
    return True


@compiled
def _unscaled(data: Bytes, at: int, size: int) -> Any:
    """Return a big-endian two's complement number of one to eight bytes."""
    value = np.int64(-1) if byte_at(data, at) & 128 else np.int64(0)
    for place in range(at, at + size):
        value = (value << 8) | byte_at(data, place)
    return value


@compiled
def run(
    data: Bytes,
    at: int,
    end: int,
    steps: Ints,
    table: Ints,
    row: int,
    kinds: Kinds,
    starts: Ints,
    ends: Ints,
    to: int,
    symbols_at: int,
    stack: Ints,
    narrow: Floats,
) -> tuple[int, int]:
    """Run a program over one record; return GOOD, DOUBTFUL or TOO_DEEP, and where written numbers end.

    `stack` holds the items left of each open array and the place reached, and where each call returns to.
    """
    # One loop on purpose: parted into functions, decoding took 6 to 31 % longer, by how it was parted.
    step, depth, calls = 0, 0, 0
    while True:
        op, arg, field = steps[step, OP], steps[step, ARG], steps[step, OUT]
        step += 1
        if op == WANT_TEXT or op == SIZED or op == WANT_UUID:
            bits, at = varint(data, at, end)
            size = zigzag(bits)
            if at < 0 or size < 0 or size > end - at:
                return DOUBTFUL, to
            if op != SIZED:
                if op == WANT_TEXT and not is_utf8(data, at, at + size):
                    return DOUBTFUL, to
                if op == WANT_UUID and not _is_uuid(data, at, size):
                    return DOUBTFUL, to
                kinds[field, row], starts[field, row], ends[field, row] = STRING, at, at + size
            at += size
        elif op == WANT_LONG or op == LONG or op == WANT_INSTANT:
            bits, at = varint(data, at, end)
            if at < 0:
                return DOUBTFUL, to
            if op == WANT_LONG:
                value = zigzag(bits)
                if not -LARGEST_WRITTEN < value < LARGEST_WRITTEN:
                    return DOUBTFUL, to
                stop = write_number(value, 0, data, to)
                kinds[field, row], starts[field, row], ends[field, row] = INTEGER, to, stop
                to = stop
            elif op == WANT_INSTANT:
                value = zigzag(bits)
                if not -_FARTHEST < value < _FARTHEST:
                    return DOUBTFUL, to
                value = value * arg if arg > 0 else value // -arg
                kinds[field, row] = steps[step - 1, MORE]
                starts[field, row], ends[field, row] = value, value
        elif op == UNION:
            bits, at = varint(data, at, end)
            branch = zigzag(bits)
            if at < 0 or branch < 0 or branch >= table[arg]:
                return DOUBTFUL, to
            step = table[arg + 1 + branch]
        elif op == JUMP:
            step = arg
        elif op == WANT_NULL:
            kinds[field, row] = NULL
        elif op == NOTHING:
            pass
        elif op == WANT_FLOAT8 or op == WANT_FLOAT4:
            size = 8 if op == WANT_FLOAT8 else 4
            if size > end - at:
                return DOUBTFUL, to
            good, bits = float_bits(data, at, size, narrow)
            if not good:
                return DOUBTFUL, to
            kinds[field, row], starts[field, row], ends[field, row] = FLOAT, bits, bits
            at += size
        elif op == WANT_BOOLEAN or op == BOOLEAN:
            if at >= end or byte_at(data, at) > 1:
                return DOUBTFUL, to
            if op == WANT_BOOLEAN:
                kinds[field, row] = TRUE if byte_at(data, at) else FALSE
            at += 1
        elif op == WANT_ENUM or op == ENUM:
            bits, at = varint(data, at, end)
            symbol = zigzag(bits)
            if at < 0 or symbol < 0 or symbol >= steps[step - 1, MORE]:
                return DOUBTFUL, to
            if op == WANT_ENUM:
                kinds[field, row] = STRING
                starts[field, row] = symbols_at + table[arg + symbol]
                ends[field, row] = symbols_at + table[arg + symbol + 1]
        elif op == WANT_DECIMAL:
            # `arg` is the scale, `MORE` the bytes of a fixed one (or -1), and the next step the precision.
            size = steps[step - 1, MORE]
            if size < 0:
                bits, at = varint(data, at, end)
                size = zigzag(bits)
                if at < 0:
                    return DOUBTFUL, to
            if size < 1 or size > 8 or size > end - at:
                return DOUBTFUL, to
            value, bound = _unscaled(data, at, size), steps[step, ARG]
            if not -bound < value < bound:
                return DOUBTFUL, to
            step += 1
            stop = write_number(value, arg, data, to)
            kinds[field, row] = INTEGER if arg == 0 else DECIMAL
            starts[field, row], ends[field, row] = to, stop
            to = stop
            at += size
        elif op == FIXED:
            if arg > end - at:
                return DOUBTFUL, to
            at += arg
        elif op == ITEMS:
            if depth >= _DEEPEST:
                return TOO_DEEP, to
            stack[depth, 1] = 0
            depth += 1
        elif op == BLOCK:
            bits, at = varint(data, at, end)
            if at < 0:
                return DOUBTFUL, to
            count = zigzag(bits)
            if count < 0:
                bits, at = varint(data, at, end)
                if at < 0:
                    return DOUBTFUL, to
                count = -count
            if count < 0 or count > end - at:
                return DOUBTFUL, to
            if count == 0:
                depth -= 1
                step = arg
            else:
                stack[depth - 1, 0] = count
        elif op == AT_PLACE:
            if stack[depth - 1, 1] == steps[step - 1, MORE]:
                step = arg
        elif op == NEXT_ITEM:
            stack[depth - 1, 0] -= 1
            stack[depth - 1, 1] += 1
            step = arg + 1 if stack[depth - 1, 0] > 0 else arg
        elif op == CALL:
            if calls >= _DEEPEST:
                return TOO_DEEP, to
            stack[calls, 2] = step
            calls += 1
            step = arg
        elif op == RETURN:
            calls -= 1
            step = stack[calls, 2]
        elif op == INSIDE:
            kinds[field, row] = CONTAINER
        elif op == DONE:
            return (GOOD if at == end else DOUBTFUL), to
        elif op == FLOAT8 or op == FLOAT4:
            size = 8 if op == FLOAT8 else 4
            if size > end - at:
                return DOUBTFUL, to
            at += size
        else:
            return DOUBTFUL, to


@compiled
def read_records(
    data: Bytes,
    offsets: Ints,
    skip: int,
    program: Program,
    rows: Ints,
    to: int,
    symbols_at: int,
    vouched: Flags,
    kinds: Kinds,
    starts: Ints,
    ends: Ints,
) -> int:
    """Run a program over some rows and clear `vouched` for those left to the exact decoder.

    Args:
        data: uint8, all values, then what is written here; row r is data[offsets[r] + skip:offsets[r + 1]].
        offsets: int64[n + 1].
        skip: bytes of a frame.
        program: of the rows' schema.
        rows: int64, which rows.
        to: where written numbers begin in `data`.
        symbols_at: where the program's symbols lie in `data`.
        vouched: bool[n], in and out.
        kinds: int8[fields, n], zeroed; out.
        starts: int64[fields, n]; out.
        ends: int64[fields, n]; out.

    Returns:
        Where written numbers end.
    """
    stack, narrow = np.zeros((_DEEPEST, 3), np.int64), np.zeros(1)
    steps, table, _ = program
    for row in rows:
        if vouched[row]:
            at, end = offsets[row] + skip, offsets[row + 1]
            state, to = run(
                data, at, end, steps, table, row, kinds, starts, ends, to, symbols_at, stack, narrow
            )
            vouched[row] = state == GOOD
    return to
