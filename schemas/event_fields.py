"""What a contract says of each field of an event: where it is, what it holds and how it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, field_validator, model_validator

from schemas.errors import nearest
from schemas.loading import Document, Duration

ColumnType = Literal["string", "integer", "float", "boolean"]
TimeUnit = Literal["ns", "us", "ms", "s", "h", "d"]

NANOSECONDS: Mapping[TimeUnit, int] = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
_FORMATS = ("iso8601", "epoch")
_LONGEST = timedelta(days=36_500)


def _bounded(value: timedelta) -> timedelta:
    """Longer ones would leave 64 bits of microseconds once added to a time."""
    if not timedelta(0) <= value <= _LONGEST:
        raise ValueError(f"expected a duration from 0s to {_LONGEST.days}d")
    return value


BoundedDuration = Annotated[Duration, AfterValidator(_bounded)]


class TimeField(Document):
    """The field that holds the event time.

    `format` is `iso8601`, `epoch` (a number of `unit` since `epoch`) or a strptime pattern. A time without an
    offset is in `zone`. Times outside `earliest`..`latest` are absurd; a time more than `max_ahead` after the
    broker's timestamp is refused, since one wrong clock would age every profile.
    """

    field: str = Field(min_length=1)
    format: str = "iso8601"
    unit: TimeUnit = "s"
    epoch: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    zone: str = "UTC"
    earliest: datetime = datetime(1990, 1, 1, tzinfo=UTC)
    latest: datetime = datetime(2100, 1, 1, tzinfo=UTC)
    max_ahead: BoundedDuration = timedelta(minutes=5)

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        if value not in _FORMATS and "%" not in value:
            raise ValueError(f"expected iso8601, epoch or a strptime pattern; {nearest(value, _FORMATS)}")
        if value not in _FORMATS:
            _check_pattern(value)
        return value

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"no time zone named {value!r}; expected an IANA name such as UTC") from None
        return value

    @field_validator("epoch", "earliest", "latest")
    @classmethod
    def _with_zone(cls, value: datetime) -> datetime:
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)

    @model_validator(mode="after")
    def _some_time_fits(self) -> TimeField:
        if self.earliest >= self.latest:
            raise ValueError("'earliest' must come before 'latest'")
        return self


class ExtraField(Document):
    """A further typed field; null when absent or unusable unless `required`.

    Text is cut after `max_length` characters.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"max_length"})

    field: str = Field(min_length=1)
    type: ColumnType = "string"
    required: bool = False
    max_length: int = Field(default=1_000, ge=1)


class TextField(Document):
    """Free text written by people outside: kept, but never trusted.

    Cut after `max_length` characters; null when unusable.
    """

    field: str = Field(min_length=1)
    max_length: int = Field(default=500, ge=1)


class LabelMapping(Document):
    """A label for evaluation, and the field of the kind of fraud; never decoded into transactions."""

    field: str = Field(min_length=1)
    kind: str | None = None


class Duplicates(Document):
    """A transaction id seen again within `horizon` of broker time is a redelivery.

    Stamps may be ahead by `event_time.max_ahead`, so the horizon of a new lake is at least so long.
    """

    horizon: BoundedDuration = timedelta(hours=1)


def _check_pattern(pattern: str) -> None:
    """Refuse patterns that read no date, by reading back what they write."""
    moment = datetime(2019, 12, 31, 13, 59, 58, tzinfo=UTC)
    if moment.strftime(pattern) == moment.replace(year=2018).strftime(pattern):
        raise ValueError("the pattern names no year, so no moment")
    try:
        read = datetime.strptime(moment.strftime(pattern), pattern)
    except (ValueError, re.error) as fault:
        raise ValueError(f"not a strptime pattern: {fault}") from None
    if read.date() != moment.date():
        raise ValueError("the pattern names no day, so no moment")
