"""Events out of files, folders and Delta tables, brought to the JSON that an event contract describes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from schemas.event_columns import Column
from streaming.files.cells import CellReader
from streaming.files.csv_rows import CsvRows
from streaming.files.delta_table import DeltaTableRows
from streaming.files.dialect import FOUND, DecimalSign, TextOptions, dialect_of
from streaming.files.json_records import Record, json_records
from streaming.files.opening import DataFile, data_files, is_delta
from streaming.files.parquet_rows import ParquetRows
from streaming.files.record_events import RecordReader
from streaming.files.table_rows import (
    Chunk,
    EventRows,
    check_paths,
    columns_by_field,
    leads_somewhere,
    names_of,
    value_at,
)
from streaming.store.place import Place

Keyed = tuple[list[bytes | None], list[bytes]]

_BATCH_ROWS = 50_000
_TYPES: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}


@dataclass(frozen=True)
class EventFile:
    """A file, a folder of files or a Delta table, opened: its columns are those that were wanted.

    Attributes:
        path: as it was given.
        said: what was found out about how its text is written, a line for each file of CSV; of others that
            options change nothing, where some are given.
        rows: how many it holds, None where only reading it would tell.
        version: of a Delta table, None for files.
        identity: what tells a Delta table, whatever its version, from others; None for files.
        read: reads it once, from the beginning.
        options: how its text is written, as the user says.
    """

    path: Path
    said: tuple[str, ...]
    rows: int | None
    version: int | None
    identity: str | None
    read: Callable[[], Iterator[Chunk]]
    options: TextOptions = FOUND

    def chunks(self) -> Iterator[Chunk]:
        """Read its rows, cut alike at every call.

        Raises:
            ConfigurationError: a row cannot be read; file, line and column are named.
        """
        return self.read()

    def keyed(self) -> Iterator[Keyed]:
        """Return keys and events alone."""
        return ((chunk.keys, chunk.values) for chunk in self.read())

    def digest(self) -> str:
        """Return what tells its content, hex; of a Delta table, whatever its version."""
        if self.identity is not None:
            return hashlib.sha256(self.identity.encode()).hexdigest()
        digests = [(each.path, _digest(each.path)) for each in data_files(self.path)]
        if self.path.is_file() and self.options == FOUND:
            return digests[0][1]
        named = [f"{path.relative_to(self.path)} {digest}" for path, digest in digests]
        return hashlib.sha256("\n".join([*named, repr(self.options)]).encode()).hexdigest()


def open_events(
    path: Path,
    contract: EventContract,
    *,
    options: TextOptions = FOUND,
    beside: Sequence[str] = (),
    version: int | None = None,
    strict: bool = True,
) -> EventFile:
    """Open what holds events and check its columns at once.

    Args:
        path: a file of CSV, JSON or Parquet, a folder of such files, or a Delta table, also by a URI of a
            store.
        contract: what its rows mean.
        options: how text is written, where that need not be found.
        beside: further columns, which come along and are no part of the events.
        version: of a Delta table, by default the newest.
        strict: refuse a cell or record that is none of the contract's; otherwise it is left to the decoder.

    Raises:
        ConfigurationError: there is no such file, its ending is unknown, or a column is missing.
    """
    if is_delta(path):
        return replace(_delta(path, contract, beside, version), said=options.idle(path))
    wanted = _WantedFields(contract, options, tuple(beside), strict)
    files = data_files(path)
    parts = [_READERS[each.kind](each, wanted) for each in files]
    found = tuple(f"{part.path}: {part.said}" for part in parts if part.said)
    said = found if files[0].kind == "csv" else options.idle(path)
    counts = [part.rows for part in parts]
    rows = None if None in counts else sum(each or 0 for each in counts)
    return EventFile(path, said, rows, None, None, partial(_chained, [part.read for part in parts]), options)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _chained(readers: Sequence[Callable[[], Iterator[Chunk]]]) -> Iterator[Chunk]:
    for read in readers:
        yield from read()


@dataclass(frozen=True)
class _Part:
    """One file, ready to be read."""

    path: Path
    read: Callable[[], Iterator[Chunk]]
    said: str = ""
    rows: int | None = None


class _Numbered:
    """Names the place of each row of a batch by its number in the whole."""

    def __init__(self, place_of: Callable[[int], str], numbers: Sequence[int]) -> None:
        self._place_of, self._numbers = place_of, numbers

    def __call__(self, row: int) -> str:
        return self._place_of(self._numbers[row])


@dataclass(frozen=True)
class _WantedFields:
    """What is wanted of files; see open_events."""

    contract: EventContract
    options: TextOptions
    beside: tuple[str, ...]
    strict: bool

    @property
    def columns(self) -> list[str]:
        return [*dict.fromkeys((*self.contract.read_fields, *self.beside))]

    def rows(
        self, present: Sequence[str], decimal: DecimalSign | None = None, *, bytes_are_text: bool = False
    ) -> EventRows:
        cells = CellReader.of(self.contract, decimal, strict=self.strict)
        absent = frozenset(self.contract.read_fields) - {*present}
        return EventRows(self.contract, cells, self.beside, bytes_are_text, absent)

    def present(self, has: Callable[[str], bool]) -> list[str]:
        """Return the columns to be read: of a field's names those that the table has, the first if none."""
        missing = set[str]()
        for field in self.contract.aliases:
            names = names_of(self.contract, field)
            lacking = [name for name in names if not has(name)]
            missing |= {*lacking} if len(lacking) < len(names) else {*names[1:]}
        return [name for name in self.columns if name not in missing]


