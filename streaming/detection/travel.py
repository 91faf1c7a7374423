"""Impossible travel: an entity at two places between which nobody travels that fast.

A trip counts as impossible when it is longer than `tolerance` kilometres and faster than `fastest` km/h. How
surprising that is follows from how often it happens in the stream: where coordinates are poor, impossible
trips are common and say little. Late transactions are compared with the newest place as well.

An entity takes 24 bytes beside its id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from schemas.detection import TravelDetector
from streaming.arrays.columns import numbers
from streaming.arrays.compilation import Floats, Ints, read_only
from streaming.detection.census import CensusDetector, CensusMemory, WorkingCensus
from streaming.detection.detectors import TRAVEL
from streaming.detection.reasons import travel_sentence
from streaming.detection.travel_kernels import Places, Trips, follow
from streaming.profiles.frame import Frame
from streaming.profiles.profile_kernels import Blocks

_KILOMETRES, _HOURS, _NATS = 0, 1, 2


@dataclass(frozen=True)
class Journeys:
    """What one batch shows, float64[n, 3] as in travel_kernels.follow, and the memory it leads to."""

    reason: str
    kind: str
    found: Floats
    memory: WorkingCensus

    @property
    def nats(self) -> Mapping[str, Floats]:
        """See stateful.DetectorResult."""
        return {self.reason: self.found[:, _NATS]}

    def features(self) -> list[Floats]:
        """Return kilometres since the last place, and km/h."""
        distances = self.found[:, _KILOMETRES]
        return [distances, distances / np.maximum(self.found[:, _HOURS], 1.0 / 3600.0)]

    def sentences(self, rows: Ints) -> Mapping[str, list[str]]:
        """See stateful.DetectorResult."""
        return {self.reason: [travel_sentence(self.kind, *each) for each in self.found[rows].tolist()]}


class Travel(CensusDetector):
    """The places of one kind of entities, a StatefulDetector.

    Args:
        kind: the entities.
        chosen: columns of the coordinates, and what is impossible.
        block_rows, block_decay: see Profiles.
    """

    def __init__(self, kind: str, chosen: TravelDetector, block_rows: int, block_decay: float) -> None:
        self._kind, self._block = kind, (block_rows, block_decay)
        self._limits = np.array([chosen.fastest, chosen.tolerance])
        self.name = f"{TRAVEL}-{kind}"
        self.columns: tuple[str, ...] = (chosen.latitude, chosen.longitude)
        self.reason_names: tuple[str, ...] = (f"{TRAVEL}.{kind}",)
        self.feature_names: tuple[str, ...] = (f"distance.{kind}", f"speed.{kind}")
        self.rivals: Mapping[str, str] = {}
        super().__init__(CensusMemory("places", np.zeros(2), 2))

    def advance(self, frame: Frame) -> Journeys:
        """See stateful.StatefulDetector."""
        taken = self._memory.take(frame.ids(self._kind))
        places = Places(taken.arrays["places"], taken.arrays["seen"], taken.census, taken.pending)
        degrees = (_degrees(frame.transactions[name]) for name in self.columns)
        found = np.empty((len(frame), 3))
        blocks = Blocks(frame.first_sequence, *self._block)
        trips = Trips(taken.encoded.codes, frame.times, *degrees)
        follow(blocks, trips, places, frame.forgotten, self._limits, found)
        return Journeys(self.reason_names[0], self._kind, found, taken)


def _degrees(column: pa.ChunkedArray) -> Floats:
    return read_only(np.asarray(numbers(column, pa.float64())))
