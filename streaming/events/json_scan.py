"""A compiled scanner for JSON events of any shape: where the wanted values lie in the Arrow buffers.

It walks a record once, beside a tree of the wanted paths: into the objects and arrays that lead to a wanted
value, past everything else, and checks all of it as strictly as a parser would. It only vouches for rows that
it understands completely. Wanted whole numbers have at most 18 digits, so that they fit 64 bits; decimals at
most 15, so that they are exact as an integer divided by a power of ten, both exact doubles (Clinger 1990,
"How to read floating point numbers accurately"). Every other row is left to the exact decoder, which is the
definition of what an event means.
"""

from __future__ import annotations

import numpy as np

from streaming.arrays.compilation import Bytes, Flags, Ints, compiled, inlined, read_only
from streaming.events.json_strings import (
    CONTAINER,
    DECIMAL,
    ESCAPED,
    FALSE,
    INTEGER,
    NULL,
    STRING,
    TRUE,
    Kinds,
    byte_at,
    pairs_up,
    string_end,
    unescaped,
)
from streaming.events.paths import (
    ARRAY,
    BEGIN,
    CLOSING,
    END,
    FIELD,
    FIRST,
    LAST,
    OBJECT,
    PARENT,
    PLACE,
    REFUSED,
    PathTree,
)

_LONGEST_INTEGER, _LONGEST_DECIMAL = 18, 15
_DEEPEST = 60
_LITERALS = read_only(np.frombuffer(b"truefalsenull", np.uint8))
_ORDER_MARK = read_only(np.frombuffer("\ufeff".encode(), np.uint8))
_QUOTE, _MINUS, _PLUS, _POINT, _COLON, _COMMA = 34, 45, 43, 46, 58, 44
_BRACE, _END_BRACE, _BRACKET, _END_BRACKET, _ZERO, _NINE, _SPACE = 123, 125, 91, 93, 48, 57, 32


@inlined
def _skip_space(data: Bytes, at: int, end: int) -> int:
    while at < end:
        byte = byte_at(data, at)
        if byte > _SPACE or (byte != 32 and byte != 10 and byte != 13 and byte != 9):
            return at
        at += 1
    return at


@inlined
def _same(data: Bytes, at: int, end: int, text: Bytes, first: int, last: int) -> bool:
    """Return whether data[at:end] starts with text[first:last]."""
    if end - at < last - first:
        return False
    for place in range(last - first):
        if byte_at(data, at + place) != byte_at(text, first + place):
            return False
    return True


@inlined
def _literal(data: Bytes, at: int, end: int) -> tuple[int, int]:
    byte = byte_at(data, at)
    if byte == 110 and _same(data, at, end, _LITERALS, 9, 13):
        return NULL, at + 4
    if byte == 102 and _same(data, at, end, _LITERALS, 4, 9):
        return FALSE, at + 5
    if byte == 116 and _same(data, at, end, _LITERALS, 0, 4):
        return TRUE, at + 4
    return -1, at


@inlined
def _digits_end(data: Bytes, at: int, end: int) -> int:
    while at < end and _ZERO <= byte_at(data, at) <= _NINE:
        at += 1
    return at


