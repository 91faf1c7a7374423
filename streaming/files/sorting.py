"""Sorts rows that may not fit into memory: what does not goes to temporary files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import duckdb
import pyarrow as pa

from schemas.errors import FlagstreamError, MachineError

_MEMORY = "256MB"
_KEY, _ROW = "key", "row"


def sorted_batches(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, by: Callable[[pa.RecordBatch], pa.Array], size: int
) -> Iterator[pa.RecordBatch]:
    """Sort rows by a key, ascending, nulls last; rows with equal keys stay in the order they came in.

    Args:
        batches: of this schema.
        by: gives the keys of a batch.
        size: rows of each batch that comes out but the last.

    Raises:
        MachineError: there is no room for it, in memory or in the folder for temporary files.
    """
    faults = list[FlagstreamError]()
    held = [field for field in schema if not pa.types.is_null(field.type)]
    with (
        tempfile.TemporaryDirectory(prefix="flagstream-sort-") as folder,
        duckdb.connect(":memory:", config=_configured(folder)) as engine,
    ):
        try:
            engine.register("given", _reader(_noted(batches, faults), held, by))
            names = ", ".join(f"c{place}" for place in range(len(held)))
            found = engine.sql(f"SELECT {names} FROM given ORDER BY {_KEY} NULLS LAST, {_ROW}")
            for batch in found.to_arrow_reader(size):
                yield _restored(batch, held, schema)
        except (duckdb.Error, OSError, RuntimeError) as fault:
            said = str(fault).partition("\n")[0]
            raise faults[0] if faults else MachineError(f"rows cannot be sorted: {said}") from None


def _configured(folder: str) -> dict[str, Any]:
    return {
        "memory_limit": _MEMORY,
        "temp_directory": folder,
        "threads": "1",  # each takes memory of its own
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
    }


def _noted(batches: Iterable[pa.RecordBatch], faults: list[FlagstreamError]) -> Iterator[pa.RecordBatch]:
    """Remember what went wrong with the rows: the engine would hand on its text alone."""
    try:
        yield from batches
    except FlagstreamError as fault:
        faults.append(fault)
        raise


def _reader(
    batches: Iterator[pa.RecordBatch], held: list[pa.Field], by: Callable[[pa.RecordBatch], pa.Array]
) -> pa.RecordBatchReader:
    """Give columns names that are none of a table's, and rows their numbers."""
    first = next(batches, None)
    empty = pa.RecordBatch.from_pylist([], pa.schema(held))
    key = pa.field(_KEY, by(empty if first is None else first).type)
    columns = [field.with_name(f"c{place}") for place, field in enumerate(held)]
    schema = pa.schema([*columns, key, pa.field(_ROW, pa.int64())])

    def numbered() -> Iterator[pa.RecordBatch]:
        done, batch = 0, first
        while batch is not None:
            rows = pa.array(range(done, done + batch.num_rows), pa.int64())
            values = [batch[field.name] for field in held]
            yield pa.RecordBatch.from_arrays([*values, by(batch), rows], schema=schema)
            done, batch = done + batch.num_rows, next(batches, None)

    return pa.RecordBatchReader.from_batches(schema, numbered())


def _restored(batch: pa.RecordBatch, held: list[pa.Field], schema: pa.Schema) -> pa.RecordBatch:
    values = {field.name: batch[place].cast(field.type) for place, field in enumerate(held)}
    columns = [values.get(field.name, pa.nulls(batch.num_rows, pa.null())) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
