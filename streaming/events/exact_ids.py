"""Ids that are more than the text of one field: what they are in one event."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from schemas.event_columns import Column
from schemas.id_fields import IdField, joined

_BROKEN = re.compile("[\ud800-\udfff]")


Reason = Literal["mistyped_field", "oversized_field", "invalid_utf8"]


class UnusableIdError(Exception):
    """Why an event has no such id."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


def read_id(column: Column, field: IdField, value_of: Callable[[str], Any]) -> str | None:
    """Return an event's id, None where it has none.

    Args:
        value_of: gives the value at a path, None where there is none.

    Raises:
        UnusableIdError: a field holds what is no id.
    """
    parts = [_part(column, field, source, value_of(source)) for source in field.sources]
    present = [part for part in parts if part is not None]
    if not parts or len(present) < len(parts):
        return None
    found = joined(present)
    if len(found) > field.max_length:
        detail = f"{column.source}: more than {field.max_length} characters"
        raise UnusableIdError("oversized_field", detail)
    return found


def _part(column: Column, field: IdField, source: str, value: Any) -> str | None:
    if value is None:
        return None
    text = field.normalised(_text(column, source, value))
    if text in field.placeholders:
        return None
    if not text:
        raise UnusableIdError("mistyped_field", f"{source} is empty")
    return text


def _text(column: Column, source: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if column.json_type == "integer" or not isinstance(value, str):
        raise UnusableIdError("mistyped_field", source)
    if _BROKEN.search(value):
        raise UnusableIdError("invalid_utf8", source)
    return value
