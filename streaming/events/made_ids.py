"""Transaction ids of events that have none: of a record's place, or of its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.id_fields import TransactionIdField
from streaming.arrays.compilation import Flags

_COLUMN = "transaction_id"


def with_made_ids(
    valid: pa.Table, field: TransactionIdField, values: pa.Array, settled: Flags, others: Sequence[int]
) -> pa.Table:
    """Return decoded rows in which every transaction has an id.

    Args:
        valid: with transaction_id, topic, partition and offset, in the order of the records.
        values: the bytes of all records.
        settled: bool[n], those that became rows at once.
        others: the places of those that became rows as well.
    """
    ids = valid[_COLUMN]
    if field.made_of is None or not ids.null_count:
        return valid
    if field.made_of == "coordinates":
        made = _places(valid)
    else:
        rows = np.sort(np.concatenate([np.flatnonzero(settled), np.array(others, np.int64)]))
        made = pa.chunked_array([_digests(values.take(pa.array(rows)))])
    place = valid.schema.get_field_index(_COLUMN)
    return valid.set_column(place, valid.schema.field(place), pc.coalesce(ids, made))


def _places(rows: pa.Table) -> pa.ChunkedArray:
    parts = (rows[name].cast(pa.string()) for name in ("topic", "partition", "offset"))
    return pc.binary_join_element_wise(*parts, "/")


def _digests(values: pa.Array) -> pa.Array:
    return pa.array([hashlib.sha256(each).hexdigest() for each in values.to_pylist()], pa.string())
