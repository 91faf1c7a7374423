"""The JSON Schema of a raw event, as a contract's columns describe it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schemas.event_columns import Column
from schemas.event_paths import steps_of
from schemas.event_sources import source_of
from schemas.money_fields import AmountField, CurrencyField

_MOST_ITEMS_DESCRIBED = 100


def event_json_schema(
    title: str, columns: Sequence[Column], amount: AmountField, currency: CurrencyField
) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a raw event.

    Args:
        title: the contract's name.
        columns: what the event is decoded to.
        amount: how amounts are written.
        currency: which currencies are taken.
    """
    root: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    apart: list[dict[str, Any]] = []
    as_it_stands = amount.is_plain and currency.is_plain and not any(x.role == "direction" for x in columns)
    for column, name in [(each, name) for each in columns for name in each.sources]:
        source = source_of(name)
        if source.part != "value":
            continue
        described = _property(column, amount)
        if column.role == "currency" and not as_it_stands:
            described = {"type": ["string", "integer"], "description": column.role}
        if len(steps_of(source.path)) > 1 or source.path in root["properties"]:
            apart.append(_either(source.path, described, required=column.required))
        else:
            root["properties"][source.path] = described
            root["required"] += [source.path] if column.required else []
    rules = {"allOf": apart} if apart else {}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **root, **rules}


def _either(path: str, described: dict[str, Any], *, required: bool) -> dict[str, Any]:
    """Describe a field with a path: the one of just that name where there is one, else the nested one."""
    return {
        "if": {"required": [path]},
        "then": _nested((path,), described, required=required),
        "else": _nested(steps_of(path), described, required=required),
    }


def _nested(steps: Sequence[str | int], described: dict[str, Any], *, required: bool) -> dict[str, Any]:
    head, *rest = steps
    inner = _nested(rest, described, required=required) if rest else described
    if isinstance(head, int):
        return _at_place(head, inner, required=required)
    within: dict[str, Any] = {"properties": {head: inner}}
    return {"type": "object", "required": [head], **within} if required else within


def _at_place(place: int, inner: dict[str, Any], *, required: bool) -> dict[str, Any]:
    """Describe an array by one of its items, which a schema can only say after all those before it."""
    within: dict[str, Any] = (
        {"prefixItems": [*[True] * place, inner]} if place < _MOST_ITEMS_DESCRIBED else {}
    )
    return {"type": "array", "minItems": place + 1, **within} if required else within


def _property(column: Column, amount: AmountField) -> dict[str, Any]:
    described: dict[str, Any] = {"type": column.json_type}
    if column.role in ("transaction id", "entity"):
        described["type"] = ["string", "integer"] if column.json_type == "string" else "integer"
        described |= {} if column.reshaped else {"minLength": 1}
    if column.role == "event time" and column.reshaped:
        described["type"] = ["string", "integer"]
    if column.max_length is not None and not column.reshaped:
        described["maxLength"] = column.max_length
    if column.role == "amount":
        described = _amount(amount)
    if column.role == "direction":
        described = {"type": ["string", "integer", "boolean"]}
    if not column.required:
        types = described["type"]
        described["type"] = [*(types if isinstance(types, list) else [types]), "null"]
    return {**described, "description": column.role}


def _amount(amount: AmountField) -> dict[str, Any]:
    if amount.format == "connect_decimal":
        return {"type": "string", "contentEncoding": "base64"}
    bounds: dict[str, Any] = {"minimum": 0} if amount.negative == "reject" else {}
    if amount.unit == "major":  # in minor units the largest amount depends on the currency
        bounds = {"minimum": -amount.most, **bounds, "maximum": amount.most}
    return {"type": ["number", "string"] if amount.format == "decimal" else "number", **bounds}
