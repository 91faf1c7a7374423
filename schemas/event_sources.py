"""Where in a record a field is: in its value, or beside it in the key, a header, or the topic's name.

`amount.value` and `value:amount.value` are paths in the value; `key:` is the whole key and `key:payload.id` a
path in a key of JSON, or of the contract's `key_format`; `header:ce_id` is the last header of that name;
`topic:` is the topic's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Part = Literal["value", "key", "header", "topic"]
_PARTS: tuple[Part, ...] = ("value", "key", "header", "topic")


class Source(NamedTuple):
    """A part of the record, and what is wanted of it."""

    part: Part
    path: str


def source_of(field: str) -> Source:
    """Return where a field of a contract is."""
    head, colon, rest = field.partition(":")
    part = next((each for each in _PARTS if colon and each == head), None)
    return Source("value", field) if part is None else Source(part, rest)


def sources_of(fields: Sequence[str], *, from_file: bool = False) -> tuple[Source, ...]:
    """Return where several fields are; of a file they are all columns, under their whole names."""
    return tuple(Source("value", each) if from_file else source_of(each) for each in fields)


def check_source(field: str) -> str:
    """Return a field's name.

    Raises:
        ValueError: it names a header without a name, or something of the topic's name.
    """
    source = source_of(field)
    if source.part in ("value", "header") and not source.path:
        raise ValueError(f"{field!r} names no field; expected for example header:ce_id or value:id")
    if source.part == "topic" and source.path:
        raise ValueError(f"{field!r}: a topic has a name and nothing else; expected topic:")
    return field
