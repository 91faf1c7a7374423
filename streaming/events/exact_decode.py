"""The exact decoder: what an event means under a contract, and why one is rejected, one record at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from schemas.contract import NANOSECONDS, Column, EventContract

RejectionReason = Literal[
    "malformed_json",
    "invalid_utf8",
    "null_value",
    "not_an_object",
    "missing_field",
    "mistyped_field",
    "bad_amount",
    "bad_time",
    "absurd_time",
    "time_ahead_of_broker",
    "broker_time_ahead",
    "oversized_record",
]

MICRO = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ABSURD: tuple[RejectionReason, str] = ("absurd_time", "outside the contract's bounds")
AHEAD: tuple[RejectionReason, str] = ("time_ahead_of_broker", "later than the broker's clock allows")
STAMP_AHEAD: tuple[RejectionReason, str] = (
    "broker_time_ahead",
    "stamped later than this machine's clock allows",
)
_INT64 = 2**63


class RejectedError(Exception):
    """Why one record is not a transaction."""

    def __init__(self, reason: RejectionReason, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


class ExactDecoder:
    """Decodes one record at a time: the definition of what an event means under a contract."""

    def __init__(self, contract: EventContract) -> None:
        self._contract = contract
        self._bounds = time_bounds(contract)
        self._zone = ZoneInfo(contract.event_time.zone)

    def decode_one(self, value: bytes | None, stamp: int | None) -> dict[str, Any]:
        """Return the decoded columns by name, event time in microseconds since 1970 UTC.

        Args:
            value: the record's bytes.
            stamp: the broker's timestamp in microseconds since 1970 UTC.

        Raises:
            RejectedError: the record is not a transaction under the contract.
        """
        event, odd = _parse(value, self._contract.max_record_bytes)
        row: dict[str, Any] = {}
        for column in self._contract.columns:
            if column.source is None:
                row[column.name] = self._contract.currency.constant
            else:
                row[column.name] = self._value(column, _lookup(event, column.source))
        if odd:
            raise RejectedError("malformed_json", "NaN or Infinity")
        self._check_time(row["event_time"], stamp)
        return row

    def _value(self, column: Column, value: Any) -> Any:
        if value is None:
            if column.required:
                raise RejectedError("missing_field", column.source or column.name)
            return None
        return self._reader(column)(column, value)

    def _reader(self, column: Column) -> Callable[[Column, Any], Any]:
        if column.role in ("transaction id", "entity"):
            return _read_id
        if column.role == "event time":
            return self._read_time
        if column.role == "amount":
            return _read_amount
        if column.role == "untrusted text":
            return self._read_text
        return _READERS[column.json_type]

    def _read_text(self, column: Column, value: Any) -> str:
        return _read_string(column, value)[: self._contract.untrusted_text[column.name].max_length]

    def _read_time(self, column: Column, value: Any) -> int:
        time = self._contract.event_time
        try:
            if time.format == "epoch":
                return self._from_epoch(column, value)
            text = _read_string(column, value)
            moment = _from_iso(text) if time.format == "iso8601" else datetime.strptime(text, time.format)
            zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=self._zone)
            return (zoned - EPOCH) // MICRO
        except (ValueError, OverflowError):
            raise RejectedError("bad_time", column.source or "") from None

    def _from_epoch(self, column: Column, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RejectedError("mistyped_field", column.source or "")
        time = self._contract.event_time
        unit = NANOSECONDS[time.unit]
        since = value * unit // 1_000 if isinstance(value, int) else round(value * (unit / 1_000))
        micros = int(since) + (time.epoch - EPOCH) // MICRO
        if not -_INT64 <= micros < _INT64:
            raise RejectedError(*ABSURD)
        return micros

    def _check_time(self, micros: int, stamp: int | None) -> None:
        earliest, latest, ahead = self._bounds
        if not earliest <= micros <= latest:
            raise RejectedError(*ABSURD)
        if micros > (stamp or 0) + ahead:
            raise RejectedError(*AHEAD)


def _parse(value: bytes | None, longest: int) -> tuple[dict[str, Any], list[float]]:
    """Parse one object; also return the NaN and Infinity tokens, which JSON does not know."""
    if value is None:
        raise RejectedError("null_value")
    if len(value) > longest:
        raise RejectedError("oversized_record", f"{len(value)} bytes, at most {longest}")
    odd: list[float] = []
    try:
        event = json.loads(value.decode("utf-8"), parse_constant=lambda token: _odd(odd, token))
    except UnicodeDecodeError:
        raise RejectedError("invalid_utf8") from None
    except (ValueError, RecursionError):
        raise RejectedError("malformed_json") from None
    if not isinstance(event, dict):
        raise RejectedError("not_an_object", type(event).__name__)
    return event, odd


def _odd(odd: list[float], token: str) -> float:
    odd.append(float(token))
    return odd[-1]


def _lookup(event: Mapping[str, Any], path: str) -> Any:
    if path in event or "." not in path:
        return event.get(path)
    found: Any = event
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _read_id(column: Column, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if column.json_type == "integer":
        raise RejectedError("mistyped_field", column.source or "")
    text = _read_string(column, value)
    if not text:
        raise RejectedError("mistyped_field", f"{column.source} is empty")
    return text


def _read_string(column: Column, value: Any) -> str:
    if not isinstance(value, str):
        raise RejectedError("mistyped_field", column.source or "")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise RejectedError("mistyped_field", f"{column.source} is not Unicode") from None
    return value


def _read_amount(column: Column, value: Any) -> float:
    number = _number(column, value, "bad_amount")
    if number < 0 or math.copysign(1.0, number) < 0:
        raise RejectedError("bad_amount", "negative")
    return number


def _read_float(column: Column, value: Any) -> float:
    return _number(column, value, "mistyped_field")


def _number(column: Column, value: Any, not_finite: RejectionReason) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RejectedError("mistyped_field", column.source or "")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RejectedError(not_finite, f"{column.source} is not finite")
    return number


def _read_integer(column: Column, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -_INT64 <= value < _INT64:
        raise RejectedError("mistyped_field", column.source or "")
    return value


def _read_boolean(column: Column, value: Any) -> bool:
    if not isinstance(value, bool):
        raise RejectedError("mistyped_field", column.source or "")
    return value


_READERS: Mapping[str, Callable[[Column, Any], Any]] = {
    "string": _read_string,
    "number": _read_float,
    "integer": _read_integer,
    "boolean": _read_boolean,
}


def _from_iso(text: str) -> datetime:
    """Accept a date and a time of day, as RFC 3339 has them; a bare date names no moment."""
    if len(text) < len("2026-01-01T00:00:00") or text[10] not in "T ":
        raise ValueError(text)
    return datetime.fromisoformat(text)


def time_bounds(contract: EventContract) -> tuple[int, int, int]:
    """Return the earliest and the latest event time and how far it may be ahead, in microseconds."""
    time = contract.event_time
    return (time.earliest - EPOCH) // MICRO, (time.latest - EPOCH) // MICRO, time.max_ahead // MICRO
