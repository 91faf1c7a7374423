"""Makes the programs of avro_kernels: what to do, value by value, with records of a writer's schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from streaming.events import avro_kernels as ops
from streaming.events.avro_kernels import Program
from streaming.events.avro_schema import OWN, AvroSchema
from streaming.events.json_strings import INSTANT, LOCAL
from streaming.events.wanted_paths import Wanted

_LARGEST_EXACT = 10**15
_MOST_PLACES = 15
_PLAIN = {
    "null": (ops.NOTHING, ops.WANT_NULL),
    "int": (ops.LONG, ops.WANT_LONG),
    "long": (ops.LONG, ops.WANT_LONG),
    "float": (ops.FLOAT4, ops.WANT_FLOAT4),
    "double": (ops.FLOAT8, ops.WANT_FLOAT8),
    "boolean": (ops.BOOLEAN, ops.WANT_BOOLEAN),
    "string": (ops.SIZED, ops.WANT_TEXT),
    "bytes": (ops.SIZED, ops.UNSURE),
}
# By how much an instant's number is multiplied, or divided where negative, to be microseconds.
_INSTANTS = {"timestamp-millis": 1_000, "timestamp-micros": 1, "timestamp-nanos": -1_000}
_OF_LOCAL_CLOCKS = "local-"
_UNWANTED = Wanted()


def program_of(schema: AvroSchema, wanted: Wanted) -> Program:
    """Return what reads the wanted paths of records of a schema."""
    return _Assembler(schema).assembled(wanted)


class _Assembler:
    """A program while it is made.

    Types that hold nothing wanted are skipped by subroutines, one per named type, so that a schema may
    contain itself; what leads to something wanted is written out in place, which ends as paths do.
    """

    def __init__(self, schema: AvroSchema) -> None:
        self._schema = schema
        self._steps: list[list[int]] = []
        self._table: list[int] = []
        self._symbols = bytearray()
        self._routines: dict[str, list[int]] = {}
        self._pending: list[str] = []

    def assembled(self, wanted: Wanted) -> Program:
        self._read(self._schema.parsed, wanted)
        self._add(ops.DONE)
        begins: dict[str, int] = {}
        while self._pending:
            name = self._pending.pop()
            begins[name] = len(self._steps)
            self._fields(self._schema.named[name], _UNWANTED)
            self._add(ops.RETURN)
        for name, calls in self._routines.items():
            for call in calls:
                self._steps[call][ops.ARG] = begins[name]
        return Program(
            np.array(self._steps, np.int64),
            np.array(self._table or [0], np.int64),
            np.frombuffer(bytes(self._symbols), np.uint8),
        )

    def _add(self, op: int, arg: int = 0, out: int = -1, more: int = 0) -> int:
        self._steps.append([op, arg, out, more])
        return len(self._steps) - 1

    def _read(self, schema: Any, wanted: Wanted) -> None:
        name, whole = self._schema.type_of(schema)
        if name == "union":
            self._union(whole, wanted)
        elif name in ("record", "error"):
            self._record(whole, wanted)
        elif name in ("array", "map"):
            self._items(name, whole, wanted)
        elif wanted.number is None:
            self._skip(name, whole)
        else:
            self._want(name, whole, wanted)

    def _union(self, branches: Sequence[Any], wanted: Wanted) -> None:
        first = len(self._table)
        self._table += [len(branches), *[0] * len(branches)]
        self._add(ops.UNION, first)
        ends = []
        for place, branch in enumerate(branches):
            self._table[first + 1 + place] = len(self._steps)
            self._read(branch, wanted)
            ends.append(self._add(ops.JUMP))
        for end in ends:
            self._steps[end][ops.ARG] = len(self._steps)

    def _record(self, whole: Mapping[str, Any], wanted: Wanted) -> None:
        if wanted.number is not None:
            self._add(ops.INSIDE, out=wanted.number)
        if wanted.below:
            self._fields(whole, wanted)
        else:
            name = whole["name"]
            if name not in self._routines:
                self._pending.append(name)
            self._routines.setdefault(name, []).append(self._add(ops.CALL))

    def _fields(self, whole: Mapping[str, Any], wanted: Wanted) -> None:
        for field in whole["fields"]:
            self._read(field["type"], wanted.below.get(field["name"], _UNWANTED))

    def _items(self, name: str, whole: Mapping[str, Any], wanted: Wanted) -> None:
        if name == "map" and any(isinstance(step, str) for step in wanted.below):
            self._add(ops.UNSURE)  # keys are looked for by the exact decoder
        if wanted.number is not None:
            self._add(ops.INSIDE, out=wanted.number)
        places = {step: below for step, below in wanted.below.items() if isinstance(step, int)}
        self._add(ops.ITEMS)
        block = self._add(ops.BLOCK)
        if name == "map":
            self._add(ops.SIZED)
            places = {}
        jumps = {place: self._add(ops.AT_PLACE, more=place) for place in places}
        inner, ends = whole["items" if name == "array" else "values"], []
        self._read(inner, _UNWANTED)
        for place, below in places.items():
            ends.append(self._add(ops.JUMP))
            self._steps[jumps[place]][ops.ARG] = len(self._steps)
            self._read(inner, below)
        next_item = self._add(ops.NEXT_ITEM, block)
        for end in ends:
            self._steps[end][ops.ARG] = next_item
        self._steps[block][ops.ARG] = len(self._steps)

    def _skip(self, name: str, whole: Mapping[str, Any]) -> None:
        if name == "enum":
            self._add(ops.ENUM, more=len(whole["symbols"]))
        elif name == "fixed":
            self._add(ops.FIXED, whole["size"])
        else:
            self._add(_PLAIN[name][0])

    def _want(self, name: str, whole: Mapping[str, Any], wanted: Wanted) -> None:
        assert wanted.number is not None
        logical = str(whole.get("logicalType", "")).removeprefix(OWN) if whole else ""
        if logical == "decimal" and whole.get("scale", 0) <= _MOST_PLACES:
            size = whole["size"] if name == "fixed" else -1
            self._add(ops.WANT_DECIMAL, whole.get("scale", 0), wanted.number, size)
            self._add(ops.NOTHING, min(_LARGEST_EXACT, 10 ** whole["precision"]))
        elif logical.removeprefix(_OF_LOCAL_CLOCKS) in _INSTANTS and wanted.as_time:
            kind = LOCAL if logical.startswith(_OF_LOCAL_CLOCKS) else INSTANT
            factor = _INSTANTS[logical.removeprefix(_OF_LOCAL_CLOCKS)]
            self._add(ops.WANT_INSTANT, factor, wanted.number, kind)
        elif logical == "uuid":
            self._add(ops.WANT_UUID, out=wanted.number)
        elif logical or name == "fixed":
            self._add(ops.UNSURE)
        elif name == "enum":
            self._enum(whole["symbols"], wanted.number)
        else:
            self._add(_PLAIN[name][1], out=wanted.number)

    def _enum(self, symbols: Sequence[str], field: int) -> None:
        self._add(ops.WANT_ENUM, len(self._table), field, len(symbols))
        for symbol in symbols:
            self._table.append(len(self._symbols))
            self._symbols += symbol.encode()
        self._table.append(len(self._symbols))
