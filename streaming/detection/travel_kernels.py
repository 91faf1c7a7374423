"""Compiled loop that follows entities from place to place, and the arrays it works on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streaming.arrays.compilation import Codes, Floats, Ints, compiled
from streaming.profiles.profile_kernels import NEVER, Blocks

_EARTH_KM = 6371.0088
_RADIANS = np.pi / 180.0
_HIGHEST_LATITUDE, _HIGHEST_LONGITUDE = 90.0, 180.0
_MICROSECONDS_PER_HOUR = 3.6e9
_LEAST_HOURS = 1.0 / 3600.0
MOVES, IMPOSSIBLE = 0, 1


class Places(NamedTuple):
    """Mutable arrays of one kind of entities.

    Attributes:
        places: float64[m, 2], latitude and longitude in degrees.
        seen: int64[m], event time there in microseconds, NEVER before the first.
        census, pending: float64[2], decayed numbers of moves and of impossible ones as of the last block
            boundary, and what the rows since then add.
    """

    places: Floats
    seen: Ints
    census: Floats
    pending: Floats


class Trips(NamedTuple):
    """Positions of one batch: int32[n] codes (-1 for none), int64[n] times (us), float64[n] degrees each."""

    codes: Codes
    times: Ints
    latitudes: Floats
    longitudes: Floats


@compiled
def _kilometres(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    # The haversine formula: Sinnott, Virtues of the Haversine, Sky and Telescope 68, 1984.
    north = (other_latitude - latitude) * _RADIANS
    east = (other_longitude - longitude) * _RADIANS
    parallels = np.cos(latitude * _RADIANS) * np.cos(other_latitude * _RADIANS)
    half = np.sin(north / 2.0) ** 2 + parallels * np.sin(east / 2.0) ** 2
    return float(2.0 * _EARTH_KM * np.arcsin(np.sqrt(min(half, 1.0))))


@compiled
def follow(
    blocks: Blocks, trips: Trips, memory: Places, forgotten: Ints, limits: Floats, found: Floats
) -> None:
    """Fill `found`, float64[n, 3]: kilometres and hours since the entity's last place, and surprise in nats.

    A trip is impossible beyond `limits`, (km/h, kilometres), both; its surprise is -ln of the share of such
    moves, by add-one smoothing. NaN stands for kilometres and hours without an earlier place. See
    profile_kernels.fold for `forgotten`.
    """
    codes, times, latitudes, longitudes = trips
    places, seen, census, pending = memory
    first_block = blocks.first_sequence // blocks.rows
    for row in range(len(codes)):
        sequence = blocks.first_sequence + row
        if sequence % blocks.rows == 0:
            for place in range(2):
                census[place] = census[place] * blocks.decay + pending[place]
                pending[place] = 0.0
        found[row, 0], found[row, 1], found[row, 2] = np.nan, np.nan, 0.0
        code, time, north, east = codes[row], times[row], latitudes[row], longitudes[row]
        if code < 0 or not (abs(north) <= _HIGHEST_LATITUDE and abs(east) <= _HIGHEST_LONGITUDE):
            continue
        if seen[code] <= forgotten[sequence // blocks.rows - first_block]:
            seen[code] = NEVER
        if seen[code] != NEVER:
            distance = _kilometres(places[code, 0], places[code, 1], north, east)
            elapsed = abs(np.float64(time) - np.float64(seen[code])) / _MICROSECONDS_PER_HOUR
            found[row, 0], found[row, 1] = distance, elapsed
            pending[MOVES] += 1.0
            if distance > limits[1] and distance > limits[0] * max(elapsed, _LEAST_HOURS):
                pending[IMPOSSIBLE] += 1.0
                found[row, 2] = -np.log((census[IMPOSSIBLE] + 1.0) / (census[MOVES] + 2.0))
        if time >= seen[code]:
            places[code, 0], places[code, 1], seen[code] = north, east, time
