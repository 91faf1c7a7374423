"""A schema registry of a few schemas, for tests of what is read by them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from schemas.schema_texts import SchemaText
from streaming.events.writer_schemas import UnreadableError, WriterSchemas


class KnownSchemas:
    """A SchemaSource that knows schemas of one kind by their ids, and keeps what it was asked for."""

    def __init__(self, kind: str, texts: Mapping[int, str]) -> None:
        self.kind, self.texts, self.asked = kind, texts, list[int]()

    def schemas(self, kind: str, ids: Iterable[int]) -> WriterSchemas:
        assert kind == self.kind
        self.asked += ids
        return {
            each: SchemaText(self.texts[each]) if each in self.texts else UnreadableError("unknown_schema")
            for each in ids
        }

    def away(self) -> str | None:
        return None
