"""Alerts as the documents that go to Kafka, and their JSON Schema."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, cast

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from schemas.alert import ALERT_FIELDS, ALERT_VERSION, ALERTS, LATER_FIELDS, AlertField, Reason
from schemas.alert_table import column_of

_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_TIMES = tuple(each.name for each in ALERT_FIELDS if pa.types.is_timestamp(each.type))
_TEXT_LISTS = tuple(each.name for each in ALERT_FIELDS if each.type == pa.list_(pa.string()))


def alert_documents(table: pa.Table) -> list[bytes]:
    """Return the Kafka value of each alert: compact JSON in field order, times in UTC to the microsecond.

    Rows of a table from before a field was added have their documents as they were then.
    """
    names = [name for name in ALERTS.names if name in table.column_names or name not in LATER_FIELDS]
    columns = [_plain(name, column_of(table[name], ALERTS.field(name).type)) for name in names]
    return [orjson.dumps(dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def _plain(name: str, values: pa.Array) -> list[Any]:
    if name in _TIMES:
        return _values(pc.strftime(values, format=_TIME_FORMAT))
    if name == "reasons":
        return _plain_reasons(values)
    if name == "entities":
        keys, items = _values(values.keys), _values(values.items)
        return [dict(zip(keys[a:b], items[a:b], strict=True)) for a, b in _bounds(values)]
    if name in _TEXT_LISTS and not values.null_count:
        texts = _values(values.values)
        return [texts[start:end] for start, end in _bounds(values)]
    return _values(values)


def _values(values: pa.Array) -> list[Any]:
    """Do what `to_pylist` does, several times faster where NumPy can hold the values as they are."""
    if values.null_count and not pa.types.is_string(values.type):
        return cast("list[Any]", values.to_pylist())
    return cast("list[Any]", values.to_numpy(zero_copy_only=False).tolist())


def _plain_reasons(values: pa.ListArray) -> list[list[dict[str, Any]]]:
    parts = (_values(values.values.field(name)) for name in Reason._fields)
    flat = [
        {"name": name, "contribution": contribution, "text": text}
        for name, contribution, text in zip(*parts, strict=True)
    ]
    return [flat[start:end] for start, end in _bounds(values)]


def _bounds(values: pa.ListArray | pa.MapArray) -> Iterable[tuple[int, int]]:
    offsets = _values(values.offsets)
    return pairwise(offsets)


def alert_json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of one alert on the topic."""
    properties = {each.name: _property(each) for each in ALERT_FIELDS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"flagstream alert, version {ALERT_VERSION}",
        "type": "object",
        "additionalProperties": False,
        "required": [name for name in properties if name not in LATER_FIELDS],
        "properties": properties,
    }


def _property(each: AlertField) -> dict[str, Any]:
    described = {**_json_type(each.type), "description": each.meaning, **each.confined}
    if each.nullable:
        described["type"] = [described["type"], "null"]
        if "enum" in described:
            described["enum"] = [*described["enum"], None]
    return described


def _json_type(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        return {"type": "array", "items": _json_type(kind.value_type)}
    if pa.types.is_map(kind):
        return {"type": "object", "additionalProperties": _json_type(kind.item_type)}
    if pa.types.is_struct(kind):
        parts = {part.name: _json_type(part.type) for part in kind}
        return {"type": "object", "additionalProperties": False, "required": list(parts), "properties": parts}
    if pa.types.is_timestamp(kind):
        return {"type": "string", "format": "date-time"}
    if pa.types.is_floating(kind):
        return {"type": "number"}
    return {"type": "integer"} if pa.types.is_integer(kind) else {"type": "string"}
