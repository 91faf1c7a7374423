"""Moments: the current one, and as the whole microseconds since 1970 UTC that tables keep."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]  # the current time, timezone-aware

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICRO = timedelta(microseconds=1)


def micros_of(moment: datetime) -> int:
    """Return the microseconds from 1970 UTC to a timezone-aware moment."""
    return (moment - EPOCH) // MICRO


def moment_of(micros: int) -> datetime:
    """Return the moment so many microseconds after 1970 UTC, in UTC."""
    return EPOCH + micros * MICRO


def earlier(moment: datetime, span: timedelta) -> datetime:
    """Return the moment a span before another, the first one there is where no calendar goes back so far."""
    try:
        return moment - span
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def later(moment: datetime, span: timedelta) -> datetime:
    """Return the moment a span after another, the last one there is where no calendar goes on so far."""
    try:
        return moment + span
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)
