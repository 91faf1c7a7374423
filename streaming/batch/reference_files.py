"""Files and tables of references: read, their columns brought to the types that a contract gives them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ConfigurationError, MachineError, nearest
from schemas.references import ReferenceTable
from streaming.delta.remote_log import entry_tag
from streaming.delta.table_versions import change_mark
from streaming.files.delta_table import DeltaTableRows
from streaming.files.headers import Header
from streaming.files.opening import DataFile, data_files, is_delta, source_place
from streaming.store.place import Place

SINCE = "flagstream_since"
MOMENT = pl.Datetime("us", "UTC")
_ALWAYS = datetime(1, 1, 1, tzinfo=UTC)
_LARGEST_WHOLE = 2.0**53
# By name, since a format that is guessed fits the first text alone, and takes 01/05 for either date.
_ZONED = ("%+", "%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M%#z")
_LOCAL = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
_UNREADABLE = (
    pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, UnicodeError, OSError,
    MachineError,
)  # fmt: skip
_TRUTHS: Mapping[str, bool] = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class LoadedTable:
    """One table as it was read: its rows ready to be joined, and what tells this version from others."""

    rows: pl.DataFrame
    version: str
    mark: tuple[object, ...]


def load_table(key: str, table: ReferenceTable) -> LoadedTable:
    """Read a table whole.

    Raises:
        ConfigurationError: it is missing, is none, or lacks a column; naming `key`.
    """
    path = Path(table.path)
    mark = mark_of(path)
    try:
        rows, version = _read(path)
        return LoadedTable(_ready(rows, key, table), version, mark)
    except _UNREADABLE as fault:
        raise ConfigurationError(f"cannot be read as a table: {fault}", where=str(path)) from fault


def mark_of(path: Path) -> tuple[object, ...]:
    """Return what tells one state of a table from another, at the cost of a look.

    Raises:
        ConfigurationError: there is nothing, nothing that is read, or a file that was listed is gone.
    """
    try:
        return _states(path)
    except OSError as fault:
        raise ConfigurationError(f"cannot be read as a table: {fault}", where=str(path)) from fault


def place_of(path: str) -> Place:
    """Return where a table lies; see source_place."""
    return source_place(Path(path))


def _states(path: Path) -> tuple[object, ...]:
    if is_delta(path):
        place, mark = source_place(path), change_mark(source_place(path))
        # A table that was made anew may have as many entries as the one before.
        return mark if place.is_local else (*mark, entry_tag(place, mark[0] - 1))
    if not path.exists() and source_place(path).is_local:
        raise ConfigurationError("no such reference table", where=str(path))
    states = ((each.path, each.path.stat()) for each in data_files(path))
    return tuple((str(file), state.st_mtime_ns, state.st_size) for file, state in states)


def _read(path: Path) -> tuple[pl.DataFrame, str]:
    """Return a table's rows and what its version is called, both of one reading."""
    if is_delta(path):
        rows = DeltaTableRows(path)
        return pl.DataFrame(rows.whole()), f"version {rows.version}"
    parts, digest = list[pl.DataFrame](), hashlib.sha256()
    for file in data_files(path):
        content = file.path.read_bytes()
        digest.update(content)
        parts.append(_with_partition(_frame(file, content), file))
    return pl.concat(parts, how="diagonal_relaxed"), f"sha256 {digest.hexdigest()}"


def _frame(file: DataFile, content: bytes) -> pl.DataFrame:
    if file.kind == "parquet":
        # Polars ends the process over some damaged files, and takes text for UTF-8 unseen.
        table = pq.ParquetFile(pa.BufferReader(content)).read()
        table.validate(full=True)
        return pl.DataFrame(table)
    if file.kind == "csv":
        return _named_once(pl.read_csv(content, infer_schema=False), content)
    raise ConfigurationError("expected a Delta table, Parquet or CSV", where=str(file.path))


def _named_once(rows: pl.DataFrame, content: bytes) -> pl.DataFrame:
    """Address a heading that stands there twice by its number, as in files of events."""
    if not rows.width:
        return rows
    heading = pl.read_csv(content, infer_schema=False, has_header=False, n_rows=1).row(0)
    header = Header(tuple(each or "" for each in heading))
    repeated = len(set(header.columns)) < len(header.columns)
    return rows.rename(dict(zip(rows.columns, header.unique, strict=True))) if repeated else rows


