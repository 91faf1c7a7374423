"""Keys of Avro and Protobuf: read by schemas of their own, whatever the value is written in."""

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
from streaming.events.decode import Decoded, decode
from streaming.events.exact_decode import ExactDecoder
from streaming.events.protobuf_schema import message_by_name
from streaming.events.writer_schemas import NO_ID
from tests.unit.streaming.events.known_schemas import KnownSchemas
from tests.unit.streaming.events.test_avro import framed, written
from tests.unit.streaming.events.test_decode import NOW, check_against_exact, contract, event, records

KEY: dict[str, Any] = {
    "type": "record",
    "name": "Key",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": ["null", "long", "string"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "parts", "type": {"type": "array", "items": "string"}},
    ],
}
AT = datetime(2026, 7, 1, 12, 30, tzinfo=UTC)
PROTO = """
syntax = "proto3";
package a;
message Key {
  int64 id = 1;
  Inner in = 2;
  message Inner { string s = 1; }
}
"""
MESSAGE = message_factory.GetMessageClass(message_by_name(SchemaText(PROTO), "a.Key"))


def avro_key(identity: Any = 7, parts: tuple[str, ...] = ("a", "b")) -> bytes:
    return written({"id": identity, "at": AT, "parts": list(parts)}, KEY)


def under_key(format_: dict[str, Any], **changes: Any) -> EventContract:
    fields: dict[str, Any] = {
        "transaction_id": {"field": "key:id"},
        "entities": {"who": {"field": "who"}, "part": {"field": "key:parts[1]", "required": False}},
        "extra": {"missing": {"field": "key:nothing.here"}, "own": {"field": "id"}},
    }
    return contract(**{**fields, **changes}, key_format=format_)


RECORDS = under_key({"avro": {"schema": json.dumps(KEY)}}, event_time={"field": "key:at"})
REGISTERED = under_key({"avro": {"registry": True}})


def with_keys(keys: list[bytes | None]) -> pa.Table:
    taken = records([event()] * len(keys))
    place = taken.schema.get_field_index("key")
    return taken.set_column(place, "key", pa.array(keys, pa.binary()))


def of_text(text: str) -> dict[int, SchemaText]:
    return {NO_ID: SchemaText(text)}


def check(keys: list[bytes | None], under: EventContract, text: str) -> Decoded:
    taken = with_keys(keys)
    decoded = decode(taken, under, NOW)
    check_against_exact(taken, decoded, under, of_text(text))
    return decoded


def test_fields_of_a_key_are_read_by_its_own_schema_without_a_detour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    row = decode(with_keys([avro_key()]), RECORDS, NOW).valid.to_pylist()[0]
    assert (row["transaction_id"], row["part"], row["event_time"]) == ("7", "b", AT)
    assert (row["missing"], row["own"]) == (None, "t1")


@pytest.mark.parametrize(
    ("schema", "datum", "id_"),
    [("string", "schön", "schön"), ("long", 42, "42"), (["null", "string"], "x", "x")],
)
def test_a_key_that_is_no_record_is_read_as_a_whole(
    schema: Any, datum: Any, id_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: dict[str, Any] = {"transaction_id": {"field": "key:"}, "entities": {"who": {"field": "who"}}}
    under = under_key({"avro": {"registry": True}}, **whole)
    known = KnownSchemas("AVRO", {3: json.dumps(schema)})
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    decoded = decode(with_keys([framed(3, written(datum, schema))]), under, NOW, known)
    assert decoded.valid["transaction_id"].to_pylist() == [id_]


def test_ids_of_keys_are_resolved_beside_those_of_values() -> None:
    known = KnownSchemas("AVRO", {3: json.dumps(KEY), 4: json.dumps(KEY)})
    keys = [framed(3, avro_key("a")), framed(4, avro_key(9)), framed(5, avro_key()), None, b"plain"]
    decoded = decode(with_keys(keys), REGISTERED, NOW, known)
    assert known.asked == [3, 4, 5]
    assert decoded.valid["transaction_id"].to_pylist() == ["a", "9"]
    refused = [decoded.rejected[name].to_pylist() for name in ("reason", "detail")]
    assert refused == [["mistyped_field", "missing_field", "mistyped_field"], ["key:id"] * 3]


def test_a_key_that_cannot_be_read_costs_its_fields_alone() -> None:
    fields: dict[str, Any] = {"transaction_id": {"field": "id"}}
    under = under_key({"avro": {"schema": json.dumps(KEY)}}, **fields)
    rows = check([b"\xff\xff", None, avro_key()], under, json.dumps(KEY)).valid.to_pylist()
    assert [each["part"] for each in rows] == [None, None, "b"]
    assert rows[0]["faults"] == ["part: not usable as string", "missing: not usable as string"]
    assert (rows[1]["faults"], rows[2]["faults"]) == (None, None)


_sound = st.builds(
    avro_key,
    st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=6)),
    st.lists(st.text(max_size=3), max_size=3).map(tuple),
)


