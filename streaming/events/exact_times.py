"""What the time of an event is under a contract, one event at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from functools import cache
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from schemas.instants import MICRO, micros_of, moment_of
from schemas.time_fields import NANOSECONDS, TimeField
from streaming.events.written_values import Instant

Reason = Literal["mistyped_field", "invalid_utf8", "bad_time", "absurd_time"]

OUT_OF_BOUNDS = "outside the contract's bounds"
LONGEST_TIME = 100
_INT64 = 2**63
_BROKEN = re.compile("[\ud800-\udfff]")
# Java writes 2026-11-28T12:00+01:00[Europe/Paris]; RFC 9557 allows for more than one bracket.
_BRACKETS = re.compile(r"(?:\[[^\[\]]+\])+")
_WITHOUT_SECONDS = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}")
_BASIC = re.compile(r"[0-9]{8}[T ][0-9]{4}")
_ANY_LEAP_YEAR = 2000


class UnusableTimeError(Exception):
    """Why an event has no such time."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


class TimeReader:
    """Reads the time of one event after the other: the definition of what it means."""

    def __init__(self, field: TimeField) -> None:
        self._field, self._zone = field, ZoneInfo(field.zone)
        self._name = " and ".join(field.sources)

    def read(self, values: Sequence[Any], stamp: int) -> int:
        """Return the time in microseconds since 1970 UTC.

        Args:
            values: of the contract's fields, none of them null.
            stamp: the broker's, in microseconds since 1970 UTC.

        Raises:
            UnusableTimeError: they are no time.
        """
        try:
            if len(values) == 1 and isinstance(values[0], Instant):
                return self._at(values[0])
            if self._field.format == "epoch":
                return self._since_epoch(values[0])
            text = self._text(values)
            if len(text) > LONGEST_TIME:
                raise UnusableTimeError("bad_time", self._name)
            if self._field.year is not None:
                return self._in_latest_year(text, stamp)
            return self._micros(self._moment(text))
        except (ValueError, OverflowError):
            raise UnusableTimeError("bad_time", self._name) from None

    def _at(self, instant: Instant) -> int:
        if not instant.zoned:
            return self._micros(instant.moment())
        if not -_INT64 <= instant.micros < _INT64:
            raise UnusableTimeError("absurd_time", OUT_OF_BOUNDS)
        return instant.micros

    def _text(self, values: Sequence[Any]) -> str:
        if len(values) == 1:
            return _string(self._field.sources[0], values[0])
        parts = zip(self._field.sources, values, strict=True)
        return " ".join(_part(source, value) for source, value in parts)

    def _moment(self, text: str) -> datetime:
        if self._field.format == "iso8601":
            return from_iso(text)
        return datetime.strptime(text, self._field.format)

    def _micros(self, moment: datetime) -> int:
        return micros_of(moment if moment.tzinfo is not None else moment.replace(tzinfo=self._zone))

    def _in_latest_year(self, text: str, stamp: int) -> int:
        # Read in a leap year, as without one there is no 29th of February.
        moment = datetime.strptime(f"{_ANY_LEAP_YEAR} {text}", f"%Y {self._field.format}")
        latest = stamp + self._field.max_ahead // MICRO
        this_year = moment_of(latest).astimezone(UTC).year
        for year in range(this_year + 1, max(this_year - 9, 1), -1):
            try:
                found = self._micros(moment.replace(year=year))
            except ValueError:  # no 29th of February
                continue
            if found <= latest:
                return found
        raise UnusableTimeError("bad_time", self._name)

    def _since_epoch(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnusableTimeError("mistyped_field", self._name)
        unit = NANOSECONDS[self._field.unit]
        since = value * unit // 1_000 if isinstance(value, int) else round(value * (unit / 1_000))
        micros = int(since) + micros_of(self._field.epoch)
        if not -_INT64 <= micros < _INT64:
            raise UnusableTimeError("absurd_time", OUT_OF_BOUNDS)
        return micros


def from_iso(text: str) -> datetime:
    """Accept a date and a time of day, as ISO 8601 and RFC 9557 have them; a bare date names no moment.

    An offset decides over a zone in brackets, which decides where there is none.

    Raises:
        ValueError: it is another text, or of a zone that nobody knows.
    """
    plain, zone = _without_brackets(text)
    extended = len(plain) >= len("2026-01-01T00:00:00") and plain[10] in "T "
    if not extended and not _WITHOUT_SECONDS.match(plain) and not _BASIC.match(plain):
        raise ValueError(text)
    moment = datetime.fromisoformat(plain)
    return moment if moment.tzinfo is not None or zone is None else moment.replace(tzinfo=_zone(zone))


def _without_brackets(text: str) -> tuple[str, str | None]:
    plain, bracket, rest = text.partition("[")
    if not bracket:
        return text, None
    if not _BRACKETS.fullmatch(bracket + rest):
        raise ValueError(text)
    first = rest.partition("]")[0].removeprefix("!")
    return plain, None if "=" in first else first


def _zone(name: str) -> tzinfo:
    if name not in known_zones():
        raise ValueError(name)
    return ZoneInfo(name)


@cache
def known_zones() -> frozenset[str]:
    """Return the names of all zones that this machine knows."""
    return frozenset(available_timezones())


def _part(source: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _string(source, value)


def _string(source: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UnusableTimeError("mistyped_field", source)
    if _BROKEN.search(value):
        raise UnusableTimeError("invalid_utf8", source)
    return value
