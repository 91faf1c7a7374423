"""Protobuf: what google's library says of a record is what its columns hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import message_factory
from hypothesis import given
from hypothesis import strategies as st

from schemas.contract import EventContract, load_contract
from schemas.errors import ConfigurationError
from schemas.schema_texts import SchemaText
from schemas.tables import FAULTS
from streaming.events.decode import Decoded, decode
from streaming.events.exact_decode import ExactDecoder
from streaming.events.exact_values import RejectedError
from streaming.events.protobuf_schema import message_at, message_by_name
from streaming.events.writer_schemas import NO_ID
from tests.unit.streaming.events.known_schemas import KnownSchemas
from tests.unit.streaming.events.test_decode import NOW, STAMP, bits, contract, records

PROTO = """
syntax = "proto3";
package a.b;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

message Other { string note = 1; }

message Payment {
  enum Currency { NONE = 0; EUR = 1; USD = 2; FAR = 9000; }
  message Card {
    string token = 1;
    optional string country = 2;
    Card issuer = 3;
    message Deep { int32 level = 1; }
    Deep deep = 4;
  }
  string id = 1;
  google.protobuf.Timestamp at = 2;
  double amount = 3;
  Currency currency = 4;
  Card card = 5;
  oneof device { int64 number = 6; string name = 7; Card chip = 8; }
  bool online = 9;
  google.protobuf.DoubleValue ratio = 10;
  float weight = 11;
  repeated Card lines = 12;
  repeated string tags = 13;
  repeated int32 packed = 14;
  map<string, string> labels = 15;
  sint64 balance = 16;
  fixed32 code = 17;
  sfixed64 moved = 18;
  uint64 serial = 19;
  bytes digest = 20;
  string memo = 2000;
}
"""
UNDER: dict[str, Any] = {
    "transaction_id": {"field": "id", "max_length": 40},
    "event_time": {"field": "at"},
    "entities": {"card": {"field": "card.token", "max_length": 40}},
    "extra": {
        "country": {"field": "card.country"},
        "issuer": {"field": "card.issuer.issuer.country", "max_length": 3},
        "level": {"field": "card.deep.level", "type": "integer"},
        "number": {"field": "number", "type": "integer"},
        "chip": {"field": "chip.token"},
        "online": {"field": "online", "type": "boolean"},
        "ratio": {"field": "ratio", "type": "float"},
        "weight": {"field": "weight", "type": "float"},
        "second": {"field": "lines[1].token"},
        "first": {"field": "lines[0].issuer.country"},
        "tag": {"field": "tags[1]"},
        "balance": {"field": "balance", "type": "integer"},
        "code": {"field": "code", "type": "integer"},
        "moved": {"field": "moved", "type": "integer"},
        "serial": {"field": "serial", "type": "integer"},
        "absent": {"field": "nowhere.at.all"},
    },
    "untrusted_text": {"memo": {"field": "memo", "max_length": 12}},
    "max_record_bytes": 4_000,
}
MESSAGE = {"schema": PROTO, "message": "a.b.Payment"}
PLAIN = contract(**UNDER, format={"protobuf": MESSAGE})
RARE = contract(
    **{
        **UNDER,
        "extra": {
            "label": {"field": "labels.a"},
            "digest": {"field": "digest"},
            "when": {"field": "at"},
            "seconds": {"field": "at.seconds", "type": "integer"},
            "packed": {"field": "packed[1]", "type": "integer"},
            "card_": {"field": "card"},
            "lines_": {"field": "lines"},
            "inner": {"field": "ratio.value", "type": "float"},
        },
        "format": {"protobuf": MESSAGE},
    }
)
REGISTERED = contract(**UNDER, format={"protobuf": {"registry": True}})
WRITER = message_factory.GetMessageClass(message_by_name(SchemaText(PROTO), "a.b.Payment"))
AT = datetime(2026, 7, 1, 12, 30, 0, 250_000, tzinfo=UTC)


def payment(**changes: Any) -> Any:
    card = {"token": "c1", "country": "DE", "issuer": {"issuer": {"country": "FR"}}, "deep": {"level": 3}}
    return WRITER(**{
        "id": "t1", "at": {"seconds": int(AT.timestamp()), "nanos": 250_000_999}, "amount": 12.34,
        "currency": 2, "card": card, "number": 17, "online": True, "ratio": {"value": 0.5}, "weight": 0.25,
        "lines": [{"issuer": {"country": "IT"}}, {"token": "second"}], "tags": ["a", "b"], "packed": [1, 2],
        "labels": {"a": "x"}, "balance": -5, "code": 7, "moved": -9, "serial": 11, "digest": b"\xff",
        "memo": "schön", **changes,
    })  # fmt: skip


def framed(number: int, head: bytes, payload: bytes) -> bytes:
    return b"\0" + number.to_bytes(4, "big") + head + payload


def check(taken: pa.Table, under: EventContract, registry: KnownSchemas | None = None) -> Decoded:
    """Compare every record with what the exact decoder says of it."""
    known = registry or KnownSchemas("PROTOBUF", {})
    decoded = decode(taken, under, NOW, known)
    one = {NO_ID: SchemaText(PROTO)} if registry is None else None
    exact = ExactDecoder(under, one or known.schemas("PROTOBUF", list(known.asked)))
    valid: list[dict[str, Any]] = []
    rejected: list[tuple[str, str]] = []
    for value in taken["value"].to_pylist():
        try:
            valid.append(exact.decode_one(value, STAMP))
        except RejectedError as fault:
            rejected.append((fault.reason, fault.detail))
    for name in (*(column.name for column in under.columns), FAULTS.name):
        expected = pa.array([each[name] for each in valid], decoded.valid.schema.field(name).type)
        assert bits(decoded.valid[name]) == bits(expected), name
    columns = (decoded.rejected[name].to_pylist() for name in ("reason", "detail"))
    assert list(zip(*columns, strict=True)) == rejected
    return decoded


def only_row(value: bytes, under: EventContract = PLAIN) -> dict[str, Any]:
    decoded = check(records([value]), under)
    row: dict[str, Any] = (decoded.valid.to_pylist() + decoded.rejected.to_pylist())[0]
    return row


@pytest.mark.long
def test_a_record_becomes_columns_without_a_detour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    row = decode(records([payment().SerializeToString()]), PLAIN, NOW).valid.to_pylist()[0]
    expected = {
        "transaction_id": "t1", "event_time": AT, "amount": 12.34, "currency": "USD", "card": "c1",
        "country": "DE", "issuer": "FR", "level": 3, "number": 17, "chip": None, "online": True,
        "ratio": 0.5, "weight": 0.25, "second": "second", "first": "IT", "tag": "b", "balance": -5,
        "code": 7, "moved": -9, "serial": 11, "absent": None, "memo": "schön",
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected


def test_what_is_absent_is_null_or_zero_as_its_type_says(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = WRITER(id="t", at={"seconds": 1_782_909_000}, card={"token": "c"}, currency=1).SerializeToString()
    assert check(records([bare]), PLAIN).valid.num_rows == 1
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    row = decode(records([bare]), PLAIN, NOW).valid.to_pylist()[0]
    assert (row["amount"], row["online"], row["weight"], row["serial"], row["memo"]) == (
        0.0,
        False,
        0.0,
        0,
        "",
    )
    assert (row["country"], row["number"], row["ratio"], row["level"]) == (None, None, None, None)


_text = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6), st.sampled_from(["", "x" * 50])
)
_int32, _int64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
_cards = st.recursive(
    st.fixed_dictionaries({}, optional={"token": _text, "country": _text, "deep": st.just({"level": 1})}),
    lambda inner: st.fixed_dictionaries({"issuer": inner}, optional={"token": _text, "country": _text}),
    max_leaves=4,
)
_times = st.builds(
    lambda seconds, nanos: {"seconds": seconds, "nanos": nanos},
    st.one_of(_int64, st.integers(1_500_000_000, 1_790_000_000)),
    st.one_of(_int32, st.integers(0, 999_999_999)),
)
_payments = st.fixed_dictionaries(
    {},
    optional={
        "id": _text, "at": _times, "amount": st.floats(), "currency": st.sampled_from([0, 1, 2, 3, 9000, -1]),
        "card": _cards, "number": _int64, "online": st.booleans(), "ratio": st.just({}),
        "weight": st.floats(width=32), "lines": st.lists(_cards, max_size=3),
        "tags": st.lists(_text, max_size=3), "packed": st.lists(_int32, max_size=3),
        "labels": st.dictionaries(st.sampled_from("abc"), _text), "balance": _int64,
        "code": st.integers(0, 2**32 - 1), "moved": _int64, "serial": st.integers(0, 2**64 - 1),
        "digest": st.binary(max_size=4), "memo": _text,
    },
).map(lambda changes: payment(**changes))  # fmt: skip


@st.composite
def _values(draw: st.DrawFn) -> bytes | None:
    """A record, several in one, one with bytes changed, cut off or added, or any bytes at all."""
    value: bytes = draw(_payments).SerializeToString()
    how = draw(st.integers(0, 8))
    if how <= 2:
        return value
    place = draw(st.integers(0, len(value)))
    odd = draw(st.binary(min_size=1, max_size=4))
    other = WRITER(
        **draw(st.sampled_from([{"name": "n"}, {"chip": {"token": "k"}}, {"number": 3}, {"id": "u"}]))
    )
    again = WRITER(card={"country": "CH"}, at={"nanos": 1}, lines=[{"token": "more"}], ratio={"value": 2})
    changed = [
        None,
        value[:place],
        value + odd,
        value[:place] + odd + value[place + len(odd) :],
        value + other.SerializeToString(),
        value + again.SerializeToString(),
    ]
    return changed[how - 3]


@pytest.mark.long
@given(st.lists(_values(), min_size=1, max_size=8))
def test_whatever_is_written_is_what_protobuf_says(values: list[bytes | None]) -> None:
    check(records(values), PLAIN)
    check(records(values), RARE)


@pytest.mark.long
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
def test_any_bytes_become_what_protobuf_says(values: list[bytes]) -> None:
    check(records(values), PLAIN)


@given(_payments)
def test_columns_hold_what_the_full_message_holds(message: Any) -> None:
    """The exact decoder parses by wanted fields alone: compare it with the message that was written."""
    row = check(records([message.SerializeToString()]), PLAIN).valid.to_pylist()
    for found in row:
        assert found["transaction_id"] == message.id
        assert found["amount"] == message.amount
        assert found["country"] == (message.card.country if message.card.HasField("country") else None)
        assert found["number"] == (message.number if message.HasField("number") else None)
        assert found["second"] == (message.lines[1].token if len(message.lines) > 1 else None)
        assert found["tag"] == (message.tags[1] if len(message.tags) > 1 else None)
        assert (found["balance"], found["code"], found["moved"]) == (
            message.balance,
            message.code,
            message.moved,
        )


def test_a_broken_text_costs_its_field_alone() -> None:
    value = payment().SerializeToString().replace("schön".encode(), b"sch\xff\xffn")
    row = only_row(value)
    assert (row["memo"], row["faults"]) == ("sch\ufffd\ufffdn", ["memo: broken characters replaced"])


def test_rare_types_are_read_too() -> None:
    row = only_row(payment().SerializeToString(), RARE)
    assert (row["label"], row["digest"], row["packed"], row["inner"]) == ("x", "/w==", 2, 0.5)
    assert (row["when"], row["seconds"]) == ("2026-07-01T12:30:00.250000Z", int(AT.timestamp()))
    assert row["faults"] == ["card_: not usable as string", "lines_: not usable as string"]


@pytest.mark.long
def test_each_record_names_its_message_and_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    older = PROTO.replace("string memo = 2000;", "").replace("message Other { string note = 1; }", "")
    registry = KnownSchemas("PROTOBUF", {1: older, 2: PROTO, 3: "no schema"})
    payload = payment().SerializeToString()
    values = [framed(1, b"\0", payload), framed(2, b"\2\2", payload), framed(1, b"\2\0", payload)]
    bad = [
        framed(2, b"\2\x0a", payload),
        framed(3, b"\0", payload),
        framed(4, b"\0", b""),
        b"",
        framed(2, b"", b""),
    ]
    decoded = check(records([*values, *bad]), REGISTERED, registry)
    assert decoded.valid["memo"].to_pylist() == ["", "schön", ""] or decoded.valid["memo"].null_count == 2
    assert decoded.rejected["reason"].to_pylist() == [
        *("unusable_schema", "unusable_schema", "unknown_schema", "missing_framing", "malformed_protobuf")
    ]
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    assert decode(records(values), REGISTERED, NOW, registry).valid.num_rows == 3


def test_messages_within_messages_have_places() -> None:
    text = SchemaText(PROTO)
    assert message_at(text, (1, 0, 0)).full_name == "a.b.Payment.Card.Deep"
    nested = message_factory.GetMessageClass(message_at(text, (1, 0)))(token="x").SerializeToString()
    under = contract(
        **{**UNDER, "transaction_id": {"field": "token"}, "extra": {}, "untrusted_text": {}},
        format={"protobuf": {"registry": True}},
    )
    decoded = check(records([framed(1, b"\4\2\0", nested)]), under, KnownSchemas("PROTOBUF", {1: PROTO}))
    assert decoded.rejected["reason"].to_pylist() == ["missing_field"]


def test_a_schema_file_stands_beside_the_contract(tmp_path: Path) -> None:
    (tmp_path / "payment.proto").write_text(PROTO)
    content = json.loads(contract(**UNDER).model_dump_json())
    content["format"] = {"protobuf": {"schema": "payment.proto", "message": "a.b.Payment"}}
    (tmp_path / "cards.json").write_text(json.dumps(content))
    loaded = load_contract(str(tmp_path / "cards.json"))
    assert only_row(payment().SerializeToString(), loaded)["transaction_id"] == "t1"
    assert EventContract.model_validate_json(loaded.model_dump_json()) == loaded


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"protobuf": {}}, "exactly one"),
        ({"protobuf": {"registry": True, "message": "a"}}, "belongs to 'schema'"),
        ({"protobuf": {"registry": True}, "avro": {"registry": True}}, "expected one format"),
    ],
)
def test_a_format_that_cannot_be_meant_is_refused(given_: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        contract(format=given_)


@pytest.mark.parametrize(
    ("text", "message"),
    [("message {", None), (PROTO, "a.b.Nothing"), ('import "x.proto";', None), ("", None)],
)
def test_a_schema_of_the_contract_that_cannot_be_used_is_its_own_fault(
    text: str, message: str | None
) -> None:
    under = contract(**UNDER, format={"protobuf": {"schema": text, "message": message}})
    with pytest.raises(ConfigurationError, match="schema"):
        decode(records([b""]), under, NOW)
