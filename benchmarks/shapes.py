"""The shapes of events that throughput is measured on: how they are sent, meant, and read by Spark alone."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pyspark.sql import Column
from pyspark.sql import functions as sql
from pyspark.sql.avro.functions import from_avro

from schemas.contract import CONTRACTS
from streaming.events.simulated_json import json_lines, json_rows
from streaming.events.simulator import SimulatedBlock

_PATHS = {
    "tx_id": "tx.id",
    "event_time": "tx.at",
    "amount": "tx.money.amount",
    "currency": "tx.money.currency",
    "customer_id": "parties[0].id",
    "terminal_id": "parties[1].id",
    "merchant_category": "tx.category",
    "country": "tx.country",
    "memo": "text",
}
_NESTED = (
    "tx STRUCT<id: STRING, at: TIMESTAMP, category: STRING, country: STRING, "
    "money: STRUCT<amount: DOUBLE, currency: STRING>>, parties ARRAY<STRUCT<id: STRING>>, text STRING"
)
_AVRO = {
    "type": "record",
    "name": "Payment",
    "fields": [
        {"name": "tx_id", "type": "string"},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "amount", "type": "double"},
        {"name": "currency", "type": "string"},
        *({"name": name, "type": "string"} for name in ("customer_id", "terminal_id")),
        *({"name": name, "type": ["null", "string"]} for name in ("merchant_category", "country", "memo")),
    ],
}


@dataclass(frozen=True)
class Shape:
    """One shape of events.

    Attributes:
        name: how figures are named.
        paths: by field of the simulator's contract, the path to it.
        formats: the contract's `format`.
        values: the records to send of a simulated block.
        parsed: what Spark alone makes of a record's value, a struct with the fields at `paths`.
    """

    name: str
    paths: Mapping[str, str]
    formats: Mapping[str, Any]
    values: Callable[[SimulatedBlock], Sequence[bytes]]
    parsed: Callable[[Column], Column]

    def contract(self, folder: Path) -> str:
        """Write the simulator's contract for this shape; return its file."""
        content = yaml.safe_load((CONTRACTS / "simulator.yaml").read_text(encoding="utf-8"))
        written = json.loads(json.dumps(content), object_hook=self._placed)
        path = folder / f"{self.name}.yaml"
        path.write_text(yaml.safe_dump({**written, **self.formats}), encoding="utf-8")
        return str(path)

    def _placed(self, each: dict[str, Any]) -> dict[str, Any]:
        return {**each, "field": self.paths[each["field"]]} if "field" in each else each


def _flat_value(value: Column) -> Column:
    types = {"event_time": "TIMESTAMP", "amount": "DOUBLE"}
    ddl = ", ".join(f"{name} {types.get(name, 'STRING')}" for name in _PATHS)
    return sql.from_json(value.cast("string"), ddl)


def _nested_values(block: SimulatedBlock) -> Sequence[bytes]:
    """Nest the events, and have their memos hold what JSON escapes."""
    events = {name: block.events[name].combine_chunks() for name in _PATHS}
    memo = pc.binary_join_element_wise(pc.fill_null(events["memo"], "none"), ' "é"\n', "")
    money = pa.StructArray.from_arrays([events["amount"], events["currency"]], ["amount", "currency"])
    inner = [events[name] for name in ("tx_id", "event_time", "merchant_category", "country")]
    tx = pa.StructArray.from_arrays([*inner, money], ["id", "at", "category", "country", "money"])
    parties = pa.StructArray.from_arrays(
        [pa.array(_alternating(events["customer_id"], events["terminal_id"]))], ["id"]
    )
    offsets = pa.array(range(0, len(parties) + 1, 2), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, parties)
    lines = json_rows(pa.table({"tx": tx, "parties": lists, "text": memo}))
    return [lines[row] for row in block.sends.tolist()]


def _alternating(first: pa.Array, second: pa.Array) -> list[str]:
    return [each for pair in zip(first.to_pylist(), second.to_pylist(), strict=True) for each in pair]


def _avro_values(block: SimulatedBlock) -> Sequence[bytes]:
    schema, lines = fastavro.parse_schema(_AVRO), []
    times = pc.strptime(pc.utf8_slice_codeunits(block.events["event_time"], 0, 19), "%Y-%m-%dT%H:%M:%S", "us")
    micros = times.cast(pa.int64()).to_pylist()
    for row, at in zip(block.events.to_pylist(), micros, strict=True):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, {**row, "event_time": at})
        lines.append(out.getvalue())
    return [lines[row] for row in block.sends.tolist()]


SHAPES = (
    Shape("flat", {name: name for name in _PATHS}, {}, json_lines, _flat_value),
    Shape("nested", _PATHS, {}, _nested_values, lambda value: sql.from_json(value.cast("string"), _NESTED)),
    Shape(
        "avro",
        {name: name for name in _PATHS},
        {"format": {"avro": {"schema": json.dumps(_AVRO)}}},
        _avro_values,
        lambda value: from_avro(value, json.dumps(_AVRO)),
    ),
)
