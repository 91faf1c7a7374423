"""Records of a labels topic, brought to labels; what holds none goes to a table of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow as pa
from confluent_kafka import Message

from schemas.label import GIVEN
from schemas.tables import COORDINATES, LABELS_QUARANTINE, QUARANTINE, RECORDED_AT
from streaming.kafka.topic import headers_of
from streaming.labels.label_parsing import json_columns, parse_labels
from streaming.labels.recorded import rejects_table, sound_labels

ORIGIN = "labels"
_BAD_LABEL = "bad_label"
_LATEST_MS = 253_402_300_799_999  # the end of the year 9999
_FIELDS = {name: name for name in GIVEN.names if name != "source_position"}
_SURPRISES = (
    ArithmeticError, LookupError, SystemError, TypeError, ValueError,
    pl.exceptions.PolarsError, pl.exceptions.PanicException,
)  # fmt: skip


def read_labels(
    messages: Sequence[Message], by: str, now: datetime, through: int
) -> tuple[pa.Table, pa.Table]:
    """Return labels of schema `GIVEN` and the rest in `LABELS_QUARANTINE`, both in offset order.

    Where reading fails for a reason that nobody has foreseen, each record is read alone, and one that fails
    alone is a reject: no record keeps others from being read.

    Args:
        messages: of one partition.
        by: who decided where a record does not say.
        now: when they are read.
        through: the last offset that these records account for.
    """
    try:
        return _read(messages, by, now, through)
    except _SURPRISES:
        labels, rejected = zip(*(_read_alone(each, by, now, through) for each in messages), strict=True)
        return pa.concat_tables(labels), pa.concat_tables(rejected)


def _read_alone(message: Message, by: str, now: datetime, through: int) -> tuple[pa.Table, pa.Table]:
    try:
        return _read([message], by, now, through)
    except _SURPRISES as fault:
        unreadable = {"source_position": [message.offset() or 0], "reason": [type(fault).__name__]}
        rejects = rejects_table(pl.DataFrame(unreadable))
        return GIVEN.empty_table(), _quarantined(_records([message]), rejects, through, now)


def _read(messages: Sequence[Message], by: str, now: datetime, through: int) -> tuple[pa.Table, pa.Table]:
    offsets = [message.offset() or 0 for message in messages]
    said, unreadable = json_columns([message.value() for message in messages], offsets, _FIELDS)
    labels, unparsed = parse_labels(said, by)
    records = _records(messages)
    labels, unsound = sound_labels(_dated(labels, records), now)
    rejects = pa.concat_tables([rejects_table(unreadable), unparsed, unsound])
    return labels, _quarantined(records, rejects, through, now)


def _records(messages: Sequence[Message]) -> pl.DataFrame:
    """Return the records as they came, in the quarantine's columns."""
    schema = pa.schema([*(QUARANTINE.field(name) for name in ("key", "value", "headers")), *COORDINATES])
    rows = [(m.key(), m.value(), _headers(m), *_place(m)) for m in messages]
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(values, kind) for values, kind in zip(columns, schema.types, strict=True)]
    return pl.DataFrame(pa.Table.from_arrays(arrays, schema=schema))


def _headers(message: Message) -> list[dict[str, Any]] | None:
    return [{"key": name, "value": value} for name, value in headers_of(message)] or None


def _place(message: Message) -> tuple[Any, ...]:
    stamp = min(max(message.timestamp()[1], 0), _LATEST_MS) * 1_000  # whoever sends a record may stamp it
    return message.topic(), message.partition(), message.offset(), stamp


def _dated(labels: pa.Table, records: pl.DataFrame) -> pa.Table:
    """Date the undated ones by Kafka's timestamp, which is the same whenever they are read."""
    stamps = records.select(pl.col("offset").alias("source_position"), "kafka_timestamp")
    rows = pl.DataFrame(labels).join(stamps, on="source_position", how="left", maintain_order="left")
    dated = rows.with_columns(pl.col("decided_at").fill_null(pl.col("kafka_timestamp")))
    return dated.select(GIVEN.names).to_arrow().cast(GIVEN)


def _quarantined(records: pl.DataFrame, rejects: pa.Table, through: int, now: datetime) -> pa.Table:
    reasons = pl.DataFrame(rejects).rename({"source_position": "offset", "reason": "detail"})
    rows = records.join(reasons, on="offset", how="inner").sort("offset")
    marks: Mapping[str, pl.Expr] = {
        "reason": pl.lit(_BAD_LABEL),
        "query_id": pl.lit(ORIGIN),
        "batch_id": pl.lit(through, pl.Int64),
        RECORDED_AT.name: pl.lit(now, pl.Datetime("us", "UTC")),
    }
    ordered = rows.with_columns(**marks).select(LABELS_QUARANTINE.names).to_arrow()
    columns = [ordered[field.name].cast(field.type) for field in LABELS_QUARANTINE]
    return pa.Table.from_arrays(columns, schema=LABELS_QUARANTINE)
