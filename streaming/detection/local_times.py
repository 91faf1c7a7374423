"""What clocks show where payments are made, so that daylight saving moves nobody's habits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from zoneinfo import available_timezones

import numpy as np
import pyarrow as pa

from streaming.arrays.compilation import Codes, Ints, read_only
from streaming.arrays.zones import offsets_at
from streaming.profiles.frame import Frame

UTC_ZONE = "UTC"


@dataclass(frozen=True)
class LocalTimes:
    """The local time of each row.

    Attributes:
        times: int64[n], microseconds since 1970 by the local clock, read-only.
        zones: names of zones that are known.
        codes: int32[n], which of them the row's is.
    """

    times: Ints
    zones: tuple[str, ...]
    codes: Codes

    def zone_of(self, row: int) -> str:
        """Return the zone of one row."""
        return self.zones[int(self.codes[row])]


class LocalClocks:
    """Tells local times.

    Args:
        zone: where nothing else is said.
        column: of the transactions, that names each row's zone; what names none counts as `zone`.
    """

    def __init__(self, zone: str = UTC_ZONE, column: str | None = None) -> None:
        self._zone, self._column = zone, column
        self.columns: tuple[str, ...] = () if column is None else (column,)

    def read(self, frame: Frame) -> LocalTimes:
        """Return the local times of a batch."""
        zones, codes = self._zones(frame)
        times = frame.times.copy()
        for code, zone in enumerate(zones):
            rows = codes == code
            if zone != UTC_ZONE and rows.any():
                times[rows] += offsets_at(zone, frame.times[rows])
        return LocalTimes(read_only(times), zones, codes)

    def _zones(self, frame: Frame) -> tuple[tuple[str, ...], Codes]:
        if self._column is None:
            return (self._zone,), np.zeros(len(frame), np.int32)
        encoded = frame.transactions[self._column].cast(pa.string()).combine_chunks().dictionary_encode()
        named = encoded.dictionary.to_pylist()
        zones = (self._zone, *sorted(_known_zones().intersection(named)))
        places = {zone: place for place, zone in enumerate(zones)}
        found = np.array([*(places.get(each, 0) for each in named), 0], np.int32)
        return zones, found[encoded.indices.fill_null(len(named)).to_numpy(zero_copy_only=False)]


@cache
def _known_zones() -> frozenset[str]:
    return frozenset(available_timezones())
