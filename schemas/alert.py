"""The alert: one table of fields from which the Arrow schema, the JSON Schema and the Kafka bytes derive.

`alerts_table` builds a batch's rows for Delta, and `alert_documents` turns rows read back from Delta into the
bytes that go to Kafka, both by column; `alert_json` and `parse_alert` do it for one alert.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, pairwise
from typing import Any, Literal, NamedTuple, cast, get_args

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from schemas.rules import SEVERITIES

ALERT_VERSION = 1
ALERT_KIND = "transaction"
_ABSENCE = "absence."
_KIND_PATTERN = rf"^({ALERT_KIND}|absence\.[a-z][a-z0-9_]*)$"

Category = Literal[
    "unusual_spend",
    "velocity_abuse",
    "account_takeover",
    "card_testing",
    "new_entity_risk",
    "limit_breach",
    "likely_legitimate",
    "needs_review",
]
ClassificationSource = Literal["llm", "rules"]
FallbackReason = Literal[
    "timeout",
    "refused",
    "truncated",
    "wrong_id",
    "wrong_enum",
    "invalid_json",
    "evidence_mismatch",
    "unreachable",
    "rate_limited",
    "server_error",
    "rejected",
    "circuit_open",
    "over_budget",
    "internal_error",
    "policy",
    "llm_off",
    "deferred",
]

CATEGORIES: Mapping[Category, str] = {
    "unusual_spend": "amount far above what this entity usually sees",
    "velocity_abuse": "too many transactions in a short time",
    "account_takeover": "known entity suddenly acts in several unusual ways",
    "card_testing": "new entity probed with rapid transactions",
    "new_entity_risk": "entity hardly or never seen before",
    "limit_breach": "a fixed limit was exceeded",
    "likely_legitimate": "unusual, yet nothing points to fraud",
    "needs_review": "evidence is unclear",
}
FALLBACK_REASONS: tuple[FallbackReason, ...] = get_args(FallbackReason)


class Reason(NamedTuple):
    """One exact share of a score: `contribution` in log-odds, `text` for a person to read."""

    name: str
    contribution: float
    text: str


_UTC_MICROS = pa.timestamp("us", tz="UTC")
_REASON_TYPE = pa.struct(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("contribution", pa.float64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)
_REASONS_TYPE = pa.list_(_REASON_TYPE)
_ENTITIES_TYPE = pa.map_(pa.string(), pa.string())
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class AlertField:
    """One field of the alert: its Arrow type, its meaning and what its values are confined to.

    `later` ones were not there from the beginning: a table or document without them is still good.
    """

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False
    later: bool = False
    confined: Mapping[str, object] = field(default_factory=dict)


def _one_of(values: Iterable[str]) -> dict[str, object]:
    return {"enum": list(values)}


_STRING, _INT, _LONG, _FLOAT = pa.string(), pa.int32(), pa.int64(), pa.float64()
_FROM_ZERO: dict[str, object] = {"minimum": 0}

ALERT_FIELDS: tuple[AlertField, ...] = (
    AlertField("alert_version", _INT, "version of this layout", confined={"const": ALERT_VERSION}),
    AlertField(
        "alert_id", _STRING, "hash of agent, kind and transaction", confined={"pattern": "^[0-9a-f]{32}$"}
    ),
    AlertField(
        "kind",
        _STRING,
        "what raised it: the transaction itself, or a rule by what it waited for after it",
        confined={"pattern": _KIND_PATTERN},
    ),
    AlertField("agent", _STRING, "name of the agent that raised it"),
    AlertField("transaction_id", _STRING, "the transaction"),
    AlertField("entities", _ENTITIES_TYPE, "entity name to id"),
    AlertField("amount", _FLOAT, "amount in `currency`"),
    AlertField("currency", _STRING, "currency code of the amount"),
    AlertField("event_time", _UTC_MICROS, "when the transaction took place"),
    AlertField("score", _FLOAT, "calibrated score", confined={"minimum": 0, "maximum": 1}),
    AlertField("log_odds", _FLOAT, "`base` plus the contributions"),
    AlertField("base", _FLOAT, "log-odds before any reason counts"),
    AlertField("own_evidence", _FLOAT, "nats the transaction shows by itself, whatever its entities did"),
    AlertField("reasons", _REASONS_TYPE, "what the score is made of, largest first"),
    AlertField("rules", pa.list_(_STRING), "names of the rules hit"),
    AlertField("classification", _STRING, "fraud typology", confined=_one_of(CATEGORIES)),
    AlertField("severity", _STRING, "how urgent it is", confined=_one_of(SEVERITIES)),
    AlertField("rationale", _STRING, "why, in a sentence"),
    AlertField(
        "classification_source",
        _STRING,
        "who classified it",
        confined=_one_of(get_args(ClassificationSource)),
    ),
    AlertField(
        "fallback_reason",
        _STRING,
        "why the model did not classify it",
        nullable=True,
        confined=_one_of(FALLBACK_REASONS),
    ),
    AlertField("model", _STRING, "model that classified it", nullable=True),
    AlertField("prompt_id", _STRING, "prompt that was used", nullable=True),
    AlertField("prompt_version", _INT, "version of that prompt", nullable=True),
    AlertField(
        "evidence",
        pa.list_(_STRING),
        "what the model relied on, each as feature=value",
        nullable=True,
        later=True,
    ),
    AlertField("spec_version", _STRING, "version of the agent spec"),
    AlertField("rules_version", _STRING, "version of the rules"),
    AlertField("query_id", _STRING, "streaming query that read the transaction"),
    AlertField("batch_id", _LONG, "its micro-batch", confined=_FROM_ZERO),
    AlertField("sequence", _LONG, "the transaction's place in processing order", confined=_FROM_ZERO),
    AlertField("outbox_seq", _LONG, "gapless place in publishing order", confined=_FROM_ZERO),
    AlertField("revision", _INT, "1 first, 2 for the model's late answer", confined={"minimum": 1}),
    AlertField("created_at", _UTC_MICROS, "the batch's clock; of a late answer, when it came"),
    AlertField("rule_texts", pa.list_(_STRING), "what each of the rules hit says", nullable=True, later=True),
    AlertField(
        "passed_by",
        _LONG,
        "of an absence: `sequence` of the transaction whose event time made it certain",
        nullable=True,
        later=True,
        confined=_FROM_ZERO,
    ),
    AlertField(
        "clipped",
        pa.list_(_STRING),
        "fields that were cut because the alert was larger than the topic admits",
        nullable=True,
        later=True,
    ),
)

ALERTS = pa.schema([pa.field(each.name, each.type, each.nullable) for each in ALERT_FIELDS])
LATER_FIELDS = tuple(each.name for each in ALERT_FIELDS if each.later)
_NAMES = tuple(ALERTS.names)
_TIMES = tuple(each.name for each in ALERT_FIELDS if each.type == _UTC_MICROS)
_TEXT_LISTS = tuple(each.name for each in ALERT_FIELDS if each.type == pa.list_(_STRING))
_FLOATS = tuple(each.name for each in ALERT_FIELDS if each.type == _FLOAT)


def absence_kind(rule: str) -> str:
    """Return the kind of alerts by an absence rule, so that their ids are never those of other alerts."""
    return f"{_ABSENCE}{rule}"


def alert_id(agent: str, transaction_id: str, kind: str = ALERT_KIND) -> str:
    """Return the id every attempt gives to this alert: 32 hex digits of a SHA-256."""
    return alert_ids(agent, [transaction_id], kind)[0]


def alert_ids(agent: str, transaction_ids: Iterable[str], kind: str = ALERT_KIND) -> list[str]:
    """Return `alert_id` of each transaction. Agent and kind hold no line feed, so no two inputs meet."""
    prefix = hashlib.sha256(f"{agent}\n{kind}\n".encode())
    return [_continued(prefix, transaction_id) for transaction_id in transaction_ids]


def _continued(prefix: hashlib._Hash, text: str) -> str:
    digest = prefix.copy()
    digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def entities_array(columns: Mapping[str, Sequence[str] | pa.Array | pa.ChunkedArray]) -> pa.MapArray:
    """Turn one column of ids per entity into one map per row, in the mapping's order."""
    names = list(columns)
    arrays = [_flat(column, _STRING) for column in columns.values()]
    rows = len(arrays[0]) if arrays else 0
    order = pa.array([row + rows * column for row in range(rows) for column in range(len(names))], pa.int64())
    items = pa.concat_arrays(arrays).take(order) if arrays else pa.array([], _STRING)
    offsets = pa.array(range(0, rows * len(names) + 1, max(len(names), 1)), pa.int32())
    return pa.MapArray.from_arrays(offsets, pa.array(names * rows, _STRING), items)


