"""The columns that an event is decoded to, from which the Arrow, Spark and JSON types derive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from schemas.event_fields import ColumnType, ExtraField, TextField
from schemas.id_fields import EntityField, TransactionIdField
from schemas.money_fields import CurrencyField
from schemas.tables import UTC_MICROS
from schemas.time_fields import TimeField

Role = Literal[
    "transaction id",
    "event time",
    "amount",
    "currency",
    "direction",
    "entity",
    "extra",
    "untrusted text",
    "coordinate",
]

# How what an event holds becomes the value of a column.
Reading = Literal["id", "time", "amount", "currency", "direction", "text", "number", "integer", "boolean"]
_READINGS: Mapping[Role, Reading] = {
    "transaction id": "id",
    "entity": "id",
    "event time": "time",
    "amount": "amount",
    "currency": "currency",
    "direction": "direction",
}

ARROW_TYPES: Mapping[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "float": pa.float64(),
    "boolean": pa.bool_(),
}
SPARK_TYPES = {
    pa.string(): "STRING",
    pa.int64(): "BIGINT",
    pa.int32(): "INT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    UTC_MICROS: "TIMESTAMP",
}
_BY_TYPE: Mapping[pa.DataType, Reading] = {
    pa.string(): "text",
    pa.int64(): "integer",
    pa.float64(): "number",
    pa.bool_(): "boolean",
}
_JSON: Mapping[ColumnType, str] = {
    "string": "string",
    "integer": "integer",
    "float": "number",
    "boolean": "boolean",
}


DIRECTION, PAYMENT, REFUND = "direction", "payment", "refund"
REFERENCE_AMOUNT = "reference_amount"


@dataclass(frozen=True)
class Column:
    """One decoded column: where it comes from and what it is.

    `max_length` in characters bounds text: a longer id or currency is refused, any other text is cut. An id
    may be made of `more` fields than `source`; where it is `reshaped` it is not simply the text of one field.
    """

    name: str
    role: Role
    type: pa.DataType
    source: str | None
    json_type: str
    required: bool
    max_length: int | None = None
    more: tuple[str, ...] = ()
    reshaped: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """All fields that it is made of."""
        return () if self.source is None else (self.source, *self.more)

    @property
    def reading(self) -> Reading:
        """How it is read, which the compiled and the exact decoder agree on."""
        return _READINGS.get(self.role) or _BY_TYPE[self.type]


def id_column(name: str, each: TransactionIdField | EntityField) -> Column:
    """Return the column of a transaction's id or of an entity."""
    is_entity = isinstance(each, EntityField)
    role: Role = "entity" if is_entity else "transaction id"
    required = each.required if isinstance(each, EntityField) else each.made_of is None
    source, *more = each.sources or (None,)
    return Column(
        name, role, pa.string(), source, each.type, required, each.max_length, tuple(more), not each.is_plain
    )


def time_column(each: TimeField) -> Column:
    """Return the column of the event time."""
    source, *more = each.sources
    kind = "number" if each.format == "epoch" else "string"
    return Column(
        "event_time", "event time", UTC_MICROS, source, kind, True, more=tuple(more), reshaped=bool(more)
    )


def text_column(name: str, role: Role, each: CurrencyField | TextField, *, required: bool) -> Column:
    """Return a column of text, such as the currency."""
    return Column(name, role, pa.string(), each.field, "string", required, each.max_length)


def direction_column(field: str | None) -> Column:
    """Return the column that tells refunds from payments, by a field of the event if one is named."""
    return Column(DIRECTION, "direction", pa.string(), field, "string", required=False)


def extra_column(name: str, each: ExtraField) -> Column:
    """Return the column of a further typed field; only text has a greatest length."""
    longest = each.max_length if each.type == "string" else None
    return Column(name, "extra", ARROW_TYPES[each.type], each.field, _JSON[each.type], each.required, longest)
