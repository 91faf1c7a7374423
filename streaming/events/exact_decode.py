"""The exact decoder: what an event means under a contract, and why one is rejected, one record at a time."""

from __future__ import annotations

import codecs
import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from schemas.contract import EventContract
from schemas.event_columns import Column
from schemas.event_paths import look_up, steps_of
from schemas.event_sources import sources_of
from streaming.events.beside import NOTHING, Beside, beside_value
from streaming.events.exact_json import json_value
from streaming.events.exact_money import MoneyError, MoneyReader
from streaming.events.exact_times import OUT_OF_BOUNDS, TimeReader, UnusableTimeError
from streaming.events.exact_values import (
    BROKEN,
    Reader,
    RejectedError,
    RejectionReason,
    finite_number,
    read_value,
    reader_for,
    reshaped_id,
)
from streaming.events.framing import payload_of
from streaming.events.record_formats import key_reader_of, reader_of
from streaming.events.time_columns import time_bounds
from streaming.events.where import TOMBSTONE, left_out
from streaming.events.writer_schemas import NO_WRITERS, UnreadableError, WriterSchemas
from streaming.events.written_values import plain

ABSURD: tuple[RejectionReason, str] = ("absurd_time", OUT_OF_BOUNDS)
AHEAD: tuple[RejectionReason, str] = ("time_ahead_of_broker", "later than the broker's clock allows")
STAMP_AHEAD: tuple[RejectionReason, str] = (
    "broker_time_ahead",
    "stamped later than this machine's clock allows",
)


