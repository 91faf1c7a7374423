"""Single values of an event, each read by its own rule, and why one cannot be had."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from schemas.event_columns import Column, Reading
from schemas.id_fields import IdField
from streaming.events.exact_ids import UnusableIdError, read_id

RejectionReason = Literal[
    "malformed_json",
    "invalid_utf8",
    "null_value",
    "not_an_object",
    "missing_field",
    "mistyped_field",
    "oversized_field",
    "bad_amount",
    "amount_too_large",
    "bad_currency",
    "bad_time",
    "absurd_time",
    "time_ahead_of_broker",
    "broker_time_ahead",
    "oversized_record",
    "missing_framing",
    "unknown_schema",
    "unusable_schema",
    "malformed_avro",
    "malformed_protobuf",
]
# Reads one column's value, which is not null, and says what is wrong with it.
Reader = Callable[[Column, Any, list[str]], Any]
_INT64 = 2**63
BROKEN = re.compile("[\ud800-\udfff]")


class RejectedError(Exception):
    """Why one record is not a transaction."""

    def __init__(self, reason: RejectionReason, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


def read_value(column: Column, read: Reader, value: Any, faults: list[str]) -> Any:
    """Return a column's value, None for none; one that cannot be used is noted in `faults`.

    Raises:
        RejectedError: a transaction cannot do without it.
    """
    if value is None:
        if column.required:
            raise RejectedError("missing_field", column.source or column.name)
        return None
    try:
        return read(column, value, faults)
    except RejectedError:
        if column.required:
            raise
        faults.append(_unusable(column))
        return None


def reshaped_id(
    column: Column, field: IdField, value_of: Callable[[str], Any], faults: list[str]
) -> str | None:
    """Return an id that is put together of several fields; see read_value."""
    try:
        found = read_id(column, field, value_of)
    except UnusableIdError as fault:
        if column.required:
            raise RejectedError(fault.reason, fault.detail) from None
        faults.append(_unusable(column))
        return None
    if found is None and column.required:
        raise RejectedError("missing_field", column.source or column.name)
    return found


def _unusable(column: Column) -> str:
    return f"{column.name}: not usable as {column.json_type}"


def _read_id(column: Column, value: Any, _: list[str]) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return _short(column, str(value))
    if column.json_type == "integer":
        raise RejectedError("mistyped_field", column.source or "")
    text = _short(column, _read_string(column, value))
    if not text:
        raise RejectedError("mistyped_field", f"{column.source} is empty")
    return text


def _read_currency(column: Column, value: Any, _: list[str]) -> str:
    return _short(column, _read_string(column, value))


def _short(column: Column, text: str) -> str:
    if column.max_length is not None and len(text) > column.max_length:
        raise RejectedError("oversized_field", f"{column.source}: more than {column.max_length} characters")
    return text


def _read_string(column: Column, value: Any) -> str:
    if not isinstance(value, str):
        raise RejectedError("mistyped_field", column.source or "")
    if BROKEN.search(value):
        raise RejectedError("invalid_utf8", column.source or "")
    return value


def _read_text(column: Column, value: Any, faults: list[str]) -> str:
    """Return what is left of a text that nothing rests on: as much as it may hold, in whole characters."""
    if not isinstance(value, str):
        raise RejectedError("mistyped_field", column.source or "")
    text: str = value[: column.max_length]
    if len(text) < len(value):
        faults.append(f"{column.name}: cut at {column.max_length}")
    if BROKEN.search(text):
        text = BROKEN.sub("\ufffd", text)
        faults.append(f"{column.name}: broken characters replaced")
    return text


def _read_float(column: Column, value: Any, _: list[str]) -> float:
    return finite_number(column, value, "mistyped_field")


def finite_number(column: Column, value: Any, not_finite: RejectionReason) -> float:
    """Return a value as a finite number.

    Args:
        not_finite: why it is rejected where it is none.

    Raises:
        RejectedError: it is no number, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RejectedError("mistyped_field", column.source or "")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RejectedError(not_finite, f"{column.source} is not finite")
    return number


def _read_integer(column: Column, value: Any, _: list[str]) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -_INT64 <= value < _INT64:
        raise RejectedError("mistyped_field", column.source or "")
    return value


def _read_boolean(column: Column, value: Any, _: list[str]) -> bool:
    if not isinstance(value, bool):
        raise RejectedError("mistyped_field", column.source or "")
    return value


_READERS: Mapping[Reading, Reader] = {
    "id": _read_id,
    "currency": _read_currency,
    "text": _read_text,
    "number": _read_float,
    "integer": _read_integer,
    "boolean": _read_boolean,
}


def reader_for(reading: Reading) -> Reader:
    """Return what reads values of a kind; what nothing rests on is read as text."""
    return _READERS.get(reading, _read_text)
