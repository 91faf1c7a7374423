"""Step 2: raw Kafka records to typed columns, without an exception for any bytes.

Rows that the compiled scanner vouches for become columns directly; every other row goes through `decode_one`,
which defines what an event means and why one is rejected.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.contract import NANOSECONDS, Column, EventContract
from schemas.tables import COORDINATES, UTC_MICROS
from streaming import json_scan
from streaming.compilation import Bytes, Flags, Ints, read_only

RejectionReason = Literal[
    "malformed_json",
    "invalid_utf8",
    "null_value",
    "not_an_object",
    "missing_field",
    "mistyped_field",
    "bad_amount",
    "bad_time",
    "absurd_time",
    "time_ahead_of_broker",
    "oversized_record",
]

_BLOCK_ROWS = 65_536
_THREADS = ThreadPoolExecutor(2, thread_name_prefix="decode")
_POWERS = np.array([10.0**power for power in range(16)])
_LITERALS = tuple(np.frombuffer(text, np.uint8) for text in (b"true", b"false", b"null"))
_MICRO = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = 2**63


@dataclass(frozen=True)
class Decoded:
    """A micro-batch split in two; every record is in exactly one of them.

    Attributes:
        valid: the contract's decoded columns and the Kafka coordinates.
        rejected: key, value, coordinates, reason code and a detail that quotes nothing of the record.
    """

    valid: pa.Table
    rejected: pa.Table


class RejectedError(Exception):
    """Why one record is not a transaction."""

    def __init__(self, reason: RejectionReason, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


def decode(records: pa.Table, contract: EventContract) -> Decoded:
    """Decode a micro-batch.

    Args:
        records: columns key and value (binary), topic, partition, offset and timestamp (the broker's).
        contract: what the events mean.
    """
    records = records.combine_chunks()
    blocks = [records.slice(first, _BLOCK_ROWS) for first in range(0, records.num_rows, _BLOCK_ROWS)]
    parts = list(_THREADS.map(lambda block: _Block(block, contract).decode(), blocks))
    empty = _Block(records.slice(0, 0), contract).decode()
    return Decoded(
        pa.concat_tables([empty.valid, *(part.valid for part in parts)]),
        pa.concat_tables([empty.rejected, *(part.rejected for part in parts)]),
    )


class _Block:
    """One block of records on its way to columns."""

    def __init__(self, records: pa.Table, contract: EventContract) -> None:
        self._contract = contract
        self._columns = [column for column in contract.columns if column.source is not None]
        self._rows = records.num_rows
        self._keys, self._values = _flat(records["key"]), _flat(records["value"])
        places = [_flat(records[name]) for name in ("topic", "partition", "offset")]
        stamps = _flat(records["timestamp"]).cast(UTC_MICROS)
        self._coordinates = [each.cast(f.type) for each, f in zip([*places, stamps], COORDINATES, strict=True)]
        self._rejections: dict[int, tuple[str, str]] = {}

    def decode(self) -> Decoded:
        arrays, settled = self._scan()
        exact = self._decode_exactly(np.flatnonzero(~settled))
        self._check_times(arrays["event_time"], np.flatnonzero(settled))
        fast = settled.copy()
        fast[list(self._rejections)] = False
        return Decoded(self._valid(arrays, fast, exact), self._rejected())

    def _scan(self) -> tuple[dict[str, pa.Array], Flags]:
        data, offsets = _buffers(self._values)
        vouched = self._plain_rows(offsets)
        count = len(self._columns)
        kinds, places = (np.zeros((self._rows, count), np.int8) for _ in range(2))
        starts, ends, mantissas = (np.zeros((self._rows, count), np.int64) for _ in range(3))
        names, bounds = _names([column.source or "" for column in self._columns])
        if not any("." in (column.source or "") for column in self._columns):
            json_scan.scan(
                data, offsets, names, bounds, _LITERALS, vouched, kinds, starts, ends, mantissas, places
            )
        else:
            vouched[:] = False
        arrays: dict[str, pa.Array] = {}
        for place, column in enumerate(self._columns):
            found = _Found(
                data,
                *(np.ascontiguousarray(part[:, place]) for part in (kinds, starts, ends, mantissas, places)),
            )
            arrays[column.name] = _Reader(self._contract, column, found, vouched).read()
        return arrays, vouched

    def _plain_rows(self, offsets: Ints) -> Flags:
        """Rows worth scanning: present, not oversized, and in valid UTF-8 as a whole block."""
        lengths = np.diff(offsets)
        plain = (lengths <= self._contract.max_record_bytes) & (lengths > 0)
        if self._values.null_count:
            plain &= self._values.is_valid().to_numpy(zero_copy_only=False)
        try:
            self._values.cast(pa.string())
        except pa.ArrowInvalid:
            plain &= _valid_utf8(self._values)
        return np.ascontiguousarray(plain)

    def _decode_exactly(self, rows: Ints) -> pa.Table:
        decoder = ExactDecoder(self._contract)
        decoded: list[dict[str, Any]] = []
        kept: list[int] = []
        for row in rows.tolist():
            stamp = self._coordinates[3][row].value
            try:
                decoded.append(decoder.decode_one(self._values[row].as_py(), stamp))
                kept.append(row)
            except RejectedError as fault:
                self._rejections[row] = (fault.reason, fault.detail)
        columns = self._contract.columns
        arrays = [pa.array([each[column.name] for each in decoded], column.type) for column in columns]
        return self._with_coordinates(arrays, pa.array(kept, pa.int64()))

    def _check_times(self, times: pa.Array, rows: Ints) -> None:
        micros = times.cast(pa.int64()).to_numpy(zero_copy_only=False)[rows]
        stamps = self._coordinates[3].cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)[rows]
        earliest, latest, ahead = _time_bounds(self._contract)
        absurd = (micros < earliest) | (micros > latest)
        for row in rows[absurd].tolist():
            self._rejections[row] = _ABSURD
        for row in rows[~absurd & (micros > stamps + ahead)].tolist():
            self._rejections[row] = _AHEAD

    def _valid(self, arrays: Mapping[str, pa.Array], fast: Flags, exact: pa.Table) -> pa.Table:
        constant = pa.repeat(pa.scalar(self._contract.currency.constant, pa.string()), self._rows)
        columns = [arrays.get(column.name, constant) for column in self._contract.columns]
        table = pa.Table.from_arrays([*columns, *self._coordinates], schema=self._contract.arrow_schema())
        if not fast.all():
            table = table.filter(pa.array(fast))
        return pa.concat_tables([table, exact]) if exact.num_rows else table

    def _with_coordinates(self, arrays: Sequence[pa.Array], rows: pa.Array) -> pa.Table:
        taken = [each.take(rows) for each in self._coordinates]
        return pa.Table.from_arrays([*arrays, *taken], schema=self._contract.arrow_schema())

    def _rejected(self) -> pa.Table:
        rows = pa.array(sorted(self._rejections), pa.int64())
        found = [self._rejections[row] for row in rows.to_pylist()]
        columns = {
            "key": self._keys.take(rows).cast(pa.binary()),
            "value": self._values.take(rows).cast(pa.binary()),
            **{f.name: each.take(rows) for f, each in zip(COORDINATES, self._coordinates, strict=True)},
            "reason": pa.array([reason for reason, _ in found], pa.string()),
            "detail": pa.array([detail for _, detail in found], pa.string()),
        }
        return pa.table(columns)


@dataclass(frozen=True)
class _Found:
    """What the scanner found for one column: one entry per row of the block."""

    data: Bytes
    kinds: npt.NDArray[np.int8]
    starts: Ints
    ends: Ints
    mantissas: Ints
    places: npt.NDArray[np.int8]


class _Reader:
    """Turns what was scanned for one column into an Arrow array, clearing `vouched` where it cannot."""

    def __init__(self, contract: EventContract, column: Column, found: _Found, vouched: Flags) -> None:
        self._contract, self._column, self._found, self._vouched = contract, column, found, vouched

    def read(self) -> pa.Array:
        """Return the column; rows that are no longer vouched for hold anything."""
        role = self._column.role
        if role in ("transaction id", "entity"):
            return self._ids()
        if role == "event time":
            return self._times()
        if role == "untrusted text":
            return self._texts()
        if pa.types.is_string(self._column.type):
            return self._strings()
        return self._booleans() if pa.types.is_boolean(self._column.type) else self._numbers()

    def _keep(self, fit: Flags) -> Flags:
        """Vouch only for fit rows, or null ones where null is allowed; return the fit ones."""
        kinds = self._found.kinds
        if self._column.required:
            self._vouched &= fit
        else:
            self._vouched &= fit | (kinds == json_scan.MISSING) | (kinds == json_scan.NULL)
        return fit & self._vouched

    def _ids(self) -> pa.Array:
        found = self._found
        wanted = found.kinds == json_scan.INTEGER
        if self._column.json_type == "string":
            wanted |= found.kinds == json_scan.STRING
        return self._slices(self._keep(wanted & (found.ends > found.starts)))

    def _strings(self) -> pa.Array:
        return self._slices(self._keep(self._found.kinds == json_scan.STRING))

    def _texts(self) -> pa.Array:
        longest = self._contract.untrusted_text[self._column.name].max_length
        short = self._found.ends - self._found.starts <= longest
        return self._slices(self._keep((self._found.kinds == json_scan.STRING) & short))

    def _booleans(self) -> pa.Array:
        kinds = self._found.kinds
        present = self._keep((kinds == json_scan.TRUE) | (kinds == json_scan.FALSE))
        return pa.array(kinds == json_scan.TRUE, mask=~present)

    def _numbers(self) -> pa.Array:
        found = self._found
        fit = found.kinds == json_scan.INTEGER
        if pa.types.is_integer(self._column.type):
            return pa.array(found.mantissas, mask=~self._keep(fit))
        fit |= found.kinds == json_scan.DECIMAL
        if self._column.role == "amount":
            fit &= found.mantissas >= 0
        return pa.array(self._floats(), mask=~self._keep(fit))

    def _floats(self) -> npt.NDArray[np.float64]:
        values = np.empty(len(self._found.mantissas))
        json_scan.to_floats(self._found.mantissas, self._found.places, _POWERS, values)
        return values

    def _times(self) -> pa.Array:
        time = self._contract.event_time
        if time.format == "epoch":
            micros, good = self._epoch_times()
        elif time.format == "iso8601":
            micros, good = self._iso_times()
        else:
            micros, good = np.zeros(len(self._vouched), np.int64), np.zeros(len(self._vouched), np.bool_)
        self._keep(good)
        return pa.array(micros).cast(UTC_MICROS)

    def _iso_times(self) -> tuple[Ints, Flags]:
        found, count = self._found, len(self._vouched)
        micros, good = np.zeros(count, np.int64), np.zeros(count, np.bool_)
        present = self._vouched & (found.kinds == json_scan.STRING)
        naive_is_utc = self._contract.event_time.zone == "UTC"
        json_scan.iso_times(found.data, found.starts, found.ends, present, naive_is_utc, micros, good)
        return micros, good

    def _epoch_times(self) -> tuple[Ints, Flags]:
        """Whole numbers only; a fraction is left to the exact decoder's arithmetic."""
        time, found = self._contract.event_time, self._found
        unit = NANOSECONDS[time.unit]
        within = np.abs(found.mantissas) < _INT64 // 4 // max(unit, 1_000)
        good = (found.kinds == json_scan.INTEGER) & within
        micros = np.where(good, found.mantissas, 0) * unit // 1_000 + (time.epoch - _EPOCH) // _MICRO
        return micros, good

    def _slices(self, present: Flags) -> pa.Array:
        found = self._found
        offsets = np.empty(len(present) + 1, np.int64)
        json_scan.gather_sizes(found.starts, found.ends, present, offsets)
        out = np.empty(int(offsets[-1]), np.uint8)
        json_scan.gather_bytes(found.data, found.starts, present, offsets, out)
        nulls = None if present.all() else pa.array(present).buffers()[1]
        buffers = [nulls, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(out)]
        return pa.Array.from_buffers(pa.string(), len(present), buffers)


class ExactDecoder:
    """Decodes one record at a time: the definition of what an event means under a contract."""

    def __init__(self, contract: EventContract) -> None:
        self._contract = contract
        self._bounds = _time_bounds(contract)
        self._zone = ZoneInfo(contract.event_time.zone)

    def decode_one(self, value: bytes | None, stamp: int | None) -> dict[str, Any]:
        """Return the decoded columns by name, event time in microseconds since 1970 UTC.

        Args:
            value: the record's bytes.
            stamp: the broker's timestamp in microseconds since 1970 UTC.

        Raises:
            RejectedError: the record is not a transaction under the contract.
        """
        event, odd = _parse(value, self._contract.max_record_bytes)
        row: dict[str, Any] = {}
        for column in self._contract.columns:
            if column.source is None:
                row[column.name] = self._contract.currency.constant
            else:
                row[column.name] = self._value(column, _lookup(event, column.source))
        amount = _lookup(event, self._contract.amount.field)
        if any(each is not amount for each in odd):
            raise RejectedError("malformed_json", "NaN or Infinity")
        self._check_time(row["event_time"], stamp)
        return row

    def _value(self, column: Column, value: Any) -> Any:
        if value is None:
            if column.required:
                raise RejectedError("missing_field", column.source or column.name)
            return None
        return self._reader(column)(column, value)

    def _reader(self, column: Column) -> Callable[[Column, Any], Any]:
        if column.role in ("transaction id", "entity"):
            return _read_id
        if column.role == "event time":
            return self._read_time
        if column.role == "amount":
            return _read_amount
        if column.role == "untrusted text":
            return self._read_text
        return _READERS[column.json_type]

    def _read_text(self, column: Column, value: Any) -> str:
        return _read_string(column, value)[: self._contract.untrusted_text[column.name].max_length]

    def _read_time(self, column: Column, value: Any) -> int:
        time = self._contract.event_time
        try:
            if time.format == "epoch":
                return self._from_epoch(column, value)
            text = _read_string(column, value)
            moment = _from_iso(text) if time.format == "iso8601" else datetime.strptime(text, time.format)
            zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=self._zone)
            return (zoned - _EPOCH) // _MICRO
        except (ValueError, OverflowError):
            raise RejectedError("bad_time", column.source or "") from None

    def _from_epoch(self, column: Column, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RejectedError("mistyped_field", column.source or "")
        time = self._contract.event_time
        unit = NANOSECONDS[time.unit]
        since = value * unit // 1_000 if isinstance(value, int) else round(value * (unit / 1_000))
        micros = int(since) + (time.epoch - _EPOCH) // _MICRO
        if not -_INT64 <= micros < _INT64:
            raise RejectedError(*_ABSURD)
        return micros

    def _check_time(self, micros: int, stamp: int | None) -> None:
        earliest, latest, ahead = self._bounds
        if not earliest <= micros <= latest:
            raise RejectedError(*_ABSURD)
        if micros > (stamp or 0) + ahead:
            raise RejectedError(*_AHEAD)


_ABSURD: tuple[RejectionReason, str] = ("absurd_time", "outside the contract's bounds")
_AHEAD: tuple[RejectionReason, str] = ("time_ahead_of_broker", "later than the broker's clock allows")


def _parse(value: bytes | None, longest: int) -> tuple[dict[str, Any], list[float]]:
    """Parse one object; also return the NaN and Infinity tokens, which JSON does not know."""
    if value is None:
        raise RejectedError("null_value")
    if len(value) > longest:
        raise RejectedError("oversized_record", f"{len(value)} bytes, at most {longest}")
    odd: list[float] = []
    try:
        event = json.loads(value.decode("utf-8"), parse_constant=lambda token: _odd(odd, token))
    except UnicodeDecodeError:
        raise RejectedError("invalid_utf8") from None
    except (ValueError, RecursionError):
        raise RejectedError("malformed_json") from None
    if not isinstance(event, dict):
        raise RejectedError("not_an_object", type(event).__name__)
    return event, odd


def _odd(odd: list[float], token: str) -> float:
    odd.append(float(token))
    return odd[-1]


def _lookup(event: Mapping[str, Any], path: str) -> Any:
    if path in event or "." not in path:
        return event.get(path)
    found: Any = event
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _read_id(column: Column, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if column.json_type == "integer":
        raise RejectedError("mistyped_field", column.source or "")
    text = _read_string(column, value)
    if not text:
        raise RejectedError("mistyped_field", f"{column.source} is empty")
    return text


def _read_string(column: Column, value: Any) -> str:
    if not isinstance(value, str):
        raise RejectedError("mistyped_field", column.source or "")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise RejectedError("mistyped_field", f"{column.source} is not Unicode") from None
    return value


def _read_amount(column: Column, value: Any) -> float:
    number = _number(column, value, "bad_amount")
    if number < 0 or math.copysign(1.0, number) < 0:
        raise RejectedError("bad_amount", "negative")
    return number


def _read_float(column: Column, value: Any) -> float:
    return _number(column, value, "mistyped_field")


def _number(column: Column, value: Any, not_finite: RejectionReason) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RejectedError("mistyped_field", column.source or "")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RejectedError(not_finite, f"{column.source} is not finite")
    return number


def _read_integer(column: Column, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -_INT64 <= value < _INT64:
        raise RejectedError("mistyped_field", column.source or "")
    return value


def _read_boolean(column: Column, value: Any) -> bool:
    if not isinstance(value, bool):
        raise RejectedError("mistyped_field", column.source or "")
    return value


_READERS: Mapping[str, Callable[[Column, Any], Any]] = {
    "string": _read_string,
    "number": _read_float,
    "integer": _read_integer,
    "boolean": _read_boolean,
}


def _from_iso(text: str) -> datetime:
    """Accept a date and a time of day, as RFC 3339 has them; a bare date names no moment."""
    if len(text) < len("2026-01-01T00:00:00") or text[10] not in "T ":
        raise ValueError(text)
    return datetime.fromisoformat(text)


def _time_bounds(contract: EventContract) -> tuple[int, int, int]:
    time = contract.event_time
    return (time.earliest - _EPOCH) // _MICRO, (time.latest - _EPOCH) // _MICRO, time.max_ahead // _MICRO


def _names(names: Sequence[str]) -> tuple[Bytes, Ints]:
    encoded = [name.encode() for name in names]
    bounds = np.cumsum([0, *(len(name) for name in encoded)]).astype(np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), bounds


def _flat(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def _buffers(values: pa.Array) -> tuple[Bytes, Ints]:
    wide = values.cast(pa.large_binary())
    _, offsets, data = wide.buffers()
    bounds = np.frombuffer(offsets, np.int64)[wide.offset : wide.offset + len(wide) + 1]
    content = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    return read_only(content), np.ascontiguousarray(bounds)


def _valid_utf8(values: pa.Array) -> Flags:
    """Tell row by row, after a whole block failed."""
    plain = np.ones(len(values), np.bool_)
    for row, value in enumerate(values.to_pylist()):
        try:
            (value or b"").decode("utf-8")
        except UnicodeDecodeError:
            plain[row] = False
    return plain
