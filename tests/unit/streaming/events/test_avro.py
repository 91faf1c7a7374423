"""Avro: what fastavro says of a record is what its columns hold, whatever the writer's schema."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.contract import EventContract, load_contract
from schemas.errors import ConfigurationError
from schemas.schema_texts import SchemaText
from schemas.tables import FAULTS
from streaming.events.avro_schema import UnusableSchemaError, avro_schema
from streaming.events.decode import Decoded, decode
from streaming.events.exact_decode import ExactDecoder, FilteredError
from streaming.events.exact_values import RejectedError
from streaming.events.writer_schemas import NO_ID
from tests.unit.streaming.events.known_schemas import KnownSchemas
from tests.unit.streaming.events.test_decode import NOW, STAMP, bits, contract, records

MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
CARD = {
    "type": "record",
    "name": "Card",
    "fields": [
        {"name": "token", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "country", "type": ["null", "string"], "default": None},
        {"name": "issuer", "type": ["null", "Card"], "default": None},
    ],
}
FIELDS: list[dict[str, Any]] = [
    {"name": "id", "type": "string"},
    {"name": "unused", "type": {"type": "map",
        "values": ["null", "double", {"type": "array", "items": "int"}]}},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "amount", "type": MONEY},
    {"name": "currency", "type": {"type": "enum", "name": "Currency", "symbols": ["EUR", "USD", "JPY"]}},
    {"name": "card", "type": CARD},
    {"name": "other_card", "type": ["null", "Card"]},
    {"name": "device", "type": ["null", "long", "string"]},
    {"name": "online", "type": "boolean"},
    {"name": "ratio", "type": ["double", "null"]},
    {"name": "weight", "type": "float"},
    {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
        {"name": "note", "type": "bytes"}, {"name": "sku", "type": ["null", "string"]}]}}},
    {"name": "memo", "type": ["null", "string"]},
    {"name": "digest", "type": {"type": "fixed", "name": "Digest", "size": 4}},
]  # fmt: skip
SCHEMA: dict[str, Any] = {"type": "record", "name": "Payment", "namespace": "a.b", "fields": FIELDS}
UNDER: dict[str, Any] = {
    "transaction_id": {"field": "id", "max_length": 40},
    "event_time": {"field": "at"},
    "entities": {
        "card": {"field": "card.token", "max_length": 40},
        "device": {"field": "device", "max_length": 40},
    },
    "extra": {
        "country": {"field": "card.country"},
        "issuer": {"field": "card.issuer.issuer.country", "max_length": 3},
        "online": {"field": "online", "type": "boolean"},
        "ratio": {"field": "ratio", "type": "float"},
        "weight": {"field": "weight", "type": "float"},
        "second": {"field": "lines[1].sku"},
        "absent": {"field": "nowhere.at.all"},
    },
    "untrusted_text": {"memo": {"field": "memo", "max_length": 12}},
    "max_record_bytes": 4_000,
}


def plain_contract(schema: Any = SCHEMA, **changes: Any) -> EventContract:
    return contract(**{**UNDER, "format": {"avro": {"schema": json.dumps(schema)}}, **changes})


PLAIN = plain_contract()
REGISTERED = contract(**UNDER, format={"avro": {"registry": True}})


def payment(**changes: Any) -> dict[str, Any]:
    return {
        "id": "t1",
        "unused": {"a": None, "b": [1, -2], "c": 1.5},
        "at": datetime(2026, 7, 1, 12, 30, 0, 250_000, tzinfo=UTC),
        "amount": Decimal("12.34"),
        "currency": "USD",
        "card": card("DE", card(None, card("FR", None))),
        "other_card": None,
        "device": 17,
        "online": True,
        "ratio": 0.1 + 0.2,
        "weight": 0.5,
        "lines": [{"note": b"\xff", "sku": "a"}, {"note": b"", "sku": "b"}],
        "memo": "schön",
        "digest": b"abcd",
        **changes,
    }


def card(country: str | None, issuer: dict[str, Any] | None) -> dict[str, Any]:
    token = uuid.UUID("2b4a3c1e-0000-4000-8000-00000000beef")
    return {"token": token, "country": country, "issuer": issuer}


def written(datum: Any, schema: Any = SCHEMA) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), datum)
    return out.getvalue()


def framed(number: int, payload: bytes) -> bytes:
    return b"\0" + number.to_bytes(4, "big") + payload


def check(taken: pa.Table, under: EventContract, registry: KnownSchemas | None = None) -> Decoded:
    """Compare every record with what the exact decoder says of it."""
    known = registry or KnownSchemas("AVRO", {})
    decoded = decode(taken, under, NOW, known)
    written_by = under.format.written
    assert written_by is not None
    one = {NO_ID: SchemaText(written_by.text)} if written_by.text is not None else None
    exact = ExactDecoder(under, one or known.schemas("AVRO", list(known.asked)))
    valid: list[dict[str, Any]] = []
    rejected: list[tuple[str, str]] = []
    for value in taken["value"].to_pylist():
        try:
            valid.append(exact.decode_one(value, STAMP))
        except RejectedError as fault:
            rejected.append((fault.reason, fault.detail))
        except FilteredError:
            continue
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


def test_a_record_becomes_columns_without_a_detour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    row = decode(records([written(payment())]), PLAIN, NOW).valid.to_pylist()[0]
    assert (row["transaction_id"], row["amount"], row["currency"]) == ("t1", 12.34, "USD")
    assert row["event_time"] == datetime(2026, 7, 1, 12, 30, 0, 250_000, tzinfo=UTC)
    assert (row["card"], row["device"]) == ("2b4a3c1e-0000-4000-8000-00000000beef", "17")
    assert (row["country"], row["issuer"], row["online"], row["ratio"]) == ("DE", "FR", True, 0.1 + 0.2)
    assert (row["second"], row["absent"], row["memo"], row["weight"]) == ("b", None, "schön", 0.5)


_text = st.one_of(st.text(max_size=6), st.sampled_from(["", "EUR", "x" * 50, "\0", "é" * 13]))
_cards = st.recursive(
    st.builds(card, st.none() | _text, st.none()),
    lambda inner: st.builds(card, st.none() | _text, inner),
    max_leaves=4,
)
_payments = st.fixed_dictionaries(
    {},
    optional={
        "id": _text,
        "unused": st.dictionaries(
            _text, st.one_of(st.none(), st.floats(), st.lists(st.integers(-9, 9))), max_size=3
        ),
        "at": st.datetimes(
            datetime(1980, 1, 1),
            datetime(2101, 1, 1),
            timezones=st.just(UTC),
        ),
        "amount": st.decimals(-(10**9), 10**10 - 1, places=2, allow_nan=False),
        "currency": st.sampled_from(["EUR", "USD", "JPY"]),
        "card": _cards,
        "other_card": st.none() | _cards,
        "device": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), _text),
        "ratio": st.none() | st.floats() | st.sampled_from([0.0, -0.0, 1e300, 0.1]),
        "weight": st.floats(width=32),
        "lines": st.lists(
            st.fixed_dictionaries({"note": st.binary(max_size=3), "sku": st.none() | _text}), max_size=4
        ),
        "memo": st.none() | _text,
    },
).map(lambda changes: payment(**changes))


@st.composite
def _values(draw: st.DrawFn) -> bytes | None:
    """A record as it is written, or with bytes changed, cut off or added, or any bytes at all."""
    value = written(draw(_payments))
    how = draw(st.integers(0, 6))
    if how <= 2:
        return value
    place = draw(st.integers(0, len(value)))
    odd = draw(st.binary(min_size=1, max_size=3))
    changed = [None, value[:place], value + odd, value[:place] + odd + value[place + len(odd) :]]
    return changed[how - 3]


@pytest.mark.long
@given(st.lists(_values(), min_size=1, max_size=8))
def test_whatever_is_written_is_what_fastavro_says(values: list[bytes | None]) -> None:
    check(records(values), PLAIN)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
def test_any_bytes_become_what_fastavro_says(values: Sequence[bytes]) -> None:
    check(records(values), PLAIN)


# Types that a writer may have chosen for a field, by what they are written from.
_TYPES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "int": ("int", st.integers(-(2**31), 2**31 - 1)),
    "long": ("long", st.integers(-(2**63), 2**63 - 1)),
    "double": ("double", st.floats()),
    "boolean": ("boolean", st.booleans()),
    "string": ("string", st.text(max_size=5)),
    "bytes": ("bytes", st.binary(max_size=5)),
    "null": ("null", st.none()),
    "date": ({"type": "int", "logicalType": "date"}, st.dates(date(1960, 1, 1), date(2100, 1, 1))),
    "time": ({"type": "int", "logicalType": "time-millis"}, st.just(time(1, 2, 3))),
    "micros": (
        {"type": "long", "logicalType": "timestamp-micros"},
        st.datetimes(datetime(1980, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC)),
    ),
    "local": (
        {"type": "long", "logicalType": "local-timestamp-micros"},
        st.datetimes(datetime(1980, 1, 1), datetime(2099, 1, 1)),
    ),
    "whole": ({"type": "bytes", "logicalType": "decimal", "precision": 30},
        st.integers(-(10**29), 10**29).map(Decimal)),
    "small": (
        {"type": "fixed", "name": "Small", "size": 5, "logicalType": "decimal", "precision": 9, "scale": 3},
        st.decimals(-99_999, 99_999, places=3),
    ),
    "odd decimal": ({"type": "bytes", "logicalType": "decimal", "scale": 2}, st.binary(max_size=3)),
    "unknown": ({"type": "string", "logicalType": "moon-phase"}, st.text(max_size=3)),
    "enum": ({"type": "enum", "name": "Letters", "symbols": ["A", "B"]}, st.sampled_from("AB")),
    "array": ({"type": "array", "items": "string"}, st.lists(st.text(max_size=2), max_size=3)),
    "map": ({"type": "map", "values": "long"}, st.dictionaries(st.sampled_from("ab"), st.integers(0, 9))),
}  # fmt: skip
_CHOSEN = contract(
    transaction_id={"field": "f0"},
    event_time={"field": "f1"},
    amount={"field": "f2"},
    currency={"constant": "EUR"},
    entities={"who": {"field": "f3"}},
    extra={
        "number": {"field": "f4", "type": "float"},
        "whole": {"field": "f5", "type": "integer"},
        "truth": {"field": "f6", "type": "boolean"},
        "text": {"field": "f7"},
        "again": {"field": "f1"},
        "inner": {"field": "f8.a", "type": "integer"},
        "item": {"field": "f8[1]"},
    },
    untrusted_text={},
    format={"avro": {"registry": True}},
)


@st.composite
def _schemas(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    fields, strategies = [], {}
    named: set[str] = set()
    for place in range(9):
        kinds = draw(st.lists(st.sampled_from(sorted(_TYPES)), min_size=1, max_size=2, unique=True))
        types = []
        for kind in kinds:
            type_, _ = _TYPES[kind]
            name = type_["name"] if isinstance(type_, dict) and "name" in type_ else None
            types.append(name if name in named else type_)
            named |= {name} if name else set()
        fields.append({"name": f"f{place}", "type": types if len(types) > 1 else types[0]})
        strategies[f"f{place}"] = st.one_of(*(_TYPES[kind][1] for kind in kinds))
    schema = {"type": "record", "name": "Any", "fields": fields}
    values = []
    for _ in range(draw(st.integers(1, 4))):
        try:
            values.append(written(draw(st.fixed_dictionaries(strategies)), schema))
        except (ValueError, TypeError, OverflowError, AttributeError, KeyError):
            continue  # a union in which fastavro's writer takes one type for another
    return json.dumps(schema), values


@pytest.mark.long
@given(st.lists(_schemas(), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_any_schemas_in_one_batch_are_read_as_fastavro_does(
    schemas: list[tuple[str, list[bytes]]], rng: Any
) -> None:
    registry = KnownSchemas("AVRO", {number: text for number, (text, _) in enumerate(schemas)})
    values = [framed(number, each) for number, (_, values) in enumerate(schemas) for each in values]
    values += [framed(99, b"x"), b"", b"\1abcdef"]
    rng.shuffle(values)
    check(records(values), _CHOSEN, registry)


def test_ids_are_asked_for_once_per_batch_and_unknown_ones_are_a_reason() -> None:
    older = {**SCHEMA, "fields": [each for each in FIELDS if each["name"] not in ("weight", "memo")]}
    newer = {**SCHEMA, "fields": [{"name": "extra", "type": "int", "default": 0}, *FIELDS]}
    registry = KnownSchemas("AVRO", {1: json.dumps(older), 258: json.dumps(newer)})
    values = [framed(1, written(payment(), older))] * 3 + [framed(258, written(payment(extra=1), newer))] * 2
    decoded = check(records([*values, framed(7, b"")]), REGISTERED, registry)
    assert registry.asked[:3] == [1, 258, 7]  # those of most records first
    assert decoded.valid["memo"].to_pylist() == [None] * 3 + ["schön"] * 2
    assert decoded.rejected["reason"].to_pylist() == ["unknown_schema"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "unusable_schema"),
        ('{"type":"record"}', "unusable_schema"),
        ('"nothing"', "unusable_schema"),
        ('{"type":"array","items":"null"}', "unusable_schema"),
        ('"string"', "not_an_object"),
        ('{"type":"map","values":"string"}', "missing_field"),
    ],
)
def test_schemas_by_which_nothing_can_be_read_are_a_reason(text: str, reason: str) -> None:
    decoded = check(records([framed(1, b"\0")]), REGISTERED, KnownSchemas("AVRO", {1: text}))
    assert decoded.rejected["reason"].to_pylist() == [reason]


@pytest.mark.parametrize(
    "inner",
    [
        {"type": "record", "name": "Empty", "fields": []},
        {"type": "record", "name": "Empty", "fields": [{"name": "a", "type": "null"}]},
        {"type": "fixed", "name": "Empty", "size": 0},
    ],
)
def test_arrays_of_what_takes_no_bytes_are_refused(inner: Any) -> None:
    within = {"type": "map", "values": {"type": "array", "items": inner}}
    with pytest.raises(UnusableSchemaError, match="no bytes"):
        avro_schema(
            SchemaText(json.dumps({"type": "record", "name": "R", "fields": [{"name": "a", "type": within}]}))
        )


def test_a_schema_that_contains_itself_cannot_be_led_beyond_the_stack() -> None:
    schema = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
    deep = b"\2" * 500_000 + b"\0"
    assert only_row(deep, plain_contract(schema, max_record_bytes=1 << 20))["reason"] == "malformed_avro"


def test_a_broken_text_costs_its_field_alone() -> None:
    value = written(payment(memo="schön")).replace("schön".encode(), b"sch\xff\xffn")
    row = only_row(value)
    assert (row["memo"], row["faults"]) == ("sch\ufffd\ufffdn", ["memo: broken characters replaced"])


def test_a_uuid_that_is_none_costs_its_field_alone() -> None:
    fields = [each for each in FIELDS if each["name"] != "memo"]
    typed = {"name": "memo", "type": {"type": "string", "logicalType": "uuid"}}
    plain = {"name": "memo", "type": "string"}
    value = written(payment(memo="no uuid"), {**SCHEMA, "fields": [*fields, plain]})
    row = only_row(value, plain_contract({**SCHEMA, "fields": [*fields, typed]}))
    assert (row["memo"], row["faults"]) == (None, ["memo: not usable as string"])


@pytest.mark.parametrize("format_", ["iso8601", "epoch"])
@pytest.mark.parametrize(("unit", "size"), [("millis", 1_000_000), ("micros", 1_000), ("nanos", 1)])
def test_a_timestamp_says_its_own_unit(format_: str, unit: str, size: int) -> None:
    at = datetime(2026, 7, 1, 12, 30, 0, 250_000, tzinfo=UTC)
    number = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000 // size
    fields = [each for each in FIELDS if each["name"] != "at"]
    plain, logical = ({"type": "long"}, {"type": "long", "logicalType": f"timestamp-{unit}"})
    value = written(payment(at=number), {**SCHEMA, "fields": [*fields, {"name": "at", "type": plain}]})
    under = plain_contract(
        {**SCHEMA, "fields": [*fields, {"name": "at", "type": logical}]},
        event_time={"field": "at", "format": format_, "unit": "h"},
    )
    assert only_row(value, under)["event_time"] == at


def test_a_local_timestamp_is_in_the_contracts_zone() -> None:
    fields = [each for each in FIELDS if each["name"] != "at"]
    local = {"name": "at", "type": {"type": "long", "logicalType": "local-timestamp-micros"}}
    schema = {**SCHEMA, "fields": [*fields, local]}
    under = plain_contract(schema, event_time={"field": "at", "zone": "Europe/Berlin"})
    value = written(payment(at=datetime(2026, 7, 1, 12, 30)), schema)
    assert only_row(value, under)["event_time"] == datetime(2026, 7, 1, 10, 30, tzinfo=UTC)


@given(st.integers(-(10**15), 10**15), st.integers(1, 18), st.data())
def test_decimals_are_the_nearest_floats(unscaled: int, precision: int, data: st.DataObject) -> None:
    scale = data.draw(st.integers(0, precision))
    schema = {
        **SCHEMA,
        "fields": [*FIELDS, {"name": "d", "type": {**MONEY, "precision": precision, "scale": scale}}],
    }
    plain = {**SCHEMA, "fields": [*FIELDS, {"name": "d", "type": "bytes"}]}
    value = written(payment(d=unscaled.to_bytes(8, "big", signed=True)), plain)
    row = only_row(value, plain_contract(schema, extra={"d": {"field": "d", "type": "float"}}))
    stream = io.BytesIO(value)
    expected = fastavro.schemaless_reader(stream, fastavro.parse_schema(json.loads(json.dumps(schema))), None)
    assert row["d"] == float(expected["d"])


@pytest.mark.parametrize("place", ["id", "ccy", "who", "kind", "amount"])
@pytest.mark.parametrize("scale", [0, 2])
@pytest.mark.parametrize("unscaled", [b"\x7f" * 3_000, b"\x80" + bytes(3_000), bytes(3_000) + b"\x05"])
def test_numbers_of_thousands_of_digits_are_none(place: str, scale: int, unscaled: bytes) -> None:
    whole: Any = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": scale}
    kinds: dict[str, Any] = {
        **dict.fromkeys(("id", "ccy", "who", "kind"), "string"),
        "amount": "double",
        "at": {"type": "long", "logicalType": "timestamp-millis"},
    }
    own = {name: "bytes" if name == place else kind for name, kind in kinds.items()}
    read = {name: whole if name == place else kind for name, kind in kinds.items()}
    payment_: dict[str, Any] = {"id": "t", "ccy": "EUR", "who": "c", "kind": "k", "amount": 1.0}
    value = written({**payment_, "at": datetime(2026, 7, 1, tzinfo=UTC), place: unscaled}, _record(own))
    under = plain_contract(
        _record(read),
        amount={"field": "amount", "negative": "refund"},
        currency={"field": "ccy", "codes": "iso4217"},
        direction={"field": "kind", "refund": ["5"]},
        entities={"who": {"field": "who"}, "reshaped": {"field": "who", "normalise": ["trim"]}},
        extra={"kind": {"field": "kind"}},
        untrusted_text={},
    )
    check(records([value]), under)


def _record(kinds: Mapping[str, Any]) -> dict[str, Any]:
    fields = [{"name": name, "type": kind} for name, kind in kinds.items()]
    return {"type": "record", "name": "P", "fields": fields}


def test_a_schema_file_stands_beside_the_contract(tmp_path: Path) -> None:
    (tmp_path / "payment.avsc").write_text(json.dumps(SCHEMA))
    content = json.loads(contract(**UNDER).model_dump_json())
    content["format"] = {"avro": {"schema": "payment.avsc"}}
    (tmp_path / "cards.json").write_text(json.dumps(content))
    loaded = load_contract(str(tmp_path / "cards.json"))
    assert only_row(written(payment()), loaded)["transaction_id"] == "t1"
    assert EventContract.model_validate_json(loaded.model_dump_json()) == loaded
    (tmp_path / "payment.avsc").unlink()
    with pytest.raises(ConfigurationError, match="no such file"):
        load_contract(str(tmp_path / "cards.json"))


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"avro": {}}, "exactly one"),
        ({"avro": {"registry": True, "schema": '"string"'}}, "exactly one"),
        ({"avro": {"schema": "{}"}}, "not a schema of Avro"),
        ({"avro": {"registry": True}, "json": {"framing": "confluent"}}, "expected one format"),
        ({"avro": {"shema": "x"}}, "did you mean 'schema'"),
    ],
)
def test_a_format_that_cannot_be_meant_is_refused(given_: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        contract(format=given_)


def test_a_contract_that_asks_a_registry_says_where_it_is_named() -> None:
    with pytest.raises(ConfigurationError, match="FLAGSTREAM_SCHEMA_REGISTRY"):
        decode(records([b""]), REGISTERED, NOW)


def test_conditions_read_avro() -> None:
    under = plain_contract(where="currency = 'EUR' and ratio < 1 and card.country is null")
    values = [written(payment(currency=each, card=card(None, None), ratio=0.5)) for each in ("EUR", "USD")]
    assert check(records(values), under).valid.num_rows == 1


def test_a_slice_of_a_batch_is_read_as_a_whole_one_is() -> None:
    taken = records([written(payment(id=f"t{place}")) for place in range(30)])
    whole = decode(taken, PLAIN, NOW).valid["transaction_id"].to_pylist()
    assert decode(taken.slice(7, 9), PLAIN, NOW).valid["transaction_id"].to_pylist() == whole[7:16]
    assert np.all(np.array(whole) == [f"t{place}" for place in range(30)])


_MINOR = plain_contract(
    {**SCHEMA, "fields": [each for each in FIELDS if each["name"] != "amount"] + [
        {"name": "amount", "type": ["double", "long", {**MONEY, "precision": 30}]}]},
    amount={"field": "amount", "unit": "minor", "negative": "refund"},
)  # fmt: skip


@given(st.lists(st.one_of(
    st.floats(), st.integers(-(2**62), 2**62), st.integers(-(10**6), 10**6).map(lambda cents: cents / 100),
    st.decimals(-(10**25), 10**25, places=2, allow_nan=False)), min_size=1, max_size=8))  # fmt: skip
def test_money_of_any_type_is_what_the_exact_decoder_says(amounts: list[Any]) -> None:
    written_by = _MINOR.format.avro
    assert written_by is not None and written_by.schema_text is not None
    schema = json.loads(written_by.schema_text)
    check(records([written(payment(amount=each), schema) for each in amounts]), _MINOR)


@pytest.mark.long
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize(
    "logical", ["local-timestamp-millis", "local-timestamp-micros", "local-timestamp-nanos"]
)
@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2**41), min_size=1, max_size=20))
def test_a_local_timestamp_is_read_alike_however_far_off(logical: str, zone: str, numbers: list[int]) -> None:
    fields = [each for each in FIELDS if each["name"] != "at"]
    schema = {**SCHEMA, "fields": [*fields, {"name": "at", "type": {"type": "long", "logicalType": logical}}]}
    plain = {**SCHEMA, "fields": [*fields, {"name": "at", "type": "long"}]}
    under = plain_contract(schema, event_time={"field": "at", "zone": zone})
    factor = {"millis": 1, "micros": 1_000, "nanos": 1_000_000}[logical.rpartition("-")[2]]
    scaled = [each * factor if abs(each * factor) < 2**63 else each for each in numbers]
    check(records([written(payment(at=each), plain) for each in scaled]), under)


def test_a_local_timestamp_needs_no_detour(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = [each for each in FIELDS if each["name"] != "at"]
    local = {"name": "at", "type": {"type": "long", "logicalType": "local-timestamp-micros"}}
    schema = {**SCHEMA, "fields": [*fields, local]}
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    value = written(payment(at=datetime(2026, 7, 1, 12, 30)), schema)
    for zone, hour in (("UTC", 12), ("Europe/Berlin", 10)):
        under = plain_contract(schema, event_time={"field": "at", "zone": zone})
        found = decode(records([value]), under, NOW).valid["event_time"].to_pylist()
        assert found == [datetime(2026, 7, 1, hour, 30, tzinfo=UTC)]
