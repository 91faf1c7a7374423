"""Detectors with a memory of their own, beside the profiles: one small interface for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from streaming.arrays.arrow_arrays import Saved
from streaming.arrays.compilation import Floats, Ints
from streaming.profiles.frame import Frame


class DetectorResult(Protocol):
    """What one batch shows, and the memory it leads to."""

    @property
    def nats(self) -> Mapping[str, Floats]:
        """Surprise of each reason, float64[n] from 0 up."""

    def features(self) -> list[Floats]:
        """Return one column, float64[n], per name of the detector's `feature_names`."""

    def sentences(self, rows: Ints) -> Mapping[str, list[str]]:
        """Say for each reason what was seen in `rows`."""


class Remembering(Protocol):
    """What profiles do not hold, saved under a name."""

    name: str

    def commit(self, result: Any) -> None:
        """Make the memory that advance() worked out the current one."""

    def snapshot(self) -> Saved:
        """Return a copy of the memory that later commits leave alone."""

    def restore(self, saved: Saved) -> None:
        """Continue from a snapshot; the snapshot itself stays as it is."""


class StatefulDetector(Remembering, Protocol):
    """Reads batches one after the other and keeps a memory.

    Whatever it finds of a row depends on the rows before it in `sequence` order alone, never on how they were
    cut into batches.

    Attributes:
        columns: the transactions' columns it reads, besides entities, amount and event_time.
        reason_names: `detector.what`, the keys of DetectorResult.nats.
        rivals: reason → the reason of a plain detector that views the same thing; the more surprising counts.
    """

    columns: tuple[str, ...]
    reason_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    rivals: Mapping[str, str]

    def advance(self, frame: Frame) -> DetectorResult:
        """Work out what a batch shows and the memory it leads to, leaving the current one as it is."""

    def forget(self, until: int) -> None:
        """Give back what it remembers of entities not seen after `until`, in microseconds.

        They are as if never seen already (Frame.forgotten), so nothing else changes.
        """