@compiled
def _number_end(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return kind and position after a wanted number; kind -1 when it is not vouched for."""
    negative = byte_at(data, at) == _MINUS
    first = at + 1 if negative else at
    at = _digits_end(data, first, end)
    digits = at - first
    if (
        digits == 0
        or digits > _LONGEST_INTEGER
        or (byte_at(data, first) == _ZERO and (digits > 1 or negative))
    ):
        return -1, at
    kind = INTEGER
    if at < end and byte_at(data, at) == _POINT:
        first = at + 1
        at = _digits_end(data, first, end)
        places = at - first
        if places == 0 or digits + places > _LONGEST_DECIMAL:
            return -1, at
        kind = DECIMAL
    if at < end and (byte_at(data, at) | 32) == 101:
        return -1, at
    return kind, at


@inlined
def _past_number(data: Bytes, at: int, end: int) -> int:
    """Return the position after a number of any size, -1 for one that is not valid."""
    first = at + 1 if byte_at(data, at) == _MINUS else at
    at = _digits_end(data, first, end)
    if at == first or (byte_at(data, first) == _ZERO and at - first > 1):
        return -1
    if at < end and byte_at(data, at) == _POINT:
        first = at + 1
        at = _digits_end(data, first, end)
        if at == first:
            return -1
    if at < end and (byte_at(data, at) | 32) == 101:
        first = at + 1
        if first < end and (byte_at(data, first) == _PLUS or byte_at(data, first) == _MINUS):
            first += 1
        at = _digits_end(data, first, end)
        if at == first:
            return -1
    return at


@inlined
def _past_scalar(data: Bytes, at: int, end: int) -> int:
    if at >= end:
        return -1
    byte = byte_at(data, at)
    if byte == _QUOTE:
        stop, _ = string_end(data, at + 1, end)
        return stop + 1 if stop >= 0 else -1
    if byte == _MINUS or _ZERO <= byte <= _NINE:
        return _past_number(data, at, end)
    kind, stop = _literal(data, at, end)
    return stop if kind >= 0 else -1


@inlined
def _past_key(data: Bytes, at: int, end: int) -> int:
    """Return where the value of a key at `at` starts, -1 when there is no valid key."""
    if at >= end or byte_at(data, at) != _QUOTE:
        return -1
    at, _ = string_end(data, at + 1, end)
    return -1 if at < 0 else _past_colon(data, at + 1, end)


@inlined
def _past_colon(data: Bytes, at: int, end: int) -> int:
    at = _skip_space(data, at, end)
    if at >= end or byte_at(data, at) != _COLON:
        return -1
    return _skip_space(data, at + 1, end)


@compiled
def _past_container(data: Bytes, at: int, end: int) -> int:
    """Return the position after the object or array at `at`, -1 where it is not valid or goes too deep."""
    objects, depth = 0, 0  # a bit per open container: 1 for an object
    while True:
        if at >= end:
            return -1
        byte = byte_at(data, at)
        if byte == _BRACE or byte == _BRACKET:
            depth += 1
            if depth > _DEEPEST:
                return -1
            objects = (objects << 1) | (1 if byte == _BRACE else 0)
            at = _skip_space(data, at + 1, end)
            if at >= end:
                return -1
            if byte_at(data, at) != (_END_BRACE if objects & 1 else _END_BRACKET):
                if objects & 1:
                    at = _past_key(data, at, end)
                    if at < 0:
                        return -1
                continue
        else:
            at = _past_scalar(data, at, end)
            if at < 0:
                return -1
            at = _skip_space(data, at, end)
        while at < end and byte_at(data, at) == (_END_BRACE if objects & 1 else _END_BRACKET):
            at += 1
            depth -= 1
            objects >>= 1
            if depth == 0:
                return at
            at = _skip_space(data, at, end)
        if at >= end or byte_at(data, at) != _COMMA:
            return -1
        at = _skip_space(data, at + 1, end)
        if objects & 1:
            at = _past_key(data, at, end)
            if at < 0:
                return -1


@compiled
def _past_value(data: Bytes, at: int, end: int) -> int:
    if at < end and (byte_at(data, at) == _BRACE or byte_at(data, at) == _BRACKET):
        return _past_container(data, at, end)
    return _past_scalar(data, at, end)


@compiled
def _value_end(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return kind and position after a wanted value; kind -1 when it is not vouched for."""
    byte = byte_at(data, at)
    if byte == _QUOTE:
        stop, escaped = string_end(data, at + 1, end)
        if stop < 0 or (escaped and not pairs_up(data, at + 1, stop)):
            return -1, at
        return (ESCAPED if escaped else STRING), stop + 1
    if byte == _MINUS or _ZERO <= byte <= _NINE:
        return _number_end(data, at, end)
    if byte == _BRACE or byte == _BRACKET:
        stop = _past_container(data, at, end)
        return (CONTAINER if stop >= 0 else -1), stop
    return _literal(data, at, end)


@compiled
def scalar_kind(data: Bytes, at: int, end: int) -> int:
    """Return the kind of a text that is one number or literal as a whole, -1 when it is not vouched for."""
    if at >= end or byte_at(data, at) == _QUOTE:
        return -1
    kind, stop = _value_end(data, at, end)
    return kind if stop == end and kind != CONTAINER and kind != NULL else -1


@compiled
def _slot_of_key(data: Bytes, at: int, end: int, names: Bytes, slots: Ints, bounds: tuple[int, int]) -> int:
    """Return which of the slots in `bounds` a key without escapes is, -1 for none."""
    for slot in range(bounds[0], bounds[1]):
        begin, stop = slots[slot, BEGIN], slots[slot, END]
        if stop - begin == end - at and _same(data, at, end, names, begin, stop):
            return slot
    return -1


@compiled
def _slot_of_escaped_key(
    data: Bytes, at: int, end: int, names: Bytes, slots: Ints, bounds: tuple[int, int]
) -> int:
    """Return which of the slots in `bounds` a key with escapes is, -1 for none, -2 when it is no text."""
    if not pairs_up(data, at, end):
        return -2
    text = np.empty(end - at, np.uint8)
    return _slot_of_key(text, 0, unescaped(data, at, end, text, 0), names, slots, bounds)


@compiled
def _scan_row(
    data: Bytes,
    at: int,
    end: int,
    names: Bytes,
    slots: Ints,
    nodes: Ints,
    memory: Ints,
    entered: Ints,
    row: int,
    kinds: Kinds,
    starts: Ints,
    ends: Ints,
) -> bool:
    """Scan one record into column `row` of the outputs; False when it is not vouched for.

    `node` is the place in the tree. `memory` holds by node the slot that comes next if the order is that of
    the tree, and how many elements of an array have passed; `entered` by slot the last row that had it: what
    leads on twice within one row is left to the exact decoder, where the last of equal keys counts.
    """
    if _same(data, at, end, _ORDER_MARK, 0, 3):
        at += 3
    at = _skip_space(data, at, end)
    if at >= end or byte_at(data, at) != _BRACE:
        return False
    at = _skip_space(data, at + 1, end)
    node, opened = 0, True
    first, last, closing, slot = nodes[0, FIRST], nodes[0, LAST], nodes[0, CLOSING], nodes[0, FIRST]
    while at < end:
        byte = byte_at(data, at)
        if byte == closing:
            at = _skip_space(data, at + 1, end)
            if node == 0:
                return at == end
            node, opened = nodes[node, PARENT], False
            first, last, closing = nodes[node, FIRST], nodes[node, LAST], nodes[node, CLOSING]
            slot = memory[node, 0]
            continue
        if not opened:
            if byte != _COMMA:
                return False
            at = _skip_space(data, at + 1, end)
            if at >= end:
                return False
            byte = byte_at(data, at)
        opened = False
        if closing == _END_BRACKET:
            found = slot if slot < last and slots[slot, PLACE] == memory[node, 1] else -1
            memory[node, 1] += 1
        else:
            if byte != _QUOTE:
                return False
            key, begin, size = at + 1, slots[slot, BEGIN], slots[slot, END] - slots[slot, BEGIN]
            stop = key + size
            if (
                stop < end
                and byte_at(data, stop) == _QUOTE
                and _same(data, key, stop, names, begin, begin + size)
            ):
                found = slot
            else:
                stop, escaped = string_end(data, key, end)
                if stop < 0:
                    return False
                if escaped:
                    found = _slot_of_escaped_key(data, key, stop, names, slots, (first, last))
                    if found == -2:
                        return False
                else:
                    found = _slot_of_key(data, key, stop, names, slots, (first, last))
            at = _past_colon(data, stop + 1, end)
            if at < 0:
                return False
        if found < 0:
            at = _past_value(data, at, end)
            if at < 0:
                return False
            at = _skip_space(data, at, end)
            continue
        if at >= end:
            return False
        slot = found + 1
        if slot == last and closing == _END_BRACE:
            slot = first
        field, inner_object, inner_array = slots[found, FIELD], slots[found, OBJECT], slots[found, ARRAY]
        if field == REFUSED:
            return False
        if inner_object >= 0 or inner_array >= 0:
            if entered[found] == row:
                return False
            entered[found] = row
            byte = byte_at(data, at)
            below = inner_object if byte == _BRACE else inner_array if byte == _BRACKET else -1
            if below >= 0:
                if field >= 0:
                    kinds[field, row] = CONTAINER
                memory[node, 0] = slot
                node, opened = below, True
                first, last, closing = nodes[node, FIRST], nodes[node, LAST], nodes[node, CLOSING]
                slot, memory[node, 1] = first, 0
                at = _skip_space(data, at + 1, end)
                continue
        kind, stop = _value_end(data, at, end)
        if kind < 0:
            return False
        if field >= 0:
            quotes = 1 if kind == STRING or kind == ESCAPED else 0
            kinds[field, row], starts[field, row], ends[field, row] = kind, at + quotes, stop - quotes
        at = _skip_space(data, stop, end)
    return False


@compiled
def scan(
    data: Bytes,
    offsets: Ints,
    tree: PathTree,
    vouched: Flags,
    kinds: Kinds,
    starts: Ints,
    ends: Ints,
) -> None:
    """Scan every row that `vouched` still holds to be fit; clears it for those left to the exact decoder.

    Args:
        data: uint8, the values' bytes, valid UTF-8; row r is data[offsets[r]:offsets[r + 1]].
        offsets: int64[n + 1].
        tree: of the wanted fields.
        vouched: bool[n], in and out.
        kinds: int8[fields, n], zeroed; out.
        starts: int64[fields, n], first byte of each value, quotes left out; out.
        ends: int64[fields, n], first byte after it; out.
    """
    names, slots, nodes = tree
    memory, entered = np.zeros((len(nodes), 2), np.int64), np.full(len(slots), -1, np.int64)
    for row in range(len(offsets) - 1):
        if vouched[row]:
            at, end = offsets[row], offsets[row + 1]
            vouched[row] = _scan_row(
                data, at, end, names, slots, nodes, memory, entered, row, kinds, starts, ends
            )
