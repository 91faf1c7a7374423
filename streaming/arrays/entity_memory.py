"""Arrays that hold something per entity: looked up by batch, worked on as copies, grown and given back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.arrays.arrow_arrays import id_column, ids_of, kept_ids, matrix_column, matrix_of, worth_packing
from streaming.arrays.compilation import Flags, Ints
from streaming.arrays.entity_index import EncodedColumn, EntityIndex

Arrays = Mapping[str, npt.NDArray[Any]]


class EntityMemory:
    """One slot per entity in each of several arrays of one or two dimensions.

    Args:
        blank: what an entity never seen holds: a number, or float[width], by name.
    """

    def __init__(self, blank: Arrays) -> None:
        self._blank = {name: np.asarray(each) for name, each in blank.items()}
        self._index = EntityIndex()
        self._held = self._new(0)

    def __len__(self) -> int:
        """Return the number of entities held."""
        return len(self._index)

    def take(self, column: pa.ChunkedArray) -> tuple[EncodedColumn, Ints, Arrays]:
        """Return the ids, their slots (-1 if new) and copies of what they hold, blank for new ones."""
        encoded = self._index.encode(column)
        slots = self._index.find(encoded)
        copies = self._new(len(slots))
        known = np.flatnonzero(slots >= 0)
        for name, copy in copies.items():
            copy[known] = self._held[name][slots[known]]
        return encoded, slots, copies

    def put(self, encoded: EncodedColumn, slots: Ints, copies: Arrays) -> None:
        """Hold what take() returned, changed."""
        placed = self._index.place(encoded, slots)
        self._reserve(len(self))
        for name, copy in copies.items():
            self._held[name][placed] = copy

    def keep(self, alive: Flags) -> None:
        """Give back the memory of the others, where it is worth the while.

        Args:
            alive: bool[entities].
        """
        if worth_packing(alive):
            held = {name: array[: len(alive)][alive] for name, array in self._held.items()}
            self._index.restore(kept_ids(self._index.ids(), alive))
            self._held = held

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return what all entities hold under a name, not to be changed."""
        return self._held[name][: len(self)]

    def snapshot(self) -> pa.RecordBatch:
        """Return a copy of all of it."""
        columns = {"id": id_column(self._index.ids())}
        for name in self._held:
            held = self.array(name).copy()
            columns[name] = matrix_column(held) if held.ndim > 1 else pa.array(held)
        return pa.RecordBatch.from_pydict(columns)

    def restore(self, saved: pa.RecordBatch) -> None:
        """Continue from a snapshot."""
        self._index.restore(ids_of(saved["id"]))
        for name, blank in self._blank.items():
            column = saved[name]
            self._held[name] = (matrix_of(column) if blank.ndim else column.to_numpy()).copy()

    def _new(self, entities: int) -> dict[str, npt.NDArray[Any]]:
        return {name: np.tile(each, (entities, *[1] * each.ndim)) for name, each in self._blank.items()}

    def _reserve(self, count: int) -> None:
        held = len(next(iter(self._held.values())))
        if count > held:
            larger = self._new(max(count, 2 * held))
            for name, array in self._held.items():
                larger[name][:held] = array
            self._held = larger
