"""The first rows of a file as they stand there, before any contract."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from schemas.errors import ConfigurationError
from streaming.arrays.iso_times import iso_text
from streaming.events.exact_json import json_value
from streaming.files.cells import CellError, number_token, text_cells
from streaming.files.csv_rows import CsvRows
from streaming.files.delta_table import DeltaTableRows
from streaming.files.dialect import DecimalSign, TextOptions, dialect_of
from streaming.files.json_records import json_records
from streaming.files.opening import DataFile, Kind, data_files, is_delta
from streaming.files.parquet_rows import ParquetRows

_BATCH_ROWS = 1_000
_LONGEST_NUMBER = 18


def raw_rows(path: Path, options: TextOptions) -> Iterator[dict[str, Any] | None]:
    """Read the rows of a file, folder or Delta table as JSON would hold them; None for what is no object.

    Columns of CSV in which all of a batch's cells are numbers hold numbers.

    Raises:
        ConfigurationError: it cannot be read.
    """
    if is_delta(path):
        yield from _rows(DeltaTableRows(path).batches(size=_BATCH_ROWS))
        return
    for file in data_files(path):
        yield from _READERS[file.kind](file, options)


def _rows(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        columns = {
            name: _values(each, name) for name, each in zip(batch.schema.names, batch.columns, strict=True)
        }
        yield from (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _values(column: pa.Array, name: str) -> list[Any]:
    """Times are written without a detour by Python's, which end with the year 9999."""
    if pa.types.is_timestamp(column.type):
        return list(iso_text(column).to_pylist())
    try:
        return [_as_json(value) for value in column.to_pylist()]
    except (OverflowError, ValueError) as fault:
        raise ConfigurationError(
            f"column {name!r} holds {column.type} that no calendar has: {fault}"
        ) from None


def _parquet(file: DataFile, _: TextOptions) -> Iterator[dict[str, Any]]:
    source = ParquetRows(file.path)
    return _rows(file.completed(each) for each in source.batches(source.schema.names, _BATCH_ROWS))


def _csv(file: DataFile, options: TextOptions) -> Iterator[dict[str, Any]]:
    dialect = dialect_of(file.path, options)
    names, source = dialect.header.unique, CsvRows(file.path, dialect)
    for batch in source.batches(names):
        for first in range(0, batch.num_rows, _BATCH_ROWS):
            part = batch.slice(first, _BATCH_ROWS)
            columns = {name: _typed(_texts(source, part, name), dialect.decimal) for name in names}
            rows = zip(*columns.values(), strict=True)
            yield from ({**file.partition, **dict(zip(names, row, strict=True))} for row in rows)


def _texts(source: CsvRows, rows: pa.RecordBatch, name: str) -> list[str | None]:
    try:
        return list(text_cells(rows[name]).to_pylist())
    except CellError as fault:
        place = source.place_of(rows["row"][fault.row].as_py())
        raise ConfigurationError(f"column {name!r} {fault.problem}", where=place) from None


def _typed(cells: list[str | None], decimal: DecimalSign | None) -> list[Any]:
    """Numbers that begin with a zero, or are longer than any amount, are names for something."""
    tokens = [None if cell is None else number_token(cell.strip(), decimal) for cell in cells]
    filled = [(cell, token) for cell, token in zip(cells, tokens, strict=True) if cell is not None]
    named = any(
        (cell.startswith("0") and cell[1:].isdigit()) or len(cell) > _LONGEST_NUMBER for cell, _ in filled
    )
    if named or not filled or any(token is None for _, token in filled):
        return list(cells)
    return [None if token is None else json.loads(token) for token in tokens]


def _json(file: DataFile, _: TextOptions) -> Iterator[dict[str, Any] | None]:
    for record in json_records(file.path):
        yield parsed_object(record.value)


def parsed_object(value: bytes) -> dict[str, Any] | None:
    """Return the object that a record holds, None where it holds none."""
    try:
        found = json_value(value.removeprefix(codecs.BOM_UTF8))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, date):
        return f"{value.isoformat()}T00:00:00"
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Mapping):
        return {name: _as_json(each) for name, each in value.items()}
    return [_as_json(each) for each in islice(value, 1)] if isinstance(value, list) else value


_READERS: Mapping[Kind, Callable[[DataFile, TextOptions], Iterator[dict[str, Any] | None]]] = {
    "csv": _csv,
    "json": _json,
    "parquet": _parquet,
}