def _with_partition(rows: pl.DataFrame, file: DataFile) -> pl.DataFrame:
    given = {name: value for name, value in file.partition.items() if name not in rows.columns}
    return rows.with_columns(pl.lit(value, pl.String).alias(name) for name, value in given.items())


def _ready(rows: pl.DataFrame, key: str, table: ReferenceTable) -> pl.DataFrame:
    """Return keys as text, the time from which a row holds, and the columns that are taken over."""
    wanted = [*table.on.values(), *(each.field for each in table.columns.values())]
    for column in [*wanted, *([] if table.since is None else [table.since])]:
        problem = _problem(rows, column, is_time=column == table.since)
        if problem is not None:
            raise ConfigurationError(problem, where=table.path, key=key)
    keys = [as_text(rows.schema, theirs).alias(ours) for ours, theirs in table.on.items()]
    taken = [_taken(rows.schema, column, table) for column in table.columns]
    since = [] if table.since is None else [_moment(rows.schema, table.since).alias(SINCE)]
    ready = rows.select(*keys, *since, *taken).drop_nulls(list(table.on))
    if table.since is None:
        return ready.unique(list(table.on), keep="last", maintain_order=True)
    ordered = ready.with_columns(pl.col(SINCE).fill_null(_ALWAYS))
    return ordered.unique([*table.on, SINCE], keep="last", maintain_order=True).sort(SINCE)


def _problem(rows: pl.DataFrame, column: str, *, is_time: bool) -> str | None:
    """Say why a column cannot be used, None where it can."""
    if column not in rows.columns:
        return f"no column {column!r}; {nearest(column, rows.columns)}"
    kind = rows.schema[column]
    if kind.is_nested() or kind in (pl.Binary, pl.Duration, pl.Object):
        return f"column {column!r} holds {kind}; expected text, numbers, truths or times"
    if not is_time:
        return None
    if not (_is_text(kind) or kind in (pl.Date, pl.Datetime, pl.Null)):
        return f"column {column!r} holds {kind}; expected times or text in ISO 8601"
    read, given = rows.select(_moment(rows.schema, column)).to_series(), rows[column]
    if _is_text(kind):
        given = given.cast(pl.String).replace("", None)
    wrong = (read.is_null() & given.is_not_null()).arg_true()
    return f"column {column!r} is no time of ISO 8601 in row {wrong[0] + 1}" if len(wrong) else None


def _is_text(kind: pl.DataType) -> bool:
    return kind in (pl.String, pl.Categorical, pl.Enum)


def as_text(schema: pl.Schema, name: str) -> pl.Expr:
    """Return a column as text; a whole number is written without a fraction, whatever holds it."""
    value = pl.col(name)
    if not schema[name].is_float():
        return value.cast(pl.String)
    whole = (value == value.floor()) & (value.abs() < _LARGEST_WHOLE)
    return (
        pl.when(whole)
        .then(value.cast(pl.Int64, strict=False).cast(pl.String))
        .otherwise(value.cast(pl.String))
    )


def _taken(schema: pl.Schema, name: str, table: ReferenceTable) -> pl.Expr:
    column = table.columns[name]
    value = pl.col(column.field)
    if column.type == "string":
        return value.cast(pl.String).str.slice(0, column.max_length).alias(name)
    if column.type == "boolean":
        lower = as_text(schema, column.field).str.to_lowercase()
        return lower.replace_strict(_TRUTHS, default=None, return_dtype=pl.Boolean).alias(name)
    number = value.cast(pl.Float64, strict=False)
    if column.type == "float":
        return pl.when(number.is_finite()).then(number).alias(name)
    whole = value.cast(pl.Int64, strict=False)
    return (
        pl.when(number == number.floor()).then(whole) if schema[column.field].is_float() else whole
    ).alias(name)


def _moment(schema: pl.Schema, name: str) -> pl.Expr:
    """Return a column of times in UTC. Text is null where it is no ISO 8601; no offset means UTC."""
    kind, value = schema[name], pl.col(name)
    if _is_text(kind):
        text = value.cast(pl.String).str.replace(r"^(.{10}) ", "${1}T")
        zoned = [text.str.to_datetime(each, time_unit="us", time_zone="UTC", strict=False) for each in _ZONED]
        local = [text.str.to_datetime(each, time_unit="us", strict=False) for each in _LOCAL]
        return pl.coalesce(*zoned, *(each.dt.replace_time_zone("UTC") for each in local))
    if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
        return value.dt.convert_time_zone("UTC").cast(MOMENT)
    return value.cast(pl.Datetime("us"), strict=False).dt.replace_time_zone("UTC")
