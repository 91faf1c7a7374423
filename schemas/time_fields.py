"""What a contract says of the time of an event: where it is and how it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, ValidationInfo, field_validator, model_validator

from schemas.errors import nearest
from schemas.event_fields import BoundedDuration
from schemas.id_fields import FieldName, at_least_two
from schemas.loading import Document

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
_HAS_YEAR = "the format says the year, so 'year' must be left out"
_COUNTED = r"%[-_0^#]*[jUWGV]"


class TimeField(Document):
    """The field, or several `fields`, that hold the event time.

    `format` is `iso8601`, `epoch` (a number of `unit` since `epoch`) or a strptime pattern. Several fields
    are read as one text, with a blank between them. A time without an offset is in `zone`: of an hour that
    clocks show twice the first counts, one that they leave out is read as if they had not moved yet.

    A pattern may leave the year out where `year` is `broker`: then it is the latest year in which the event
    is not ahead of the broker's timestamp by more than `max_ahead`.

    Times outside `earliest`..`latest` are absurd; a time more than `max_ahead` after the broker's timestamp
    is refused, since one wrong clock would age every profile.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"fields", "year"})

    field: FieldName | None = None
    fields: Annotated[tuple[FieldName, ...], AfterValidator(at_least_two)] = ()
    year: Literal["broker"] | None = None
    format: str = "iso8601"
    unit: TimeUnit = "s"
    epoch: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    zone: str = "UTC"
    earliest: datetime = datetime(1990, 1, 1, tzinfo=UTC)
    latest: datetime = datetime(2100, 1, 1, tzinfo=UTC)
    max_ahead: BoundedDuration = timedelta(minutes=5)

    @property
    def is_local(self) -> bool:
        """Whether times are those of a clock, with nothing that says how far it is ahead of UTC."""
        written = self.format.replace("%%", "")
        return "%" in written and not re.search("%[zZs]", written)

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str, info: ValidationInfo) -> str:
        if value not in _FORMATS and "%" not in value:
            raise ValueError(f"no format {value!r} and no strptime pattern; {nearest(value, _FORMATS)}")
        left_out = info.data.get("year") is not None
        if left_out and (value in _FORMATS or _names_year(value)):
            raise ValueError(_HAS_YEAR)
        if left_out and re.search(_COUNTED, value):
            raise ValueError("without its year nobody knows which day of the year a number means")
        if value not in _FORMATS:
            _check_pattern(value, has_year=not left_out)
        return value

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        return check_zone(value)

    @field_validator("epoch", "earliest", "latest")
    @classmethod
    def _with_zone(cls, value: datetime) -> datetime:
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)

    @model_validator(mode="after")
    def _some_time_fits(self) -> TimeField:
        if self.earliest >= self.latest:
            raise ValueError("'earliest' must come before 'latest'")
        if (self.field is None) == (not self.fields):
            raise ValueError("expected exactly one of 'field' and 'fields'")
        if self.year is not None and self.format in _FORMATS:
            raise ValueError(_HAS_YEAR)
        if self.fields and self.format == "epoch":
            raise ValueError("a number since an epoch is in one field; several are joined to a text")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """The fields that it is read from."""
        return self.fields or (() if self.field is None else (self.field,))


def check_zone(name: str) -> str:
    """Return the name of a time zone.

    Raises:
        ValueError: there is no such zone.
    """
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"no time zone named {name!r}; expected an IANA name such as UTC") from None
    return name


_SAMPLE = datetime(2019, 12, 31, 13, 59, 58, tzinfo=UTC)


def _names_year(pattern: str) -> bool:
    return _SAMPLE.strftime(pattern) != _SAMPLE.replace(year=2018).strftime(pattern)


def _check_pattern(pattern: str, *, has_year: bool) -> None:
    """Refuse patterns that read no date, by reading back what they write."""
    if has_year and not _names_year(pattern):
        problem = "the pattern names no year, so no moment"
        raise ValueError(f"{problem}; with 'year: broker' the broker's timestamp says it")
    try:
        read = datetime.strptime(_SAMPLE.strftime(pattern), pattern)
    except (ValueError, re.error) as fault:
        raise ValueError(f"not a strptime pattern: {fault}") from None
    if (read.month, read.day) != (_SAMPLE.month, _SAMPLE.day):
        raise ValueError("the pattern names no day, so no moment")
