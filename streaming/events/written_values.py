"""Values that formats other than JSON know, and what they are as texts, numbers and times."""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal, DecimalException
from typing import Any

_EPOCH = datetime(1970, 1, 1)
_MIDNIGHT = datetime(1, 1, 1)
_DAY = timedelta(days=1)
# Longer numbers, which nothing counts, have no decimal text in Python.
_MOST_BITS = 8_192


@dataclass(frozen=True)
class Instant:
    """A point in time that needs no pattern.

    Attributes:
        micros: microseconds since 1970, of UTC or, without `zoned`, of a local clock.
        zoned: whether it is UTC's.
    """

    micros: int
    zoned: bool = True

    def moment(self) -> datetime:
        """Return it, without a zone where it is a local clock's.

        Raises:
            OverflowError: no datetime can hold it.
        """
        local = _EPOCH + timedelta(microseconds=self.micros)
        return local.replace(tzinfo=UTC) if self.zoned else local


class Unusable:
    """Stands where bytes were found that their type cannot mean: no text, no number, not null."""


UNUSABLE = Unusable()


def decimal_of(unscaled: bytes, precision: int, scale: int) -> int | Decimal:
    """Return a number of big-endian two's complement digits; a whole one where it has no places.

    One of thousands of digits is none.
    """
    number = int.from_bytes(unscaled, "big", signed=True)
    if number.bit_length() > _MOST_BITS:
        return Decimal("NaN")
    context = Context(prec=precision)
    try:
        value = context.create_decimal(number).scaleb(-scale, context)
    except DecimalException:
        return number if scale == 0 else Decimal("NaN")
    return int(value) if scale == 0 and value.is_finite() else value


def plain(value: Any, *, as_written: bool) -> Any:
    """Return a value as the readers of JSON know it.

    Args:
        value: what a format's own decoder has found at a path.
        as_written: instants and decimals stay what they are, for readers that know them.
    """
    match value:
        case Instant() | Decimal() if as_written:
            return value
        case Instant():
            return _written(value)
        case Decimal():
            return float(value)
        case bytes():
            return base64.b64encode(value).decode()
        case uuid.UUID() | date() | time():
            return str(value)
    return value


def date_of(days: int) -> date | Unusable:
    """Return a day since 1970."""
    try:
        return _EPOCH.date() + timedelta(days=days)
    except OverflowError:
        return UNUSABLE


def time_of(micros: int) -> time | Unusable:
    """Return a time of day in microseconds since midnight."""
    if not 0 <= micros < _DAY // timedelta(microseconds=1):
        return UNUSABLE
    return (_MIDNIGHT + timedelta(microseconds=micros)).time()


def uuid_of(text: str) -> uuid.UUID | Unusable:
    """Return the UUID that a text is."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return UNUSABLE


def _written(instant: Instant) -> str | Unusable:
    try:
        moment = instant.moment()
    except OverflowError:
        return UNUSABLE
    return moment.isoformat().replace("+00:00", "Z")
