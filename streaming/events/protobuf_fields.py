"""Protobuf: finds the wanted fields of many records by compiled tables, and reads one record exactly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from schemas.event_formats import FRAME_BYTES
from schemas.schema_texts import SchemaText
from streaming.arrays.compilation import Bytes, Flags, Ints
from streaming.events.avro_schema import UnusableSchemaError
from streaming.events.found import Found, buffers_of
from streaming.events.framing import NO_ID, distinct, id_of, ids_of
from streaming.events.protobuf_exact import MessageReader
from streaming.events.protobuf_kernels import Table, read_heads, read_messages
from streaming.events.protobuf_program import table_of
from streaming.events.protobuf_schema import message_at, message_by_name
from streaming.events.protobuf_shape import Node, shape_of
from streaming.events.wanted_paths import wanted_tree
from streaming.events.wire_kernels import NUMBER_BYTES
from streaming.events.writer_schemas import UnreadableError, WriterSchemas

_MOST_KEPT = 512
_MOST_PLACES, _PLACE_BITS = 3, 8
# How many heads there can be, see read_heads.
_HEADS = 4 << (_MOST_PLACES * _PLACE_BITS)


class WantedFields(NamedTuple):
    """The paths that are wanted in the value, all different, and those of them of the event time alone."""

    paths: tuple[str, ...]
    times: tuple[str, ...]


class ProtobufFinder:
    """Finds fields of Protobuf, see found.FieldFinder.

    Args:
        wanted: fields.
        longest: bytes that a value may have.
        writers: the schemas of the records.
        message: full name of the message where one schema is that of all records.
        column: of the records, that holds the Protobuf.
    """

    def __init__(
        self,
        wanted: WantedFields,
        longest: int,
        writers: WriterSchemas,
        message: str | None,
        *,
        column: str = "value",
    ) -> None:
        self._wanted, self._longest, self._column = wanted, longest, column
        self._writers, self._message = writers, message

    def find(self, records: pa.RecordBatch) -> tuple[Sequence[Found], Flags]:
        """See found.FieldFinder."""
        values, count = records[self._column], len(self._wanted.paths)
        data, offsets = buffers_of(values)
        vouched = np.diff(offsets) <= self._longest
        if values.null_count:
            vouched &= values.is_valid().to_numpy(zero_copy_only=False)
        ids, heads, begins = self._heads(values, data, offsets, vouched)
        tables = self._tables(ids, heads, vouched)
        room, to = _room(data[offsets[0] : offsets[-1]], tables, len(values) * count)
        kinds = np.zeros((count, len(values)), np.int8)
        starts, ends = (np.zeros((count, len(values)), np.int64) for _ in range(2))
        begins, stops = begins - offsets[0], offsets[1:] - offsets[0]
        for (number, head), table in tables.items():
            rows = np.flatnonzero(vouched & (ids == number) & (heads == head))
            symbols_at, to = to, to + len(table.symbols)
            room[symbols_at:to] = table.symbols
            to = read_messages(room, begins, stops, table, rows, to, symbols_at, vouched, kinds, starts, ends)
        return [Found(room, *each) for each in zip(kinds, starts, ends, strict=True)], vouched

    def _heads(self, values: pa.Array, data: Bytes, offsets: Ints, vouched: Flags) -> tuple[Ints, Ints, Ints]:
        """Return schema, message and beginning of each value; clear `vouched` without them."""
        if NO_ID in self._writers:
            return np.full(len(values), NO_ID), np.zeros(len(values), np.int64), offsets[:-1]
        ids = ids_of(values)
        heads, begins = np.empty(len(values), np.int64), np.empty(len(values), np.int64)
        read_heads(data, offsets, FRAME_BYTES, ids != NO_ID, heads, begins)
        vouched &= heads >= 0
        return ids, heads, begins

    def _tables(self, ids: Ints, heads: Ints, vouched: Flags) -> dict[tuple[int, int], Table]:
        tables = {}
        for key in distinct(ids[vouched] * _HEADS + heads[vouched]):
            number, head = divmod(key, _HEADS)
            writer = self._writers.get(number)
            table = None
            if isinstance(writer, SchemaText):
                places = None if number == NO_ID else _unpacked(head)
                table = _table(writer, places, self._message, self._wanted)
            if table is None:
                vouched &= (ids != number) | (heads != head)
            else:
                tables[number, head] = table
        return tables


class ProtobufReader:
    """Reads one record of Protobuf as google's library does: the definition of what a value holds."""

    def __init__(self, wanted: WantedFields, writers: WriterSchemas, message: str | None) -> None:
        self._wanted, self._writers, self._message = wanted, writers, message

    def event(self, value: bytes) -> dict[str, Any]:
        """Return the wanted fields of a value, frame included, by their whole paths.

        Raises:
            UnreadableError: it cannot be read.
        """
        framed = NO_ID not in self._writers
        number = id_of(value) if framed else NO_ID
        if framed and number == NO_ID:
            raise UnreadableError("missing_framing")
        writer = self._writers.get(number, UnreadableError("unknown_schema"))
        if isinstance(writer, UnreadableError):
            raise UnreadableError(writer.reason, writer.detail)
        try:
            places, payload = _head(value[FRAME_BYTES:]) if framed else (None, value)
            found = _reader(writer, places, self._message, self._wanted).read(payload)
        except UnusableSchemaError as fault:
            raise UnreadableError("unusable_schema", str(fault)) from None
        except ValueError as fault:
            raise UnreadableError("malformed_protobuf", str(fault)) from None
        return {path: found.get(each) for each, path in enumerate(self._wanted.paths)}


