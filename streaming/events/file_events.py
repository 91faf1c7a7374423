"""Events out of files: Parquet, CSV or JSON lines, brought to the JSON an event contract describes."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from schemas.contract import EventContract
from schemas.errors import ConfigurationError, nearest
from schemas.event_columns import Column
from streaming.events.simulator import iso_text, json_rows

Keyed = tuple[list[bytes | None], list[bytes]]

_BATCH_ROWS = 50_000
_CSV_BLOCK_BYTES = 8 << 20
_LONG_NUMBER = re.compile(rb"\d{19}")
_CSV_TYPES = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}


def file_events(path: Path, contract: EventContract) -> Iterator[Keyed]:
    """Check a file's ending and columns at once; return its keys and JSON events, batch by batch.

    Raises:
        ConfigurationError: no such file, an unknown ending, a missing column; later, an unreadable row.
    """
    if not path.is_file():
        raise ConfigurationError("a folder, not a file" if path.is_dir() else "no such file", where=str(path))
    ending = path.suffix.lower()
    if ending not in _READERS:
        known = ", ".join(_READERS)
        raise ConfigurationError(f"unknown ending {path.suffix!r}; expected one of: {known}", where=str(path))
    try:
        return _READERS[ending](path, contract)
    except (pa.ArrowInvalid, UnicodeDecodeError) as fault:
        raise ConfigurationError(f"cannot be read: {fault}", where=str(path)) from fault


def table_events(
    path: Path, rows: pa.Schema, batches: Iterator[pa.RecordBatch], contract: EventContract
) -> Iterator[Keyed]:
    """Return the keys and JSON events of a Delta table's rows.

    Args:
        path: the table's folder, for errors.
        rows: the schema of `batches`: the contract's raw fields, or the columns that they are decoded to.

    Raises:
        ConfigurationError: a column is missing, or holds what no event field can be.
    """
    decoded = {each.name: each for each in contract.columns if each.source}
    if set(decoded) <= set(rows.names) and not set(contract.raw_fields) <= set(rows.names):
        return _encoded(path, contract, (_undecoded(batch, decoded) for batch in batches))
    _check_columns(path, contract, _flat(rows.empty_table()).column_names)
    return _encoded(path, contract, batches)


def _undecoded(rows: pa.RecordBatch, decoded: Mapping[str, Column]) -> pa.RecordBatch:
    columns = {
        str(each.source): rows[name] if each.role == "event time" else rows[name].cast(_csv_type(each))
        for name, each in decoded.items()
    }
    return pa.RecordBatch.from_pydict(columns)


def _check_columns(path: Path, contract: EventContract, present: Sequence[str]) -> None:
    if not present:
        raise ConfigurationError("it has no columns", where=str(path))
    for name in contract.raw_fields:
        if name not in present:
            raise ConfigurationError(f"no column {name!r}; {nearest(name, present)}", where=str(path))


def _parquet(path: Path, contract: EventContract) -> Iterator[Keyed]:
    file = pq.ParquetFile(path)
    _check_columns(path, contract, _flat(file.schema_arrow.empty_table()).column_names)
    batches = file.iter_batches(_BATCH_ROWS, columns=list(contract.raw_fields))
    return _encoded(path, contract, batches)


def _csv(path: Path, contract: EventContract) -> Iterator[Keyed]:
    with path.open(newline="", encoding="utf-8-sig") as lines:
        _check_columns(path, contract, next(csv.reader(lines), []))
    convert = pa_csv.ConvertOptions(
        include_columns=list(contract.raw_fields),
        column_types={each.source: _csv_type(each) for each in contract.columns if each.source},
        null_values=[""],
        strings_can_be_null=True,
    )
    read = pa_csv.ReadOptions(block_size=_CSV_BLOCK_BYTES)
    return _encoded(path, contract, pa_csv.open_csv(path, read_options=read, convert_options=convert))


def _csv_type(column: Column) -> pa.DataType:
    """Epoch times stay text at first: only then do whole ones remain whole."""
    return pa.string() if column.role == "event time" else _CSV_TYPES[column.json_type]


def _encoded(path: Path, contract: EventContract, batches: Iterator[pa.RecordBatch]) -> Iterator[Keyed]:
    key = contract.entities[contract.primary_entity].sources[0]
    try:
        for batch in batches:
            table = _flat(pa.Table.from_batches([batch]))
            columns = {each.source: each for each in contract.columns if each.source}
            plain = {name: _plain(table[name], columns[name], contract) for name in contract.raw_fields}
            keys = plain[key].cast(pa.string()).cast(pa.binary()).to_pylist()
            yield keys, json_rows(pa.table(_nested(plain)))
    except pa.ArrowInvalid as fault:
        raise ConfigurationError(f"cannot be read: {fault}", where=str(path)) from fault
    except ConfigurationError as fault:
        raise fault.within(str(path)) from None


def _flat(table: pa.Table) -> pa.Table:
    while any(pa.types.is_struct(each) for each in table.schema.types):
        table = table.flatten()
    return table


def _plain(values: pa.ChunkedArray, column: Column, contract: EventContract) -> pa.Array:
    """Bring a column to what JSON and the contract's time format can hold."""
    array = values.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("us"))
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    if pa.types.is_timestamp(array.type):
        return _time_text(array, contract.event_time.format if column.role == "event time" else "iso8601")
    if (
        pa.types.is_nested(array.type)
        or pa.types.is_binary(array.type)
        or pa.types.is_large_binary(array.type)
    ):
        problem = f"column {column.source!r} holds {array.type}, which no event field can be"
        raise ConfigurationError(problem)
    if column.role == "event time" and column.json_type == "number" and pa.types.is_string(array.type):
        return _numbers(array)
    return array