def _csv(file: DataFile, wanted: _WantedFields) -> _Part:
    by_field = columns_by_field(wanted.contract)
    numbers = [name for name, each in by_field.items() if each.json_type == "number"]
    dialect = dialect_of(file.path, wanted.options, wanted.columns, numbers)
    known = {*dialect.header.unique, *file.partition}
    present = wanted.present(known.__contains__)
    within = [name for name in present if name not in file.partition]
    dialect.header.check(within, str(file.path))
    rows = wanted.rows(present, dialect.decimal, bytes_are_text=True)

    def read() -> Iterator[Chunk]:
        source = CsvRows(file.path, dialect)
        for batch in source.batches(within):
            numbered = batch["row"].to_pylist()
            place = _Numbered(source.place_of, numbered)
            yield rows.chunk(file.completed(batch), place)

    return _Part(file.path, partial(_placed, read, file.path), dialect.said())


def _parquet(file: DataFile, wanted: _WantedFields) -> _Part:
    source = ParquetRows(file.path)
    schema = file.completed(source.schema.empty_table()).schema
    present = wanted.present(partial(leads_somewhere, schema))
    check_paths(schema, present, str(file.path))
    rows = wanted.rows(present)

    def read() -> Iterator[Chunk]:
        done = 0
        for batch in source.batches(present, _BATCH_ROWS):
            numbers = range(done + 1, done + 1 + batch.num_rows)
            yield rows.chunk(file.completed(batch), _Numbered(source.place_of, numbers))
            done += batch.num_rows

    return _Part(file.path, partial(_placed, read, file.path), rows=source.count)


def _placed(read: Callable[[], Iterator[Chunk]], path: Path | Place) -> Iterator[Chunk]:
    try:
        yield from read()
    except ConfigurationError as fault:
        raise fault.within(str(path)) from None
    except (pa.ArrowInvalid, OSError) as fault:
        raise ConfigurationError(f"cannot be read: {fault}", where=str(path)) from fault


def _json(file: DataFile, wanted: _WantedFields) -> _Part:
    def read() -> Iterator[Chunk]:
        reader = RecordReader(wanted.contract, wanted.beside, strict=wanted.strict)
        records = json_records(file.path)
        while batch := list(islice(records, _BATCH_ROWS)):
            yield _record_chunk(batch, reader, file.path, wanted.beside)

    return _Part(file.path, partial(_placed, read, file.path))


def _record_chunk(
    records: Sequence[Record], reader: RecordReader, path: Path, beside: Sequence[str]
) -> Chunk:
    found = [reader.read(record.value, f"{path}:{record.line}") for record in records]
    columns = {name: [each.beside[place] for each in found] for place, name in enumerate(beside)}
    places = [record.line for record in records]
    return Chunk(
        [each.key for each in found],
        [each.value for each in found],
        columns,
        lambda row: f"{path}:{places[row]}",
    )


def _delta(path: Path, contract: EventContract, beside: Sequence[str], version: int | None) -> EventFile:
    """A table holds the contract's fields, or the columns that they are decoded to."""
    table = DeltaTableRows(path, version)
    decoded = {each.name: each for each in contract.columns if each.source}
    names = table.schema.names
    undo = (
        _can_be_undone(contract)
        and set(decoded) <= set(names)
        and not set(contract.read_fields) <= set(names)
    )
    wanted = _WantedFields(contract, FOUND, tuple(beside), strict=True)
    present = wanted.present(partial(leads_somewhere, table.schema))
    paths = [*decoded, *beside] if undo else present
    check_paths(table.schema, paths, str(table.place))
    rows = wanted.rows(contract.read_fields if undo else present)

    def read() -> Iterator[Chunk]:
        done = 0
        for batch in table.in_order((*contract.event_time.sources, "event_time"), _BATCH_ROWS, paths):
            given = _undecoded(batch, decoded, beside) if undo else batch
            numbers = range(done + 1, done + 1 + batch.num_rows)
            yield rows.chunk(given, _Numbered(table.place_of, numbers))
            done += batch.num_rows

    rows_read = partial(_placed, read, table.place)
    return EventFile(path, (), table.count(), table.version, table.identity, rows_read)


def _can_be_undone(contract: EventContract) -> bool:
    """Whether events that are decoded once more after this are what they were."""
    return contract.has_plain_money and not contract.reshaped_ids and contract.where is None


def _undecoded(rows: pa.RecordBatch, decoded: Mapping[str, Column], beside: Sequence[str]) -> pa.RecordBatch:
    columns = {
        str(each.source): rows[name] if each.role == "event time" else rows[name].cast(_TYPES[each.json_type])
        for name, each in decoded.items()
    }
    return pa.RecordBatch.from_pydict({**columns, **{name: value_at(rows, name) for name in beside}})


_READERS: Mapping[str, Callable[[DataFile, _WantedFields], _Part]] = {
    "csv": _csv,
    "json": _json,
    "parquet": _parquet,
}