def reasons_array(reasons: Sequence[Sequence[Reason]]) -> pa.ListArray:
    """Turn each row's reasons into one Arrow list column."""
    offsets = [0]
    for each in reasons:
        offsets.append(offsets[-1] + len(each))
    flat = list(chain.from_iterable(reasons))
    names, contributions, texts = zip(*flat, strict=True) if flat else ((), (), ())
    values = pa.StructArray.from_arrays(
        [pa.array(names, _STRING), pa.array(contributions, _FLOAT), pa.array(texts, _STRING)],
        fields=list(_REASON_TYPE),
    )
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=_REASONS_TYPE)


def alerts_table(columns: Mapping[str, Any], constants: Mapping[str, Any]) -> pa.Table:
    """Build a batch's alerts.

    Args:
        columns: values per row, by field; any of Arrow arrays, NumPy arrays and sequences.
        constants: one value for all rows, by field; version, kind, revision and what was not there from
            the beginning are given unless named.

    Returns:
        A table of schema `ALERTS`, rows in the order given.

    Raises:
        ValueError: a field is missing, unknown, given twice, null without leave, or not finite.
    """
    presumed = {
        "alert_version": ALERT_VERSION, "kind": ALERT_KIND, "revision": 1, **dict.fromkeys(LATER_FIELDS)
    }  # fmt: skip
    fixed = {**{name: value for name, value in presumed.items() if name not in columns}, **constants}
    _check_names(columns, fixed)
    rows = len(next(iter(columns.values())))
    arrays = [
        _flat(columns[name], ALERTS.field(name).type)
        if name in columns
        else _repeated(fixed[name], rows, ALERTS.field(name).type)
        for name in _NAMES
    ]
    return _checked(pa.Table.from_arrays(arrays, schema=ALERTS))


