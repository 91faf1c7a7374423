"""Avro: finds the wanted fields of many records by compiled programs, and reads one record exactly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.event_formats import FRAME_BYTES
from schemas.schema_texts import SchemaText
from streaming.arrays.compilation import Flags
from streaming.events.avro_kernels import TOO_DEEP, Program, read_records, run
from streaming.events.avro_program import program_of
from streaming.events.avro_schema import UnusableSchemaError, avro_schema
from streaming.events.found import Found, buffers_of
from streaming.events.framing import NO_ID, distinct, id_of, ids_of
from streaming.events.wanted_paths import wanted_tree
from streaming.events.wire_kernels import NUMBER_BYTES
from streaming.events.writer_schemas import UnreadableError, WriterSchemas

_MOST_KEPT = 256
_NO_ROWS = np.zeros((0, 1), np.int64)


class AvroFinder:
    """Finds fields of Avro, see found.FieldFinder.

    Args:
        paths: of the wanted fields, all different.
        times: those of them that are the event time alone.
        longest: bytes that a value may have.
        writers: the schemas of the records.
        column: of the records, that holds the Avro.
    """

    def __init__(
        self,
        paths: Sequence[str],
        times: Sequence[str],
        longest: int,
        writers: WriterSchemas,
        *,
        column: str = "value",
    ) -> None:
        self._count, self._longest, self._column = len(paths), longest, column
        self._programs = _programs(tuple(paths), tuple(times), writers)

    def find(self, records: pa.RecordBatch) -> tuple[Sequence[Found], Flags]:
        """See found.FieldFinder."""
        values = records[self._column]
        data, offsets = buffers_of(values)
        lengths = np.diff(offsets)
        vouched = lengths <= self._longest
        if values.null_count:
            vouched &= values.is_valid().to_numpy(zero_copy_only=False)
        ids = np.full(len(values), NO_ID) if NO_ID in self._programs else ids_of(values)
        vouched &= np.isin(ids, list(self._programs))
        room = self._room(data[offsets[0] : offsets[-1]], len(values))
        kinds = np.zeros((self._count, len(values)), np.int8)
        starts, ends = (np.zeros((self._count, len(values)), np.int64) for _ in range(2))
        bounds, to = offsets - offsets[0], int(offsets[-1] - offsets[0])
        for each in distinct(ids[vouched]):
            program, rows = self._programs[each], np.flatnonzero(vouched & (ids == each))
            symbols_at, to = to, to + len(program.symbols)
            room[symbols_at:to] = program.symbols
            skip = 0 if each == NO_ID else FRAME_BYTES
            to = read_records(room, bounds, skip, program, rows, to, symbols_at, vouched, kinds, starts, ends)
        return [Found(room, *each) for each in zip(kinds, starts, ends, strict=True)], vouched

    def _room(self, data: Any, rows: int) -> Any:
        """Return the values, and room for the symbols of all programs and for numbers to be written."""
        symbols = sum(len(each.symbols) for each in self._programs.values())
        room = np.empty(len(data) + symbols + rows * self._count * NUMBER_BYTES, np.uint8)
        room[: len(data)] = data
        return room


class AvroReader:
    """Reads one record of Avro as fastavro does: the definition of what a value holds."""

    def __init__(self, writers: WriterSchemas) -> None:
        self._writers = writers

    def event(self, value: bytes) -> dict[str, Any]:
        """Return the fields of a value, frame included.

        Raises:
            UnreadableError: it cannot be read.
        """
        framed = NO_ID not in self._writers
        number, payload = (id_of(value), value[FRAME_BYTES:]) if framed else (NO_ID, value)
        if framed and number == NO_ID:
            raise UnreadableError("missing_framing")
        writer = self._writers.get(number, UnreadableError("unknown_schema"))
        if isinstance(writer, UnreadableError):
            raise UnreadableError(writer.reason, writer.detail)
        return _event(writer, payload)


def _event(text: SchemaText, payload: bytes) -> dict[str, Any]:
    try:
        schema = avro_schema(text)
    except UnusableSchemaError as fault:
        raise UnreadableError("unusable_schema", str(fault)) from None
    if _goes_too_deep(text, payload):
        raise UnreadableError("malformed_avro", "nested too deeply")
    try:
        datum = schema.datum(payload)
    except ValueError as fault:
        raise UnreadableError("malformed_avro", str(fault)) from None
    if not isinstance(datum, dict):
        raise UnreadableError("not_an_object", type(datum).__name__)
    return datum


def _goes_too_deep(text: SchemaText, payload: bytes) -> bool:
    """Tell so before fastavro, which a schema that contains itself would lead beyond the stack."""
    program = _wanted_program(text, (), ())
    data = np.frombuffer(payload + bytes(NUMBER_BYTES), np.uint8).copy()
    nothing = (_NO_ROWS.astype(np.int8), _NO_ROWS, _NO_ROWS)
    stack = np.zeros((64, 3), np.int64)
    state, _ = run(data, 0, len(payload), program.steps, program.table, 0, *nothing, 0, 0, stack, np.zeros(1))
    return bool(state == TOO_DEEP)


def _programs(paths: tuple[str, ...], times: tuple[str, ...], writers: WriterSchemas) -> dict[int, Program]:
    programs = {}
    for number, writer in writers.items():
        if not isinstance(writer, UnreadableError):
            try:
                programs[number] = _wanted_program(writer, paths, times)
            except UnusableSchemaError:
                continue  # the exact decoder says why
    return programs


@lru_cache(_MOST_KEPT)
def _wanted_program(text: SchemaText, paths: tuple[str, ...], times: tuple[str, ...]) -> Program:
    return program_of(avro_schema(text), wanted_tree(paths, times))
