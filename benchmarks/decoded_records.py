"""Payments as records of seven shapes, which decoding is measured on."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
import numpy as np
import orjson
from google.protobuf import message_factory

from schemas.contract import EventContract
from schemas.schema_texts import SchemaText
from streaming.events.protobuf_schema import message_by_name

AT = 1_780_000_000  # seconds since 1970, some days before
_SEED = 20_260_601
_AVRO = {
    "type": "record",
    "name": "Payment",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "amount", "type": "double"},
        *({"name": name, "type": "string"} for name in ("currency", "card")),
        {"name": "memo", "type": ["null", "string"]},
    ],
}
_PROTO = """
syntax = "proto3";
package bench;
message Payment {
  string id = 1;
  int64 at = 2;
  double amount = 3;
  string currency = 4;
  string card = 5;
  string memo = 6;
}
"""
Steps = tuple[str | int, ...]
_NESTED: dict[str, Steps] = {
    "id": ("header", "id"),
    "at": ("header", "created"),
    "amount": ("payment", "money", "value"),
    "currency": ("payment", "money", "currency"),
    "card": ("payment", "parties", 0, "account", "id"),
    "memo": ("remarks", 0, "text"),
}
_CHARGE: dict[str, Steps] = {
    "id": ("id",),
    "at": ("created",),
    "amount": ("amount",),
    "currency": ("currency",),
    "card": ("payment_method_details", "card", "fingerprint"),
    "memo": ("description",),
}


# What every charge has in common.
_CARD = {
    "brand": "visa",
    "checks": {"address_line1_check": None, "address_postal_code_check": "pass", "cvc_check": "pass"},
    "country": "US",
    "exp_month": 8,
    "exp_year": 2027,
    "funding": "credit",
    "last4": "4242",
    "network": "visa",
}
_BILLING = {
    "amount_refunded": 0,
    **dict.fromkeys(("application", "transfer", "dispute", "invoice", "review", "failure_code")),
    "balance_transaction": "txn_1032HU2eZvKYlo2CEPtcnUvl",
    "billing_details": {
        "address": dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state")),
        "email": "jenny.rosen@example.com",
        "name": "Jenny Rosen",
        "phone": None,
    },
    "captured": True,
}
_OUTCOME = {
    "fraud_details": {},
    "livemode": False,
    "metadata": {"order": "6735", "basket": "[1,2]"},
    "outcome": {"network_status": "approved", "risk_level": "normal", "risk_score": 35, "type": "authorized"},
    "paid": True,
    "payment_method": "pm_1032HU2eZvKYlo2CEPtcnUvl",
    "receipt_url": "https://pay.example.com/receipts/" + "a1B2" * 40,
    "refunds": {"object": "list", "data": [], "has_more": False, "url": "/v1/charges/ch_1/refunds"},
    "statement_descriptor": "EXAMPLE SHOP",
    "status": "succeeded",
}


@dataclass(frozen=True)
class Records:
    """Records of one shape.

    Attributes:
        name: how figures are named.
        paths: where a payment's id, time, amount, currency, card and memo lie.
        values: as they come.
        parse: what the other side makes of one, dictionaries and lists.
        formats: what the contract says beside the paths.
    """

    name: str
    paths: Mapping[str, Steps]
    values: Sequence[bytes]
    parse: Callable[[bytes], Any]
    formats: Mapping[str, Any]

    @property
    def contract(self) -> EventContract:
        """What their fields mean."""
        fields = {name: _written(path) for name, path in self.paths.items()}
        return EventContract.model_validate(
            {
                "name": self.name,
                "version": 1,
                "transaction_id": {"field": fields["id"]},
                "event_time": {"field": fields["at"], "format": "epoch", "unit": "s"},
                "amount": {"field": fields["amount"]},
                "currency": {"field": fields["currency"]},
                "entities": {"card": {"field": fields["card"]}},
                "untrusted_text": {"memo": {"field": fields["memo"], "max_length": 200}},
                "duplicates": {"horizon": "1h"},
                **self.formats,
            }
        )


def _written(path: Steps) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def shapes(events: int) -> Iterator[Records]:
    """Yield records of every shape, of the same payments."""
    payments = list(_payments(events))
    plain: dict[str, Steps] = {name: (name,) for name in payments[0]}
    for name, memo, extra in (
        ("flat", "lunch", {}),
        ("escaped", 'café "No. 7"', {}),
        ("array", "lunch", {"tags": ["new", 3, {"seen": [1, 2]}]}),
    ):
        values = [json.dumps({**each, "memo": memo, **extra}).encode() for each in payments]
        yield Records(name, plain, values, orjson.loads, {})
    for name, shape, paths in (("nested", _nested, _NESTED), ("charge", _charge, _CHARGE)):
        yield Records(name, paths, [json.dumps(shape(each)).encode() for each in payments], orjson.loads, {})
    yield _avro(payments, plain)
    yield _protobuf(payments, plain)


def _payments(count: int) -> Iterator[dict[str, Any]]:
    draw = np.random.default_rng(_SEED)
    cents, cards = draw.integers(100, 10**6, count).tolist(), draw.integers(0, 50_000, count).tolist()
    for number, (amount, card) in enumerate(zip(cents, cards, strict=True)):
        yield {
            "id": f"tx-{number:012d}",
            "at": AT + number // 1_000,
            "amount": amount / 100,
            "currency": "EUR",
            "card": f"card-{card:06d}",
            "memo": "lunch",
        }


def _nested(payment: Mapping[str, Any]) -> dict[str, Any]:
    """Three levels with arrays, some 1.2 kB."""
    party = {"name": "A. N. Other", "address": {"street": "1 High Street", "city": "Zürich", "post": "8001"}}
    line = {"sku": "SKU-000000001", "count": 1, "price": {"value": 12.5, "tax": 0.08}, "tags": ["a", "b"]}
    return {
        "header": {
            "id": payment["id"],
            "created": payment["at"],
            "source": {"system": "pos", "site": "ch-07"},
        },
        "payment": {
            "money": {"value": payment["amount"], "currency": payment["currency"]},
            "parties": [
                {"role": "payer", "account": {"id": payment["card"], "kind": "card"}, **party},
                {"role": "payee", "account": {"id": "m-1", "kind": "shop"}, **party},
            ],
            "lines": [line] * 6,
        },
        "remarks": [{"text": payment["memo"]}],
    }


def _charge(payment: Mapping[str, Any]) -> dict[str, Any]:
    """A card charge as a payment provider's API gives it, some 1.85 kB."""
    card = {**_CARD, "fingerprint": payment["card"]}
    return {
        "id": payment["id"],
        "object": "charge",
        "amount": payment["amount"],
        "amount_captured": payment["amount"],
        **_BILLING,
        "created": payment["at"],
        "currency": payment["currency"],
        "description": payment["memo"],
        **_OUTCOME,
        "payment_method_details": {"card": card, "type": "card"},
        "source": {**card, "object": "card", "name": None, "metadata": {}, "customer": None},
    }


def _avro(payments: Sequence[Mapping[str, Any]], paths: Mapping[str, Steps]) -> Records:
    schema = fastavro.parse_schema(_AVRO)

    def written(payment: Mapping[str, Any]) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, {**payment, "at": payment["at"] * 1_000})
        return out.getvalue()

    def parse(value: bytes) -> Any:
        return fastavro.schemaless_reader(io.BytesIO(value), schema, None)

    formats = {"format": {"avro": {"schema": json.dumps(_AVRO)}}}
    return Records("avro", paths, [written(each) for each in payments], parse, formats)


def _protobuf(payments: Sequence[Mapping[str, Any]], paths: Mapping[str, Steps]) -> Records:
    message = message_factory.GetMessageClass(message_by_name(SchemaText(_PROTO), "bench.Payment"))

    def parse(value: bytes) -> Any:
        read = message.FromString(value)
        return {name: getattr(read, name) for name in paths}

    formats = {"format": {"protobuf": {"schema": _PROTO, "message": "bench.Payment"}}}
    return Records(
        "protobuf", paths, [message(**each).SerializeToString() for each in payments], parse, formats
    )
