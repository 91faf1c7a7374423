"""The label: one table of fields from which the Arrow and Delta schemas and the JSON Schema derive.

A label says whether one transaction is a fraud, as one decider found. What a file or a topic says is a
table of schema `GIVEN`; what is kept is a table of schema `LABELS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from schemas.tables import UTC_MICROS


@dataclass(frozen=True)
class LabelField:
    """One field of a label.

    Attributes:
        nullable: may be null once stored.
        sent: part of what a file or a topic says; the others are given when the label is stored.
        required: without it there is no label; the other sent fields may be left out.
    """

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False
    sent: bool = False
    required: bool = False


LABEL_FIELDS: tuple[LabelField, ...] = (
    LabelField("label_sequence", pa.int64(), "gapless place in order of recording, from 0"),
    LabelField("transaction_id", pa.string(), "the transaction", sent=True, required=True),
    LabelField("is_fraud", pa.bool_(), "whether the transaction is a fraud", sent=True, required=True),
    LabelField("kind", pa.string(), "kind of fraud, where known", nullable=True, sent=True),
    LabelField("decided_at", UTC_MICROS, "when the analyst or the chargeback decided", sent=True),
    LabelField("decided_by", pa.string(), "who decided", sent=True),
    LabelField("recorded_at", UTC_MICROS, "when it was stored here"),
    LabelField("source", pa.string(), "the file's name, or topic/partition"),
    LabelField("source_position", pa.int64(), "row from 1, offset, or number of a closing", nullable=True),
)

LABELS = pa.schema([pa.field(each.name, each.type, each.nullable) for each in LABEL_FIELDS])
GIVEN = pa.schema(
    [pa.field(each.name, each.type) for each in LABEL_FIELDS if each.sent]
    + [LABELS.field("source_position").with_nullable(True)]
)
LABEL_REJECTS = pa.schema(
    [
        pa.field("source_position", pa.int64()),
        pa.field("reason", pa.string(), nullable=False),
    ]
)

_JSON_TYPES = {pa.string(): "string", pa.bool_(): "boolean", UTC_MICROS: "string"}


def label_json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of one label on the topic, for whoever sends them."""
    sent = [each for each in LABEL_FIELDS if each.sent]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "flagstream label",
        "type": "object",
        "required": [each.name for each in sent if each.required],
        "properties": {each.name: _property(each) for each in sent},
    }


def _property(each: LabelField) -> dict[str, Any]:
    kind = _JSON_TYPES[each.type]
    described: dict[str, Any] = {
        "type": kind if each.required else [kind, "null"],
        "description": each.meaning,
    }
    if pa.types.is_timestamp(each.type):
        described["format"] = "date-time"
    if each.required and kind == "string":
        described["minLength"] = 1
    return described
