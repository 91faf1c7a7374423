"""Habit: transactions at hours of the week at which their entity is not used to be active.

An entity takes 232 bytes beside its id: decayed counts of 56 times of three hours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from streaming.arrays.compilation import Floats, Ints
from streaming.detection.census import CensusDetector, CensusMemory, WorkingCensus
from streaming.detection.detectors import HABIT
from streaming.detection.habit_kernels import BINS, Hours, judge_hours
from streaming.detection.local_times import LocalClocks, LocalTimes
from streaming.detection.reasons import habit_sentence
from streaming.profiles.frame import Frame
from streaming.profiles.profile_kernels import Blocks


@dataclass(frozen=True)
class Hourly:
    """What one batch shows, float64[n] nats, and the memory it leads to."""

    reason: str
    kind: str
    local: LocalTimes
    found: Floats
    memory: WorkingCensus

    @property
    def nats(self) -> Mapping[str, Floats]:
        """See stateful.DetectorResult."""
        return {self.reason: self.found}

    def features(self) -> list[Floats]:
        """Return the surprise."""
        return [self.found]

    def sentences(self, rows: Ints) -> Mapping[str, list[str]]:
        """See stateful.DetectorResult."""
        said = [
            habit_sentence(self.kind, self.local.times[row], self.local.zone_of(row), self.found[row])
            for row in rows.tolist()
        ]
        return {self.reason: said}


class Habit(CensusDetector):
    """The hours of one kind of entities, a StatefulDetector.

    Args:
        kind: the entities.
        horizon: seconds over which what was counted fades.
        block_rows, block_decay: see Profiles.
        clocks: whose hours count; UTC's unless given.
    """

    def __init__(
        self,
        kind: str,
        horizon: float,
        block_rows: int,
        block_decay: float,
        clocks: LocalClocks = LocalClocks(),  # noqa: B008 -- without state
    ) -> None:
        self._kind, self._horizon, self._block = kind, horizon, (block_rows, block_decay)
        self._clocks = clocks
        self.name = f"{HABIT}-{kind}"
        self.columns: tuple[str, ...] = clocks.columns
        self.reason_names: tuple[str, ...] = (f"{HABIT}.{kind}",)
        self.feature_names: tuple[str, ...] = (f"habit_nats.{kind}",)
        self.rivals: Mapping[str, str] = {}
        super().__init__(CensusMemory("hours", np.zeros(BINS, np.float32), BINS))

    def advance(self, frame: Frame) -> Hourly:
        """See stateful.StatefulDetector."""
        taken = self._memory.take(frame.ids(self._kind))
        hours = Hours(taken.arrays["hours"], taken.arrays["seen"], taken.census, taken.pending)
        found, local = np.empty(len(frame)), self._clocks.read(frame)
        blocks, codes = Blocks(frame.first_sequence, *self._block), taken.encoded.codes
        judge_hours(blocks, codes, frame.times, local.times, hours, frame.forgotten, self._horizon, found)
        return Hourly(self.reason_names[0], self._kind, local, found, taken)
