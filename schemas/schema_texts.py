"""A schema as text, with those that it refers to."""

from __future__ import annotations

from typing import NamedTuple


class SchemaText(NamedTuple):
    """A schema of Avro or Protobuf.

    Attributes:
        text: the schema.
        references: texts of the schemas that it refers to, each after those that it refers to itself.
        names: the names under which it refers to them.
    """

    text: str
    references: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