@st.composite
def _keys(draw: st.DrawFn) -> bytes | None:
    """A key as it is written, or with bytes changed, cut off or added, or any bytes at all, or none."""
    key = draw(_sound)
    place, odd = draw(st.integers(0, len(key))), draw(st.binary(max_size=3))
    changed = key[:place] + odd + key[place + len(odd) :]
    return draw(st.sampled_from([key, key, key[:place], key + odd, changed, odd, None]))


@pytest.mark.long
@given(st.lists(_keys(), min_size=1, max_size=8))
def test_whatever_a_key_holds_is_what_fastavro_says(keys: list[bytes | None]) -> None:
    check(keys, RECORDS, json.dumps(KEY))
    whole: dict[str, Any] = {"transaction_id": {"field": "key:"}, "entities": {"who": {"field": "who"}}}
    text = json.dumps("string")
    check(keys, under_key({"avro": {"schema": text}}, **whole), text)


IN_MESSAGE = under_key(
    {"protobuf": {"schema": PROTO, "message": "a.Key"}},
    entities={"who": {"field": "who"}, "part": {"field": "key:in.s", "required": False}},
)


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(max_size=4), st.binary(max_size=4))))
def test_whatever_a_key_holds_is_what_googles_library_says(drawn: list[tuple[int, str, bytes]]) -> None:
    keys: list[bytes | None] = [None, b"\xff"]
    for number, text, odd in drawn:
        keys += [MESSAGE(id=number, **{"in": {"s": text}}).SerializeToString() + each for each in (b"", odd)]
    decoded = check(keys, IN_MESSAGE, PROTO)
    assert {str(number) for number, _, _ in drawn} <= set(decoded.valid["transaction_id"].to_pylist())


def test_a_file_has_what_lies_in_keys_in_columns() -> None:
    value = event(**{"key:id": "f1", "key:parts[1]": "p"})
    decoded = decode(records([value]), REGISTERED, NOW, from_file=True)
    assert decoded.valid.select(["transaction_id", "part"]).to_pylist() == [
        {"transaction_id": "f1", "part": "p"}
    ]


def test_a_format_of_keys_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(ConfigurationError, match="no field is read from a key"):
        contract(key_format={"avro": {"registry": True}})
    with pytest.raises(ConfigurationError, match="exactly one of 'avro' and 'protobuf'"):
        under_key({})
    with pytest.raises(ConfigurationError, match="a key of Protobuf is a message"):
        under_key({"protobuf": {"registry": True}}, transaction_id={"field": "key:"})


def test_a_contract_without_a_format_of_keys_says_what_it_always_did() -> None:
    assert "key_format" not in contract().model_dump_json()
    assert "key_format" in REGISTERED.model_dump_json()
    assert (REGISTERED.asks_registry, RECORDS.asks_registry, contract().asks_registry) == (True, False, False)


def test_the_schema_of_keys_may_lie_in_a_file_beside_the_contract(tmp_path: Path) -> None:
    (tmp_path / "key.avsc").write_text(json.dumps(KEY))
    content = json.loads(RECORDS.model_dump_json())
    content["key_format"] = {"avro": {"schema": "key.avsc"}}
    (tmp_path / "payments.json").write_text(json.dumps(content))
    assert load_contract(str(tmp_path / "payments.json")) == RECORDS


def test_a_schema_of_keys_that_is_none_is_told_where_it_stands() -> None:
    broken = under_key({"protobuf": {"schema": "message {"}})
    with pytest.raises(ConfigurationError, match="key_format"):
        decode(with_keys([b""]), broken, NOW)
    assert decode(with_keys([]), RECORDS, NOW).valid.num_rows == 0
