"""Which raw records are somebody's: by their text, and by the fields that hold an entity's id."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.contract import EventContract
from streaming.erasure.naming import Subject
from streaming.erasure.renaming import Renaming

_COLUMNS = ("key", "value", "headers", "detail")


class RecordSearch:
    """Finds the records of those who are erased among those that were rejected.

    Args:
        subjects: whom to erase.
        renaming: knows what mentions them.
        contracts: all that the agent has gone by; they name the fields of ids.
    """

    def __init__(
        self, subjects: Sequence[Subject], renaming: Renaming, contracts: Sequence[EventContract]
    ) -> None:
        self._renaming = renaming
        self._fields = {
            (source, each.id)
            for each in subjects
            for contract in contracts
            for name in renaming.naming.alike[each.entity]
            if name in contract.entities
            for source in contract.entities[name].sources
        }

    def of_somebody(self, records: pa.Table) -> npt.NDArray[np.bool_]:
        """Return which records are, bool[n]."""
        columns = [records[name].to_pylist() for name in _COLUMNS]
        return np.array([self._is_of_somebody(*each) for each in zip(*columns, strict=True)], np.bool_)

    def _is_of_somebody(
        self, key: bytes | None, value: bytes | None, headers: list[dict[str, Any]] | None, detail: str | None
    ) -> bool:
        parts = [key, value, *(each["value"] for each in headers or ())]
        texts = [detail or "", *(part.decode("utf-8", "replace") for part in parts if part)]
        if any(map(self._renaming.is_mentioned, texts)):
            return True
        said = dict(_said(value or b""))
        return any(str(said[name]) == text for name, text in self._fields if name in said)


def _said(value: bytes) -> Iterator[tuple[str, Any]]:
    """Yield what a record says, by the names that contracts have for fields."""
    try:
        content = json.loads(value)
    except (ValueError, RecursionError):
        return
    if isinstance(content, Mapping):
        yield from _leaves("", content)


def _leaves(before: str, content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(f"{before}{name}.", value)
        else:
            yield f"{before}{name}", value
