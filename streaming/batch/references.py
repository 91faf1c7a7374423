"""Joins reference tables and exchange rates to decoded events, as they stood at the events' own times.

What is joined becomes columns of `transactions` when the batch is stored: recovery and replay read it there
and never join again. An event whose key is in no table gets null.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.contract import EventContract
from schemas.errors import ConfigurationError, FlagstreamError, MachineError, nearest
from schemas.event_columns import REFERENCE_AMOUNT
from schemas.references import RATE, ExchangeRates, ReferenceTable
from streaming.batch.conversion import MissingRates, converted
from streaming.delta.remote_log import entry_tag
from streaming.delta.table_versions import change_mark
from streaming.files.delta_table import DeltaTableRows
from streaming.files.headers import Header
from streaming.files.opening import DataFile, data_files, is_delta, source_place
from streaming.service.health import Condition, Health
from streaming.service.last_read import LastRead
from streaming.store.place import Place

_CHECK_SECONDS, _CHECK_STORE_SECONDS = 1.0, 30.0
_SINCE = "flagstream_since"
_RATES = "data_sources.rates"
_TIME = pl.Datetime("us", "UTC")
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
class _Loaded:
    """One table as it was read: its rows ready to be joined, and what tells this version from others."""

    rows: pl.DataFrame
    version: str
    mark: tuple[object, ...]


class References:
    """The reference tables of a contract, and exchange rates, read anew between batches where they changed.

    Args:
        contract: names the tables.
        health: hears of a table that cannot be read any more; what was read of it before stays in force.
        clock: seconds that only go on; tables are looked for changes at most once a second, those in a
            store every 30 s.
        rates: what the spec converts amounts by.
        last_read: what the run has read of them before.

    Raises:
        ConfigurationError: of a table that was not read before, it is missing, is none, or lacks a column.
    """

    def __init__(
        self,
        contract: EventContract,
        health: Health | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        rates: ExchangeRates | None = None,
        last_read: LastRead | None = None,
    ) -> None:
        self._last_read = last_read or LastRead()
        self._contract, self._health, self._clock = contract, health or Health(), clock
        self._checked_at, self._rates = clock(), rates
        self._missing = MissingRates("" if rates is None else rates.to)
        self._wanted = {f"references.{name}": each for name, each in contract.references.items()}
        self._wanted |= {} if rates is None else {_RATES: rates.table}
        self._faults = dict[str, str]()
        self._in_store = {key for key, each in self._wanted.items() if not _place(each.path).is_local}
        self._store_asked_at = self._checked_at
        self._tables = {key: self._begun(key) for key in self._wanted}
        self._say()

    def renew(self) -> None:
        """Read what has changed since; a fault is a condition, and what was read before stays in force."""
        if not self._tables or self._clock() < self._checked_at + _CHECK_SECONDS:
            return
        self._checked_at = self._clock()
        for key in self._due():
            table = self._wanted[key]
            self._faults.pop(key, None)
            try:
                if _mark(Path(table.path)) != self._tables[key].mark:
                    self._tables[key] = _load(key, table)
                    self._last_read.note(_named(key, table), self._tables[key])
            except FlagstreamError as fault:
                self._faults[key] = str(fault)
        self._say()

    def _due(self) -> list[str]:
        """Return what may have changed; to see that in a store is a request, and the next batch waits."""
        if self._checked_at < self._store_asked_at + _CHECK_STORE_SECONDS:
            return [key for key in self._wanted if key not in self._in_store]
        self._store_asked_at = self._checked_at
        return [*self._wanted]

    def _begun(self, key: str) -> _Loaded:
        table = self._wanted[key]

        def broken(fault: ConfigurationError) -> None:
            self._faults[key] = str(fault)

        return self._last_read.or_before(_named(key, table), lambda: _load(key, table), broken)

    def _say(self) -> None:
        if self._faults:
            said = f"{'; '.join(self._faults.values())}; what was read before stays in force"
            self._health.begins(Condition.REFERENCE_UNREADABLE, said)
        else:
            self._health.ends(Condition.REFERENCE_UNREADABLE)

    def pins(self) -> dict[str, Any]:
        """Return the version of each table, as a batch pins them; nothing without tables."""
        versions = {name: self._tables[f"references.{name}"].version for name in self._contract.references}
        rates = {} if self._rates is None else {"rates": self._tables[_RATES].version}
        return {**({"references": versions} if versions else {}), **rates}

    def join(self, events: pa.Table) -> pa.Table:
        """Return decoded events with the columns of reference tables and rates, in the same order.

        Args:
            events: as decode() returns them, with other columns after the contract's or without.
        """
        if not self._tables:
            return events
        for name, table in self._contract.references.items():
            found = self._found(events, f"references.{name}")
            for column in table.columns:
                kind = self._contract.reference_columns[column]
                events = events.append_column(pa.field(column, kind), found[column].to_arrow().cast(kind))
        if self._rates is not None:
            events = self._converted(events, self._rates)
        return events.select(_order(self._contract, events.column_names))

    def _found(self, events: pa.Table, key: str) -> pl.DataFrame:
        table = self._wanted[key]
        return _joined(pl.DataFrame(events.select(["event_time", *table.on])), table, self._tables[key])

    def _converted(self, events: pa.Table, rates: ExchangeRates) -> pa.Table:
        paid = pl.DataFrame(events.select(["amount", "currency"]))
        amounts = converted(paid, self._found(events, _RATES)[RATE], rates)
        self._missing.note(paid["currency"], amounts)
        return events.append_column(pa.field(REFERENCE_AMOUNT, pa.float64()), amounts.to_arrow())


def _named(key: str, table: ReferenceTable) -> tuple[str, str]:
    return key, table.model_dump_json()


def _order(contract: EventContract, present: list[str]) -> list[str]:
    known = [name for name in contract.arrow_schema().names if name in present]
    return [*known, *(name for name in present if name not in known)]


def _joined(events: pl.DataFrame, table: ReferenceTable, loaded: _Loaded) -> pl.DataFrame:
    """Return the rows' columns in the events' order; a key that is null fits nothing."""
    keys = [_text(events.schema, name) for name in table.on]
    asked = events.select(pl.col("event_time").cast(_TIME), *keys).with_row_index("flagstream_row")
    if table.since is None:
        found = asked.join(loaded.rows, on=list(table.on), how="left", maintain_order="left")
        return found.select(list(table.columns))
    found = asked.sort("event_time", maintain_order=True).join_asof(
        loaded.rows,
        left_on="event_time",
        right_on=_SINCE,
        by=list(table.on),
        strategy="backward",
        check_sortedness=False,
    )
    return found.sort("flagstream_row").select(list(table.columns))


def _load(key: str, table: ReferenceTable) -> _Loaded:
    """Read a table whole.

    Raises:
        ConfigurationError: it is missing, is none, or lacks a column; naming `key`.
    """
    path = Path(table.path)
    mark = _mark(path)
    try:
        rows, version = _read(path)
        return _Loaded(_ready(rows, key, table), version, mark)
    except _UNREADABLE as fault:
        raise ConfigurationError(f"cannot be read as a table: {fault}", where=str(path)) from fault


def _mark(path: Path) -> tuple[object, ...]:
    """Return what tells one state of a table from another, at the cost of a look.

    Raises:
        ConfigurationError: there is nothing, nothing that is read, or a file that was listed is gone.
    """
    try:
        return _states(path)
    except OSError as fault:
        raise ConfigurationError(f"cannot be read as a table: {fault}", where=str(path)) from fault


def _place(path: str) -> Place:
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
    keys = [_text(rows.schema, theirs).alias(ours) for ours, theirs in table.on.items()]
    taken = [_taken(rows.schema, column, table) for column in table.columns]
    since = [] if table.since is None else [_moment(rows.schema, table.since).alias(_SINCE)]
    ready = rows.select(*keys, *since, *taken).drop_nulls(list(table.on))
    if table.since is None:
        return ready.unique(list(table.on), keep="last", maintain_order=True)
    ordered = ready.with_columns(pl.col(_SINCE).fill_null(_ALWAYS))
    return ordered.unique([*table.on, _SINCE], keep="last", maintain_order=True).sort(_SINCE)


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


def _text(schema: pl.Schema, name: str) -> pl.Expr:
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
        lower = _text(schema, column.field).str.to_lowercase()
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
        return value.dt.convert_time_zone("UTC").cast(_TIME)
    return value.cast(pl.Datetime("us"), strict=False).dt.replace_time_zone("UTC")