def _room(data: Any, tables: dict[tuple[int, int], Table], numbers: int) -> tuple[Any, int]:
    """Return the values with room for symbols and numbers after them, and where that begins."""
    symbols = sum(len(each.symbols) for each in tables.values())
    room = np.empty(len(data) + symbols + numbers * NUMBER_BYTES, np.uint8)
    room[: len(data)] = data
    return room, len(data)


def _unpacked(head: int) -> tuple[int, ...]:
    """Return the places that a head of read_heads packs; none stands for the first message."""
    count = next(each for each in range(_MOST_PLACES + 1) if head >> (_PLACE_BITS * each) == each)
    mask = (1 << _PLACE_BITS) - 1
    places = tuple(head >> (_PLACE_BITS * (count - 1 - each)) & mask for each in range(count))
    return places or (0,)


def _head(payload: bytes) -> tuple[tuple[int, ...], bytes]:
    """Return the places that a framed value begins with, and what follows them."""
    count, at = _signed(payload, 0)
    if not 0 <= count <= len(payload):
        raise ValueError("no message is named")
    places = []
    for _ in range(count):
        place, at = _signed(payload, at)
        if place < 0:
            raise ValueError("no message is named")
        places.append(place)
    return tuple(places) or (0,), payload[at:]


def _signed(payload: bytes, at: int) -> tuple[int, int]:
    bits = 0
    for shift in range(0, 64, 7):
        if at >= len(payload):
            break
        byte = payload[at]
        at += 1
        bits |= (byte & 127) << shift
        if byte < 128:  # noqa: PLR2004 -- the bit that says that more follow
            return (bits >> 1) ^ -(bits & 1), at
    raise ValueError("no message is named")


@lru_cache(_MOST_KEPT)
def _shape(
    text: SchemaText, places: tuple[int, ...] | None, name: str | None, wanted: WantedFields
) -> tuple[Node, ...]:
    message = message_by_name(text, name) if places is None else message_at(text, places)
    return shape_of(message, wanted_tree(wanted.paths, wanted.times))


@lru_cache(_MOST_KEPT)
def _reader(
    text: SchemaText, places: tuple[int, ...] | None, name: str | None, wanted: WantedFields
) -> MessageReader:
    return MessageReader(_shape(text, places, name, wanted))


@lru_cache(_MOST_KEPT)
def _table(
    text: SchemaText, places: tuple[int, ...] | None, name: str | None, wanted: WantedFields
) -> Table | None:
    """Return a message's table, None where the exact decoder says what is wrong with its schema."""
    try:
        return table_of(_shape(text, places, name, wanted))
    except UnusableSchemaError:
        return None
