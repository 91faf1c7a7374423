"""The alert: one table of fields from which the Arrow schema, the JSON Schema and the Kafka bytes derive.

`schemas.alert_table` builds a batch's rows for Delta, and `schemas.alert_documents` turns rows read back from
Delta into the bytes that go to Kafka.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import pyarrow as pa

from schemas.event_columns import PAYMENT, REFUND
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
CLASSIFICATION_SOURCES: tuple[ClassificationSource, ...] = get_args(ClassificationSource)
FALLBACK_REASONS: tuple[FallbackReason, ...] = get_args(FallbackReason)


class Reason(NamedTuple):
    """One exact share of a score: `contribution` in log-odds, `text` for a person to read."""

    name: str
    contribution: float
    text: str


_UTC_MICROS = pa.timestamp("us", tz="UTC")
REASON_TYPE = pa.struct(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("contribution", pa.float64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)
_ENTITIES_TYPE = pa.map_(pa.string(), pa.string())


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
    AlertField("entities", _ENTITIES_TYPE, "entity name to id, of those that the transaction has"),
    AlertField("amount", _FLOAT, "amount in `currency`"),
    AlertField("currency", _STRING, "currency code of the amount"),
    AlertField("event_time", _UTC_MICROS, "when the transaction took place"),
    AlertField("score", _FLOAT, "calibrated score", confined={"minimum": 0, "maximum": 1}),
    AlertField("log_odds", _FLOAT, "`base` plus the contributions"),
    AlertField("base", _FLOAT, "log-odds before any reason counts"),
    AlertField("own_evidence", _FLOAT, "nats the transaction shows by itself, whatever its entities did"),
    AlertField("reasons", pa.list_(REASON_TYPE), "what the score is made of, largest first"),
    AlertField("rules", pa.list_(_STRING), "names of the rules hit"),
    AlertField("classification", _STRING, "fraud typology", confined=_one_of(CATEGORIES)),
    AlertField("severity", _STRING, "how urgent it is", confined=_one_of(SEVERITIES)),
    AlertField("rationale", _STRING, "why, in a sentence"),
    AlertField(
        "classification_source",
        _STRING,
        "who classified it",
        confined=_one_of(CLASSIFICATION_SOURCES),
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
        "direction",
        _STRING,
        "whether it is a payment or a refund, where the contract knows refunds",
        nullable=True,
        later=True,
        confined=_one_of((PAYMENT, REFUND)),
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
