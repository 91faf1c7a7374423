"""Avro schemas as writers registered them, and the meaning of a datum as fastavro reads it.

Logical types are read by functions of this project, because fastavro's raise where a value is out of bounds,
and one such value must cost no more than its field.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import fastavro
from fastavro.read import LOGICAL_READERS

from schemas.schema_texts import SchemaText
from streaming.events.written_values import Instant, date_of, decimal_of, time_of, uuid_of

OWN = "flagstream-"
_MOST_KEPT = 256
_FAULTS = (
    *(EOFError, ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError),
    *(MemoryError, RecursionError, AssertionError),
)
_PRIMITIVE = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


class UnusableSchemaError(Exception):
    """A schema by which nothing can be read; the message says why and quotes nothing of it."""


@dataclass(frozen=True)
class AvroSchema:
    """A writer's schema.

    Attributes:
        parsed: as fastavro reads by it, logical types under names of this project.
        named: the named types by their full names.
    """

    parsed: Any
    named: Mapping[str, Any]

    def datum(self, payload: bytes) -> Any:
        """Return what a payload holds.

        Raises:
            ValueError: it is not a datum of this schema, or more than one.
        """
        stream = io.BytesIO(payload)
        try:
            datum = fastavro.schemaless_reader(
                stream, self.parsed, None, handle_unicode_errors="surrogateescape"
            )
        except _FAULTS as fault:
            raise ValueError(type(fault).__name__) from None
        if stream.tell() != len(payload):
            raise ValueError("bytes are left over")
        return datum

    def type_of(self, schema: Any) -> tuple[str, Any]:
        """Return the name of a schema's type, and the schema itself with named ones resolved."""
        while isinstance(schema, str) and schema not in _PRIMITIVE:
            schema = self.named[schema]
        if isinstance(schema, list):
            return "union", schema
        return (schema, {}) if isinstance(schema, str) else (schema["type"], schema)


@lru_cache(_MOST_KEPT)
def avro_schema(text: SchemaText) -> AvroSchema:
    """Parse a schema and those that it refers to.

    Raises:
        UnusableSchemaError: fastavro cannot use it, or a few bytes could stand for endless arrays.
    """
    named: dict[str, Any] = {}
    try:
        for each in (*text.references, text.text):
            parsed = fastavro.parse_schema(_marked(json.loads(each)), named_schemas=named)
    except (*_FAULTS, fastavro.schema.SchemaParseException, fastavro.schema.UnknownType) as fault:
        raise UnusableSchemaError(f"not a schema of Avro: {type(fault).__name__}") from None
    schema = AvroSchema(parsed, named)
    _check_arrays(schema, parsed, set())
    return schema


def _marked(schema: Any) -> Any:
    """Give logical types the names of this project's readers."""
    if isinstance(schema, list):
        return [_marked(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    marked = {name: each if name == "default" else _marked(each) for name, each in schema.items()}
    key = f"{schema.get('type')}-{OWN}{schema.get('logicalType')}"
    if "logicalType" in schema:
        marked.pop("logicalType")
        if key in LOGICAL_READERS and _decimal_is_sound(schema):
            marked["logicalType"] = f"{OWN}{schema['logicalType']}"
    return marked


def _decimal_is_sound(schema: Mapping[str, Any]) -> bool:
    """A decimal without a sound precision and scale is bytes, as Avro's specification says."""
    if schema["logicalType"] != "decimal":
        return True
    precision, scale = schema.get("precision"), schema.get("scale", 0)
    if type(precision) is not int or type(scale) is not int:
        return False
    return precision > 0 and 0 <= scale <= precision


def _check_arrays(schema: AvroSchema, within: Any, seen: set[str]) -> None:
    """Refuse arrays of items without bytes: ten bytes of a record would be a billion of them."""
    name, whole = schema.type_of(within)
    if name in ("record", "enum", "fixed", "error"):
        if whole["name"] in seen:
            return
        seen.add(whole["name"])
    if name == "array" and not _needs_bytes(schema, whole["items"], frozenset()):
        raise UnusableSchemaError("arrays of items that take no bytes")
    for inner in _inner(name, whole):
        _check_arrays(schema, inner, seen)


def _inner(name: str, whole: Any) -> Sequence[Any]:
    if name == "union":
        return list(whole)
    if name in ("record", "error"):
        return [field["type"] for field in whole["fields"]]
    return [whole[key] for key in ("items", "values") if key in whole]


def _needs_bytes(schema: AvroSchema, within: Any, open_: frozenset[str]) -> bool:
    name, whole = schema.type_of(within)
    if name in ("record", "error"):
        if whole["name"] in open_:
            return True  # no datum of it ever ends
        open_ |= {whole["name"]}
        return any(_needs_bytes(schema, field["type"], open_) for field in whole["fields"])
    return name != "null" and not (name == "fixed" and whole["size"] == 0)


_READ: Mapping[str, Callable[[Any, Any], Any]] = {
    "long-timestamp-millis": lambda value, _: Instant(value * 1_000),
    "long-timestamp-micros": lambda value, _: Instant(value),
    "long-timestamp-nanos": lambda value, _: Instant(value // 1_000),
    "long-local-timestamp-millis": lambda value, _: Instant(value * 1_000, zoned=False),
    "long-local-timestamp-micros": lambda value, _: Instant(value, zoned=False),
    "long-local-timestamp-nanos": lambda value, _: Instant(value // 1_000, zoned=False),
    "int-date": lambda value, _: date_of(value),
    "int-time-millis": lambda value, _: time_of(value * 1_000),
    "long-time-micros": lambda value, _: time_of(value),
    "string-uuid": lambda value, _: uuid_of(value),
    "bytes-decimal": lambda value, schema: decimal_of(value, schema["precision"], schema.get("scale", 0)),
    "fixed-decimal": lambda value, schema: decimal_of(value, schema["precision"], schema.get("scale", 0)),
}


def _own_reader(read: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda value, writer_schema=None, _reader_schema=None: read(value, writer_schema)


for _name, _read in _READ.items():
    LOGICAL_READERS[_name.replace("-", f"-{OWN}", 1)] = _own_reader(_read)
