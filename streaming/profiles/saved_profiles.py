"""Profiles as a table: one row per entity, in the order in which they are held."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from streaming.arrays.arrow_arrays import id_column, ids_of, matrix_column, matrix_of
from streaming.arrays.entity_index import Ids
from streaming.profiles.profile_kernels import MOMENTS, State

_PER_ENTITY = ("strikes", "struck", "judged_at")
_PER_ENTITY_WIDE = ("clocks", "frauds", "judged")


def entity_batch(ids: Ids, state: State) -> pa.RecordBatch:
    """Return the entities' part of a state."""
    columns = {
        "id": id_column(ids),
        "moments": matrix_column(state.moments),
        **{name: matrix_column(getattr(state, name)) for name in _PER_ENTITY_WIDE},
        **{name: pa.array(getattr(state, name)) for name in _PER_ENTITY},
    }
    return pa.RecordBatch.from_pydict(columns)


def entities_of(batch: pa.RecordBatch) -> tuple[Ids, dict[str, Any]]:
    """Return ids and arrays, by the names of ENTITY_PARTS, of what entity_batch made."""
    moments = matrix_of(batch["moments"])
    parts: dict[str, Any] = {name: batch[name].to_numpy() for name in _PER_ENTITY}
    parts["moments"] = moments.reshape(len(moments), moments.shape[1] // MOMENTS, MOMENTS)
    parts |= {name: matrix_of(batch[name]) for name in _PER_ENTITY_WIDE}
    return ids_of(batch["id"]), parts