def _time_text(times: pa.Array, form: str) -> pa.Array:
    if form == "epoch":
        raise ConfigurationError("the file holds timestamps, the contract wants numbers", key="event_time")
    if form == "iso8601":
        return iso_text(times)
    # Polars counts %f in nanoseconds where the contract's pattern, like Python's, means microseconds.
    return pl.Series(pl.from_arrow(times)).dt.strftime(form.replace("%f", "%6f")).to_arrow().cast(pa.string())


def _numbers(texts: pa.Array) -> pa.Array:
    try:
        return texts.cast(pa.int64())
    except pa.ArrowInvalid:
        return texts.cast(pa.float64())


def _nested(columns: dict[str, Any]) -> dict[str, pa.Array]:
    """Turn columns named by dotted paths into structs."""
    nested: dict[str, Any] = {}
    for name, values in columns.items():
        head, _, rest = name.partition(".")
        if rest:
            nested.setdefault(head, {})[rest] = values
        else:
            nested[head] = values
    return {name: _struct(part) if isinstance(part, dict) else part for name, part in nested.items()}


def _struct(columns: dict[str, Any]) -> pa.Array:
    parts = _nested(columns)
    return pa.StructArray.from_arrays(list(parts.values()), list(parts))


def _json_lines(path: Path, contract: EventContract) -> Iterator[Keyed]:
    reader = _LineReader.of(contract)
    with path.open("rb") as file:
        lines = ((f"{path}:{number}", line) for number, line in enumerate(file, 1) if not line.isspace())
        while batch := list(islice(lines, _BATCH_ROWS)):
            records = [reader.read(line, where) for where, line in batch]
            yield [key for key, _ in records], [value for _, value in records]


@dataclass(frozen=True)
class _LineReader:
    """Takes the contract's fields, named by dotted path, out of lines of JSON."""

    key: str
    fields: frozenset[str]
    required: frozenset[str]

    @classmethod
    def of(cls, contract: EventContract) -> _LineReader:
        required = (each.source for each in contract.columns if each.required and each.source)
        key = contract.entities[contract.primary_entity].sources[0]
        return cls(key, frozenset(contract.raw_fields), frozenset(required))

    def read(self, line: bytes, where: str) -> tuple[bytes, bytes]:
        """Return a line's key, and the event that holds only the contract's fields."""
        line = line.removeprefix(codecs.BOM_UTF8).strip()
        # orjson turns integers beyond 64 bits into floats.
        exact = _LONG_NUMBER.search(line) is not None
        try:
            parsed = json.loads(line) if exact else orjson.loads(line)
        except ValueError as fault:
            raise ConfigurationError(f"not JSON: {fault}", where=where) from None
        if not isinstance(parsed, dict):
            raise ConfigurationError("expected a JSON object", where=where)
        if parsed.keys() == self.fields:
            return str(parsed[self.key]).encode(), line
        return self._picked(dict(_leaves(parsed, "")), where)

    def _picked(self, found: dict[str, Any], where: str) -> tuple[bytes, bytes]:
        absent = sorted(self.required - found.keys())
        empty = [name for name in absent if any(name.startswith(f"{each}.") for each in found)]
        if empty:
            raise ConfigurationError(f"field {empty[0]!r} lies in something that is no object", where=where)
        if absent:
            raise ConfigurationError(f"no field {absent[0]!r}; {nearest(absent[0], found)}", where=where)
        event = {name: value for name, value in found.items() if name in self.fields}
        return str(event[self.key]).encode(), json.dumps(_unflattened(event), ensure_ascii=False).encode()


def _leaves(event: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in event.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _unflattened(event: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in event.items():
        *parents, leaf = path.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return nested


_READERS: dict[str, Callable[[Path, EventContract], Iterator[Keyed]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
