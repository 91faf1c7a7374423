"""What a contract says of each field of an event: where it is, what it holds and how it is read."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from schemas.loading import Document, Duration

ColumnType = Literal["string", "integer", "float", "boolean"]
_LONGEST = timedelta(days=36_500)


def _bounded(value: timedelta) -> timedelta:
    """Longer ones would leave 64 bits of microseconds once added to a time."""
    if not timedelta(0) <= value <= _LONGEST:
        raise ValueError(f"expected a duration from 0s to {_LONGEST.days}d")
    return value


BoundedDuration = Annotated[Duration, AfterValidator(_bounded)]


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
