"""Keys that only a schema makes readable: one key read exactly, and a key of Avro as a record's one field."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

from schemas.event_paths import look_up, steps_of
from schemas.schema_texts import SchemaText
from streaming.events.writer_schemas import UnreadableError, WriterSchemas
from streaming.events.written_values import UNUSABLE

_FIELD = "key"


class _FieldReader(Protocol):
    """Reads one value of a format, see avro_fields.AvroReader."""

    def event(self, value: bytes) -> dict[str, Any]:
        """Return its fields."""


class KeyReader:
    """Reads fields of one key: the definition of what it holds.

    Args:
        reader: of the keys' format.
        named: the path that the reader knows a path in the key by.
    """

    def __init__(self, reader: _FieldReader, named: Callable[[str], str] = lambda path: path) -> None:
        self._reader, self._named = reader, named

    def value(self, key: bytes | None, path: str) -> Any:
        """Return what a path in a key leads to, None where nothing is there.

        A key that cannot be read costs the fields that are read from it, not the record.
        """
        if key is None:
            return None
        try:
            event = self._reader.event(key)
        except UnreadableError:
            return UNUSABLE
        name = self._named(path)
        return look_up(event, name, steps_of(name))


def with_whole_key(writers: WriterSchemas) -> WriterSchemas:
    """Return the schemas of records with keys of Avro as their one field.

    A record is written as its fields one after the other, so such a record has the very bytes of the key, and
    a key that is a text or a number has a path like any other.
    """
    return {
        number: each if isinstance(each, UnreadableError) else _as_field(each)
        for number, each in writers.items()
    }


def path_in(path: str) -> str:
    """Return the path in such a record of a path in the key, of which the one of nothing is the whole key."""
    return _FIELD + (path if path.startswith("[") or not path else f".{path}")


def _as_field(writer: SchemaText) -> SchemaText:
    try:
        schema = json.loads(writer.text)
    except (ValueError, RecursionError):
        return writer  # whoever reads by it says that it is none
    record = {"type": "record", "name": "flagstream_key", "fields": [{"name": _FIELD, "type": schema}]}
    return writer._replace(text=json.dumps(record))
