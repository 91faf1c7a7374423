"""Years of times that leave them out: the latest in which a time is not ahead of the broker's stamp."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from schemas.instants import micros_of
from streaming.arrays.compilation import Flags, Ints
from streaming.arrays.zones import local_offsets

_DAY = 86_400 * 1_000_000
_LAST = micros_of(datetime(9000, 1, 1, tzinfo=UTC))
# Where clocks are set otherwise than in UTC, the year may be the next one, or the one before the last.
_YEARS_BACK = (-1, 0, 1, 2)


def in_latest_year(zone: str, times: Ints, latest: Ints) -> tuple[Ints, Flags]:
    """Return times in their latest year, in UTC, and for which there is one, bool[n].

    Args:
        zone: of the clock that showed them.
        times: int64[n], microseconds since 1970 by that clock, in any year that is no leap year.
        latest: int64[n], what they must not be after, in microseconds since 1970 UTC.
    """
    days, of_day = np.divmod(times, _DAY)
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    place, day = months.astype(np.int64) % 12, (dates - months.astype("datetime64[D]")).astype(np.int64)
    years = latest.astype("datetime64[us]").astype("datetime64[Y]").astype(np.int64)
    found, done = np.zeros(len(times), np.int64), (latest < 0) | (latest > _LAST)
    out_of_reach = done.copy()
    for back in _YEARS_BACK:
        rows = np.flatnonzero(~done)
        begin = ((years[rows] - back) * 12 + place[rows]).astype("datetime64[M]").astype("datetime64[D]")
        local = (begin.astype(np.int64) + day[rows]) * _DAY + of_day[rows]
        at = local if zone == "UTC" else local - local_offsets(zone, local)
        fits = at <= latest[rows]
        found[rows[fits]], done[rows[fits]] = at[fits], True
    return found, done & ~out_of_reach
