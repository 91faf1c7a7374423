"""Offsets from UTC of many local times at once, as `zoneinfo` has them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np

from streaming.arrays.compilation import Ints

_SECOND = 1_000_000
_PROBES = 6 * 3_600  # seconds; no zone has changed twice within less
_MARGIN = 3 * 86_400
# Seconds since 1970: in the first and the last days that there are, no zone's clocks change.
_FIRST, _LAST = (int(datetime(*day, tzinfo=UTC).timestamp()) for day in ((1, 1, 4), (9999, 12, 28)))


def local_offsets(zone: str, local: Ints) -> Ints:
    """Return how far each local time is ahead of UTC, int64[n], in microseconds.

    Of an hour that comes twice the first counts; one that is left out is read as if clocks had not moved yet.
    Both are what `datetime` does with `fold=0`.

    Args:
        zone: a name that `zoneinfo` knows.
        local: int64[n], microseconds since 1970 by the local clock, from year 1 to 9999.
    """
    offsets = np.zeros(len(local), np.int64)
    years = local.astype("datetime64[us]").astype("datetime64[Y]").astype(np.int64) + 1970
    for year in np.unique(years).tolist():
        of_year = years == year
        until, ahead = _changes(zone, year)
        offsets[of_year] = ahead[np.searchsorted(until, local[of_year], side="right")]
    return offsets


def offsets_at(zone: str, moments: Ints) -> Ints:
    """Return how far the local clock is ahead of UTC at each moment, int64[n], in microseconds.

    Args:
        zone: a name that `zoneinfo` knows.
        moments: int64[n], microseconds since 1970 UTC, from year 1 to 9999.
    """
    offsets = np.zeros(len(moments), np.int64)
    years = moments.astype("datetime64[us]").astype("datetime64[Y]").astype(np.int64) + 1970
    for year in np.unique(years).tolist():
        of_year = years == year
        until, ahead = _changes(zone, year)
        changed = until - np.maximum(ahead[:-1], ahead[1:])
        offsets[of_year] = ahead[np.searchsorted(changed, moments[of_year], side="right")]
    return offsets


@cache
def _changes(name: str, year: int) -> tuple[Ints, Ints]:
    """Return the local times until which each offset holds within a year, and the offsets, one more."""
    zone = ZoneInfo(name)
    begin, end = (
        int(np.datetime64(each - 1970, "Y").astype("M8[s]").astype(int)) for each in (year, year + 1)
    )
    first, last = max(begin - _MARGIN, _FIRST), min(end + _MARGIN, _LAST)
    until, ahead = list[int](), [_ahead(zone, first)]
    for probe in range(first, last, _PROBES):
        if _ahead(zone, probe + _PROBES) != ahead[-1]:
            change = _change(zone, probe, probe + _PROBES)
            ahead.append(_ahead(zone, change))
            until.append(change + max(ahead[-2:]))
    return np.array(until, np.int64) * _SECOND, np.array(ahead, np.int64) * _SECOND


def _change(zone: ZoneInfo, before: int, after: int) -> int:
    """Return the first second with another offset than `before` has."""
    while after - before > 1:
        middle = (before + after) // 2
        if _ahead(zone, middle) == _ahead(zone, before):
            before = middle
        else:
            after = middle
    return after


def _ahead(zone: ZoneInfo, moment: int) -> int:
    offset = datetime.fromtimestamp(moment, zone).utcoffset()
    return 0 if offset is None else round(offset.total_seconds())