def _check_names(columns: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    given = [*columns, *fixed]
    wrong = sorted(set(given) ^ set(_NAMES)) or sorted({name for name in given if given.count(name) > 1})
    if wrong:
        raise ValueError(f"alert fields missing, unknown or given twice: {', '.join(wrong)}")


def _flat(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        return values if values.type == kind else values.cast(kind)
    return pa.array(values, kind)


def _repeated(value: Any, rows: int, kind: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), rows)


def _checked(table: pa.Table) -> pa.Table:
    for each in ALERT_FIELDS:
        if not each.nullable and table[each.name].null_count:
            raise ValueError(f"alert field {each.name!r} must not be null")
    for name in _FLOATS:
        if not pc.all(pc.is_finite(table[name])).as_py() and table.num_rows:
            raise ValueError(f"alert field {name!r} must be finite")
    return table


def alert_json(alert: Mapping[str, Any]) -> bytes:
    """Return the Kafka value of one alert: compact JSON in field order, times in UTC to the microsecond.

    Raises:
        KeyError: a field is missing.
    """
    document = {name: alert[name] for name in _NAMES}
    for name in _TIMES:
        document[name] = _time_text(document[name])
    document["entities"] = dict(document["entities"])
    document["reasons"] = [_reason_document(reason) for reason in document["reasons"]]
    return orjson.dumps(document)


def _time_text(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _reason_document(reason: Reason | Mapping[str, Any]) -> dict[str, Any]:
    return reason._asdict() if isinstance(reason, Reason) else dict(reason)


def alert_documents(table: pa.Table) -> list[bytes]:
    """Return `alert_json` of every row of a table of alerts, column by column for speed.

    Rows of a table from before a field was added have their documents as they were then.
    """
    names = [name for name in _NAMES if name in table.column_names or name not in LATER_FIELDS]
    columns = [_plain(name, _flat(table[name], ALERTS.field(name).type)) for name in names]
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


def parse_alert(document: bytes) -> dict[str, Any]:
    """Read one alert's Kafka value back: fields in order, times as UTC datetimes, reasons as `Reason`.

    Raises:
        ValueError: not JSON, a field is missing, or the version is another.
    """
    content = orjson.loads(document)
    if not isinstance(content, dict) or content.get("alert_version") != ALERT_VERSION:
        raise ValueError(f"expected an alert of version {ALERT_VERSION}")
    missing = [name for name in _NAMES if name not in content and name not in LATER_FIELDS]
    if missing:
        raise ValueError(f"alert without {', '.join(missing)}")
    alert: dict[str, Any] = {name: content.get(name) for name in _NAMES}
    for name in _TIMES:
        alert[name] = datetime.fromisoformat(alert[name])
    alert["reasons"] = [Reason(**reason) for reason in alert["reasons"]]
    return alert


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
