"""What a detector remembers of each entity of one kind, beside counts of what happens in the whole stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from streaming.arrays.arrow_arrays import Saved
from streaming.arrays.compilation import Floats, Ints
from streaming.arrays.entity_index import EncodedColumn
from streaming.arrays.entity_memory import Arrays, EntityMemory
from streaming.profiles.profile_kernels import NEVER

_SEEN = "seen"


@dataclass(frozen=True)
class WorkingCensus:
    """Copies for one batch to work on.

    Attributes:
        arrays: of the batch's entities, by name; `seen` is each one's newest event time in microseconds.
        census: float64[cells], what is settled.
        pending: float64[cells], what awaits its block.
    """

    encoded: EncodedColumn
    slots: Ints
    arrays: Arrays
    census: Floats
    pending: Floats


class CensusMemory:
    """One array per entity and when it was last seen, and one count per cell for all.

    Args:
        name: of the array.
        blank: what an entity never seen holds, float[width].
        cells: how many counts.
    """

    def __init__(self, name: str, blank: Floats, cells: int) -> None:
        self._name = name
        self._entities = EntityMemory({name: blank, _SEEN: np.array(NEVER)})
        self._census, self._pending = np.zeros(cells), np.zeros(cells)

    def take(self, column: pa.ChunkedArray) -> WorkingCensus:
        """Return what a batch of these ids works on."""
        return WorkingCensus(*self._entities.take(column), self._census.copy(), self._pending.copy())

    def put(self, taken: WorkingCensus) -> None:
        """Hold what take() returned, changed."""
        self._entities.put(taken.encoded, taken.slots, taken.arrays)
        self._census, self._pending = taken.census, taken.pending

    def forget(self, until: int) -> None:
        """Give back the memory of entities not seen after `until`, in microseconds."""
        self._entities.keep(self._entities.array(_SEEN) > until)

    def snapshot(self) -> Saved:
        """Return a copy of all of it."""
        census = {"census": pa.array(self._census), "pending": pa.array(self._pending)}
        return {self._name: self._entities.snapshot(), "census": pa.RecordBatch.from_pydict(census)}

    def restore(self, saved: Saved) -> None:
        """Continue from a snapshot."""
        self._entities.restore(saved[self._name])
        census = saved["census"]
        self._census, self._pending = (census[name].to_numpy().copy() for name in ("census", "pending"))


class FromCensus(Protocol):
    """What a batch shows to a detector with such a memory."""

    @property
    def memory(self) -> WorkingCensus:
        """The memory the batch leads to."""


class CensusDetector:
    """The side of a StatefulDetector on which its memory is kept.

    Args:
        memory: what is remembered.
    """

    def __init__(self, memory: CensusMemory) -> None:
        self._memory = memory

    def commit(self, found: FromCensus) -> None:
        """See stateful.StatefulDetector."""
        self._memory.put(found.memory)

    def forget(self, until: int) -> None:
        """See stateful.StatefulDetector."""
        self._memory.forget(until)

    def snapshot(self) -> Saved:
        """See stateful.StatefulDetector."""
        return self._memory.snapshot()

    def restore(self, saved: Saved) -> None:
        """See stateful.StatefulDetector."""
        self._memory.restore(saved)