class FilteredError(Exception):
    """Why one record is not wanted, see streaming.events.filtered."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class ExactDecoder:
    """Decodes one record at a time: the definition of what an event means under a contract.

    Only what a transaction cannot do without rejects it: id, time, amount, currency, entities and required
    fields. Any other field that cannot be used is null, one with more than it may hold is cut, and `faults`
    says so.

    Args:
        contract: what events mean.
        writers: the schemas by which values were written, none for JSON.
        key_writers: those by which keys were, where the contract names their format.
        from_file: values are JSON made from a file's rows, whose columns are named like the fields.
    """

    def __init__(
        self,
        contract: EventContract,
        writers: WriterSchemas = NO_WRITERS,
        key_writers: WriterSchemas = NO_WRITERS,
        *,
        from_file: bool = False,
    ) -> None:
        self._contract = contract
        self._keys = None if from_file else key_reader_of(contract, key_writers)
        self._written = None if from_file else reader_of(contract, writers)
        self._framed = contract.format.framed and not from_file
        self._bounds = time_bounds(contract)
        self._time = TimeReader(contract.event_time)
        self._money = None if contract.has_plain_money else MoneyReader(contract)
        self._as_written = ("event time",) if self._money is None else ("event time", "amount")
        self._wanted, self._ids = contract.wanted, contract.reshaped_ids
        self._sources = dict(
            zip(contract.read_fields, sources_of(contract.read_fields, from_file=from_file), strict=True)
        )
        self._columns = [(column, self._reader(column)) for column in contract.columns]

    def decode_one(self, value: bytes | None, stamp: int | None, beside: Beside = NOTHING) -> dict[str, Any]:
        """Return the decoded columns by name, event time in microseconds since 1970 UTC, and `faults`.

        The id of a transaction is None where the event has none and the contract makes one, see made_ids.

        Args:
            value: the record's bytes.
            stamp: the broker's timestamp in microseconds since 1970 UTC.
            beside: what stands beside the value.

        Raises:
            FilteredError: the contract does not want the record.
            RejectedError: the record is not a transaction under the contract.
        """
        if value is None and self._contract.leaves_out_tombstones:
            raise FilteredError(TOMBSTONE)
        event, faults = self._event(value), list[str]()
        self._check_wanted(event, beside)
        row: dict[str, Any] = {}
        for column, read in self._columns:
            scalar, as_written = column.json_type != "string", column.role in self._as_written
            find = partial(self._found, event, beside, scalar=scalar, as_written=as_written)
            if column.role == "event time":
                row[column.name] = self._read_time(column, find, stamp or 0)
            elif column.name in self._ids:
                row[column.name] = reshaped_id(column, self._ids[column.name], find, faults)
            elif column.source is None:
                row[column.name] = self._contract.currency.constant
            else:
                row[column.name] = read_value(column, read, find(column.source), faults)
        if self._money is not None:
            with _rejecting():
                self._money.settle(row)
        self._check_time(row["event_time"], stamp)
        row["faults"] = faults or None
        return row

    def _found(
        self,
        event: dict[str, Any],
        beside: Beside,
        field: str,
        *,
        scalar: bool = False,
        as_written: bool = False,
    ) -> Any:
        """Return what a field holds, or the first of its aliases that is there, None for null or absent."""
        for name in (field, *self._contract.aliases.get(field, ())):
            value = self._of_one_name(event, beside, name, scalar=scalar, as_written=as_written)
            if value is not None:
                return value
        return None

    def _of_one_name(
        self, event: dict[str, Any], beside: Beside, field: str, *, scalar: bool, as_written: bool
    ) -> Any:
        source = self._sources[field]
        if source.part == "value":
            return plain(look_up(event, source.path, steps_of(source.path)), as_written=as_written)
        if source.part == "key" and self._keys is not None:
            return plain(self._keys.value(beside.key, source.path), as_written=as_written)
        return beside_value(beside, source, scalar=scalar)

    def _check_wanted(self, event: dict[str, Any], beside: Beside) -> None:
        if self._wanted is None:
            return
        reason = left_out(self._wanted, lambda field: self._found(event, beside, field))
        if reason is not None:
            raise FilteredError(reason)

    def _event(self, value: bytes | None) -> dict[str, Any]:
        whole = _within(value, self._contract.max_record_bytes)
        if self._written is not None:
            try:
                return self._written.event(whole)
            except UnreadableError as fault:
                raise RejectedError(fault.reason, fault.detail) from None
        payload = payload_of(whole) if self._framed else whole
        if payload is None:
            raise RejectedError("missing_framing")
        return _parse(payload)

    def _reader(self, column: Column) -> Reader:
        if self._money is not None and column.reading in ("amount", "currency", "direction"):
            return self._read_money
        return self._read_amount if column.reading == "amount" else reader_for(column.reading)

    def _read_money(self, column: Column, value: Any, _: list[str]) -> Any:
        assert self._money is not None
        with _rejecting():
            return self._money.read(column, value)

    def _read_amount(self, column: Column, value: Any, _: list[str]) -> float:
        number = finite_number(column, value, "bad_amount")
        if number < 0 or math.copysign(1.0, number) < 0:
            raise RejectedError("bad_amount", "negative")
        if number > self._contract.amount.most:
            raise RejectedError("amount_too_large", f"more than {self._contract.amount.most:g}")
        return number

    def _read_time(self, column: Column, find: Callable[[str], Any], stamp: int) -> int:
        values = [find(source) for source in column.sources]
        if None in values:
            raise RejectedError("missing_field", column.sources[values.index(None)])
        with _rejecting():
            return self._time.read(values, stamp)

    def _check_time(self, micros: int, stamp: int | None) -> None:
        earliest, latest, ahead = self._bounds
        if not earliest <= micros <= latest:
            raise RejectedError(*ABSURD)
        if micros > (stamp or 0) + ahead:
            raise RejectedError(*AHEAD)


@contextlib.contextmanager
def _rejecting() -> Iterator[None]:
    try:
        yield
    except (MoneyError, UnusableTimeError) as fault:
        raise RejectedError(fault.reason, fault.detail) from None


def _within(value: bytes | None, longest: int) -> bytes:
    if value is None:
        raise RejectedError("null_value")
    if len(value) > longest:
        raise RejectedError("oversized_record", f"{len(value)} bytes, at most {longest}")
    return value


def _parse(value: bytes) -> dict[str, Any]:
    """Parse one object; bytes that are not UTF-8 become lone surrogates."""
    event = _loaded(value.removeprefix(codecs.BOM_UTF8))
    if not isinstance(event, dict):
        raise RejectedError("not_an_object", type(event).__name__)
    return event


def _loaded(value: bytes) -> Any:
    try:
        return json_value(value)
    except ValueError:
        broken = BROKEN.search(value.decode("utf-8", "surrogateescape"))
        raise RejectedError("invalid_utf8" if broken else "malformed_json") from None
