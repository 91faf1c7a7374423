"""Step 2: raw Kafka records to typed columns, without an exception for any bytes.

Rows that the compiled scanner vouches for become columns directly; every other row goes through
`ExactDecoder.decode_one`, which defines what an event means and why one is rejected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contract import EventContract
from schemas.tables import BATCH, COORDINATES, FAULTS, HEADERS, QUARANTINE, TOPIC_ID
from streaming.arrays.compilation import Flags, Ints
from streaming.events.aliases import with_aliases
from streaming.events.beside import Beside
from streaming.events.column_reader import ColumnReader
from streaming.events.exact_decode import ABSURD, AHEAD, STAMP_AHEAD, ExactDecoder, FilteredError
from streaming.events.exact_values import RejectedError
from streaming.events.filtered import NOTHING_FILTERED, LeftOut
from streaming.events.found import FieldFinder, Found
from streaming.events.id_columns import id_array
from streaming.events.made_ids import with_made_ids
from streaming.events.money_columns import ROLES, MoneyColumns
from streaming.events.record_formats import finder_of
from streaming.events.stamps import stamped_ahead, with_stamps
from streaming.events.time_columns import time_array, time_bounds
from streaming.events.writer_schemas import (
    NO_REGISTRY,
    NO_WRITERS,
    SchemaSource,
    key_writers_of,
    writers_of,
)

# A block's bytes stay in the processor's cache from one step to the next.
_BLOCK_ROWS = 16_384
_BLOCK_BYTES = 1 << 26
# No worker: the batch waits for every block and raises what it raised.
_THREADS = ThreadPoolExecutor(2, thread_name_prefix="decode")
_REJECTED = pa.schema([field for field in QUARANTINE if field not in (*BATCH, TOPIC_ID)])


@dataclass(frozen=True)
class Decoded:
    """A micro-batch split in three; every record is in exactly one of them.

    Attributes:
        valid: the contract's decoded columns, the Kafka coordinates and `faults`, see ExactDecoder.
        rejected: key, value, coordinates, reason code and a detail that quotes nothing of the record.
        filtered: coordinates of what the contract does not want, and why: `reason`.
    """

    valid: pa.Table
    rejected: pa.Table
    filtered: pa.Table

    def accepted(self) -> Decoded:
        """Return the same without what was rejected."""
        return replace(self, rejected=self.rejected.schema.empty_table())

    @classmethod
    def together(cls, parts: Sequence[Decoded]) -> Decoded:
        """Return several as one."""
        tables = zip(*((part.valid, part.rejected, part.filtered) for part in parts), strict=True)
        return cls(*(pa.concat_tables(each) for each in tables))


def decode(
    records: pa.Table,
    contract: EventContract,
    now: datetime,
    schemas: SchemaSource = NO_REGISTRY,
    *,
    from_file: bool = False,
) -> Decoded:
    """Decode a micro-batch.

    Args:
        records: columns key, value, headers, topic, partition, offset and timestamp (the broker's).
        contract: what the events mean.
        now: by the clock that judges stamps, see broker_clock; a record stamped further ahead than the
            contract allows an event to be ahead of the broker is rejected, since producers may set the stamp.
            A record without a stamp counts as stamped then.
        schemas: where the schemas of records come from that name theirs by an id.
        from_file: values are JSON made from a file's rows, whose columns are named like the fields.

    Raises:
        RetryableError: the schema registry is away.
    """
    records = with_stamps(records, now)
    ahead = stamped_ahead(records, contract, now)
    early = _rejected_ahead(records.filter(ahead))
    if early.num_rows:
        records = records.filter(pc.invert(ahead))
    writers = NO_WRITERS if from_file else writers_of(records, contract, schemas)
    keys = NO_WRITERS if from_file else key_writers_of(records, contract, schemas)
    finder = finder_of(contract, writers, keys, from_file=from_file)
    exact = ExactDecoder(contract, writers, keys, from_file=from_file)

    def decoded(block: pa.RecordBatch) -> Decoded:
        return _Block(block, contract, finder, exact).decode()

    blocks = list(_blocks(records))
    # A single one is decoded here: handing it over may take longer than decoding a few records.
    parts = list(map(decoded, blocks) if len(blocks) == 1 else _THREADS.map(decoded, blocks))
    valid, rejected = _valid_schema(contract).empty_table(), _REJECTED.empty_table()
    return Decoded(
        pa.concat_tables([valid, *(part.valid for part in parts)]),
        pa.concat_tables([rejected, early, *(part.rejected for part in parts)]),
        pa.concat_tables([NOTHING_FILTERED, *(part.filtered for part in parts)]),
    )


def _rejected_ahead(records: pa.Table) -> pa.Table:
    reason, detail = STAMP_AHEAD
    names = ("key", "value", "headers", "topic", "partition", "offset", "timestamp")
    columns = [records[name] for name in names]
    explained = [pa.repeat(text, records.num_rows) for text in (reason, detail)]
    arrays = [each.cast(field.type) for each, field in zip([*columns, *explained], _REJECTED, strict=True)]
    return pa.Table.from_arrays(arrays, schema=_REJECTED)


def _blocks(records: pa.Table) -> Iterator[pa.RecordBatch]:
    for block in records.combine_chunks().to_batches(max_chunksize=_BLOCK_ROWS):
        yield from _halved(block)


def _halved(block: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut a block of large records until what is read of it fits 32-bit offsets many times over."""
    middle = block.num_rows // 2
    if not middle or block["value"].nbytes <= _BLOCK_BYTES:
        yield block
        return
    yield from _halved(block.slice(0, middle))
    yield from _halved(block.slice(middle))


def _valid_schema(contract: EventContract) -> pa.Schema:
    return pa.schema([*contract.decoded_schema(), FAULTS])


class _Block:
    """One block of records on its way to columns."""

    def __init__(
        self, records: pa.RecordBatch, contract: EventContract, finder: FieldFinder, exact: ExactDecoder
    ) -> None:
        self._records, self._contract, self._finder, self._exact = records, contract, finder, exact
        self._columns = [each for each in contract.columns if each.source is not None or each.reshaped]
        self._rows = records.num_rows
        self._keys, self._values, self._headers = records["key"], records["value"], records["headers"]
        places = [records[name] for name in ("topic", "partition", "offset", "timestamp")]
        self._coordinates = [each.cast(field.type) for each, field in zip(places, COORDINATES, strict=True)]
        self._stamps = self._coordinates[3].cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        self._rejections: dict[int, tuple[str, str]] = {}
        self._left_out = LeftOut(self._rows)

    def decode(self) -> Decoded:
        arrays, settled = self._scan()
        exact, exact_rows = self._decode_exactly(np.flatnonzero(~settled & ~self._left_out.rows))
        self._check_times(arrays["event_time"], np.flatnonzero(settled))
        settled[list(self._rejections)] = False
        valid = self._valid(arrays, settled)
        if exact_rows:
            order = np.argsort(np.concatenate([np.flatnonzero(settled), exact_rows]))
            valid = pa.concat_tables([valid, exact]).take(pa.array(order))
        valid = with_made_ids(valid, self._contract.transaction_id, self._values, settled, exact_rows)
        return Decoded(valid, self._rejected(), self._left_out.table(self._coordinates))

    def _scan(self) -> tuple[dict[str, pa.Array], Flags]:
        """Return the columns as far as they are read at once, and which rows are right in all of them."""
        each, vouched = self._finder.find(self._records)
        found = dict(zip(self._contract.read_fields, each, strict=True))
        found = with_aliases(found, self._contract.aliases, vouched)
        self._left_out.judge(self._contract, self._values, found, vouched)
        return self._arrays(found, vouched), vouched

    def _arrays(self, found: Mapping[str, Found], vouched: Flags) -> dict[str, pa.Array]:
        arrays: dict[str, pa.Array] = {}
        plain, money = self._contract.has_plain_money, dict[str, Found]()
        ids = self._contract.reshaped_ids
        for column in self._columns:
            if column.role == "event time":
                arrays[column.name] = time_array(self._contract, found, vouched, self._stamps)
            elif column.reshaped:
                arrays[column.name] = id_array(column, ids[column.name], found, vouched)
            elif column.role in ROLES and not plain:
                money[column.name] = found[column.source or ""]
            else:
                of_column = found[column.source or ""]
                arrays[column.name] = ColumnReader(self._contract, column, of_column, vouched).read()
        return arrays if plain else arrays | MoneyColumns(self._contract, money, vouched).read()

    def _decode_exactly(self, rows: Ints) -> tuple[pa.Table, list[int]]:
        decoded: list[dict[str, Any]] = []
        kept: list[int] = []
        for row in rows.tolist():
            stamp = self._coordinates[3][row].value
            try:
                decoded.append(self._exact.decode_one(self._values[row].as_py(), stamp, self._beside(row)))
                kept.append(row)
            except FilteredError as fault:
                self._left_out.add(row, fault.reason)
            except RejectedError as fault:
                self._rejections[row] = (fault.reason, fault.detail)
        columns = self._contract.columns
        arrays = [pa.array([each[column.name] for each in decoded], column.type) for column in columns]
        taken = [each.take(pa.array(kept, pa.int64())) for each in self._coordinates]
        faults = pa.array([each[FAULTS.name] for each in decoded], FAULTS.type)
        schema = _valid_schema(self._contract)
        return pa.Table.from_arrays([*arrays, *taken, faults], schema=schema), kept

    def _beside(self, row: int) -> Beside:
        return Beside(self._keys[row].as_py(), self._headers[row].as_py(), self._coordinates[0][row].as_py())

    def _check_times(self, times: pa.Array, rows: Ints) -> None:
        micros = times.cast(pa.int64()).to_numpy(zero_copy_only=False)[rows]
        stamps = self._stamps[rows]
        earliest, latest, ahead = time_bounds(self._contract)
        absurd = (micros < earliest) | (micros > latest)
        for row in rows[absurd].tolist():
            self._rejections[row] = ABSURD
        for row in rows[~absurd & (micros > stamps + ahead)].tolist():
            self._rejections[row] = AHEAD

    def _valid(self, arrays: Mapping[str, pa.Array], settled: Flags) -> pa.Table:
        if self._contract.currency.constant is not None:
            arrays = {**arrays, "currency": pa.repeat(self._contract.currency.constant, self._rows)}
        columns = [arrays[column.name] for column in self._contract.columns]
        faults = pa.nulls(self._rows, FAULTS.type)
        schema = _valid_schema(self._contract)
        table = pa.Table.from_arrays([*columns, *self._coordinates, faults], schema=schema)
        return table if settled.all() else table.filter(pa.array(settled))

    def _rejected(self) -> pa.Table:
        rows = pa.array(sorted(self._rejections), pa.int64())
        found = [self._rejections[row] for row in rows.to_pylist()]
        columns = [
            self._keys.take(rows).cast(pa.binary()),
            self._values.take(rows).cast(pa.binary()),
            self._headers.take(rows).cast(HEADERS),
            *(each.take(rows) for each in self._coordinates),
            pa.array([reason for reason, _ in found], pa.string()),
            pa.array([detail for _, detail in found], pa.string()),
        ]
        return pa.Table.from_arrays(columns, schema=_REJECTED)
