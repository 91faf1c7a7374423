"""Which raw records are somebody's: by their text, and by the fields that hold an entity's id."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.contract import EventContract
from schemas.event_paths import steps_of
from schemas.event_sources import source_of
from schemas.id_fields import IdField, joined
from streaming.erasure.naming import Subject
from streaming.erasure.renaming import Renaming

_COLUMNS = ("key", "value", "headers", "detail")


class RecordSearch:
    """Finds the records of those who are erased among those that were rejected.

    Args:
        subjects: whom to erase.
        renaming: knows what mentions them.
        contracts: all that the agent has gone by; they name the fields of ids, and how ids are written alike.
    """

    def __init__(
        self, subjects: Sequence[Subject], renaming: Renaming, contracts: Sequence[EventContract]
    ) -> None:
        self._renaming = renaming
        self._fields = [
            (contract.entities[name], contract.aliases, each.id)
            for each in subjects
            for contract in contracts
            for name in sorted(renaming.naming.alike[each.entity])
            if name in contract.entities
        ]

    def of_somebody(self, records: pa.Table) -> npt.NDArray[np.bool_]:
        """Return which records are, bool[n]."""
        columns = [records[name].to_pylist() for name in _COLUMNS]
        rows = (_RawRecord(*each) for each in zip(*columns, strict=True))
        return np.array([self._is_of_somebody(each) for each in rows], np.bool_)

    def _is_of_somebody(self, record: _RawRecord) -> bool:
        if any(self._renaming.is_mentioned(form) for text in record.texts() for form in _composed(text)):
            return True
        return any(_id_in(record, field, aliases) == wanted for field, aliases, wanted in self._fields)


@dataclass(frozen=True)
class _RawRecord:
    """A rejected record as it came, and why it was rejected."""

    key: bytes | None
    value: bytes | None
    headers: list[dict[str, Any]] | None
    detail: str | None

    def texts(self) -> Iterator[str]:
        """Yield what it says: as it is written, and as JSON means it."""
        parts = [self.key, self.value, *(each["value"] for each in self.headers or ())]
        yield from (_text(part) for part in parts if part)
        yield self.detail or ""
        yield from _leaves(self._event)

    def at(self, field: str) -> Any:
        """Return what stands at a field of a contract, None where nothing does."""
        source = source_of(field)
        if source.part == "value":
            return _at(self._event, source.path)
        if source.part == "key" and source.path:
            return _at(_json(self.key), source.path)
        beside = {"key": self.key, "header": self._header(source.path)}
        found = beside.get(source.part)
        return None if found is None else _text(found)

    @cached_property
    def _event(self) -> Any:
        return _json(self.value)

    def _header(self, name: str) -> bytes | None:
        named = [each["value"] for each in self.headers or () if each["key"] == name]
        return named[-1] if named else None


def _id_in(record: _RawRecord, field: IdField, aliases: Mapping[str, Sequence[str]]) -> str | None:
    """Return the id that a record holds, as the lake has it; None where it lacks a part of it."""
    names = [(source, *aliases.get(source, ())) for source in field.sources]
    found = [next((each for each in map(record.at, given) if each is not None), None) for given in names]
    if None in found:
        return None
    return joined([field.normalised(str(each)) for each in found])


def _composed(text: str) -> tuple[str, ...]:
    """An accent may stand as a character of its own; contracts may compose it in ids."""
    return (text,) if text.isascii() else (text, unicodedata.normalize("NFC", text))


def _text(part: bytes) -> str:
    return part.decode("utf-8", "replace")


def _json(part: bytes | None) -> Any:
    try:
        return json.loads(part or b"")
    except (ValueError, RecursionError):
        return None


def _at(event: Any, path: str) -> Any:
    if isinstance(event, Mapping) and path in event:
        return event[path]
    for step in steps_of(path):
        if isinstance(step, int):
            event = event[step] if isinstance(event, list) and step < len(event) else None
        else:
            event = event.get(step) if isinstance(event, Mapping) else None
    return event


def _leaves(content: Any) -> Iterator[str]:
    """Yield the texts of a document, however deep it is."""
    left = [content]
    while left:
        each = left.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, Mapping):
            left += [*each, *each.values()]
        elif isinstance(each, list):
            left += each
