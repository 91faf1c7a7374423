"""Fields beside the value: keys, headers and topics, as CloudEvents and Debezium use them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from schemas.event_sources import Source, source_of
from schemas.tables import FAULTS, HEADERS
from streaming.events.beside import Beside
from streaming.events.decode import Decoded, decode
from streaming.events.exact_decode import ExactDecoder, FilteredError
from streaming.events.exact_values import RejectedError
from streaming.events.utf8_kernels import is_utf8
from tests.unit.streaming.events.test_decode import NOW, STAMP, bits, contract, event, records

Headers = list[tuple[str, bytes | None]] | None

SPREAD = contract(
    transaction_id={"field": "key:payload.id"},
    event_time={"field": "header:ce_time"},
    entities={"who": {"field": "who"}, "device": {"field": "header:device", "type": "integer"}},
    extra={
        "stream": {"field": "topic:"},
        "visits": {"field": "header:visits", "type": "integer"},
        "distance": {"field": "header:distance", "type": "float"},
        "online": {"field": "header:online", "type": "boolean"},
        "kind": {"field": "header:kind", "max_length": 3},
        "literal": {"field": "value:header:kind"},
    },
    untrusted_text={"memo": {"field": "header:memo", "max_length": 5}},
)
TEXT_KEY = contract(
    transaction_id={"field": "key:"},
    extra={"number": {"field": "key:", "type": "integer"}, "broker": {"field": "value:id"}},
)


def with_sides(
    values: Sequence[bytes | None], keys: Sequence[bytes | None], headers: Sequence[Headers]
) -> pa.Table:
    taken = records(values)
    for name, column in {"key": pa.array(keys, pa.binary()), "headers": pa.array(headers, HEADERS)}.items():
        taken = taken.set_column(taken.schema.get_field_index(name), name, column)
    return taken


def check(taken: pa.Table, under: EventContract) -> Decoded:
    """Compare every record with what the exact decoder says of it."""
    exact, decoded = ExactDecoder(under), decode(taken, under, NOW)
    valid: list[dict[str, Any]] = []
    reasons: list[str] = []
    for row in taken.to_pylist():
        try:
            beside = Beside(row["key"], row["headers"], row["topic"])
            valid.append(exact.decode_one(row["value"], STAMP, beside))
        except RejectedError as fault:
            reasons.append(fault.reason)
    for name in (*(column.name for column in under.columns), FAULTS.name):
        expected = pa.array([each[name] for each in valid], decoded.valid.schema.field(name).type)
        assert bits(decoded.valid[name]) == bits(expected), name
    assert decoded.rejected["reason"].to_pylist() == reasons
    return decoded


SOUND: dict[str, bytes] = {
    "ce_time": b"2026-07-01T12:30:00Z",
    "device": b"17",
    "visits": b"3",
    "distance": b"-1.5",
    "online": b"true",
    "kind": b"abc",
    "memo": "schön".encode(),
}
_odd = st.one_of(
    st.none(),
    st.binary(max_size=6),
    st.sampled_from(list(SOUND.values())),
    st.sampled_from(
        [b"", b" 3", b"03", b"1e3", b"null", b"[1]", b'"3"', b"NaN", b"9" * 20, b"x" * 9, b"\xed\xa0\x80"]
    ),
)
_headers = st.one_of(
    st.none(),
    st.lists(st.tuples(st.sampled_from([*SOUND, "other", ""]), _odd), max_size=3).map(
        lambda odd: [*SOUND.items(), *odd]
    ),
    st.lists(st.tuples(st.sampled_from([*SOUND]), _odd), max_size=8),
)
_keys = st.one_of(
    st.none(),
    st.binary(max_size=5),
    st.sampled_from(
        [
            b'{"payload":{"id":"a"}}',
            b'{"payload":{"id":7}}',
            b'{"payload":[]}',
            b"{",
            b'"a"',
            b"7",
            b"-0",
            b'\xef\xbb\xbf{"payload":{"id":"a"}}',
        ]
    ),
)
_records = st.lists(st.tuples(_keys, _headers), min_size=1, max_size=10)


@pytest.mark.long
@given(_records)
def test_whatever_stands_beside_the_value_is_what_the_exact_decoder_says(
    sides: list[tuple[Any, Headers]],
) -> None:
    keys, headers = zip(*sides, strict=True)
    taken = with_sides([event()] * len(sides), keys, headers)
    check(taken, SPREAD)
    check(taken, TEXT_KEY)
    check(taken.slice(1), SPREAD)


def test_sound_records_need_no_detour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    keys = [b'{"payload":{"id":"a%d"}}' % place for place in range(9)]
    decoded = decode(with_sides([event()] * 9, keys, [list(SOUND.items())] * 9), SPREAD, NOW)
    row = decoded.valid.to_pylist()[3]
    assert (row["transaction_id"], row["device"], row["visits"]) == ("a3", "17", 3)
    assert (row["distance"], row["online"], row["kind"], row["literal"]) == (-1.5, True, "abc", None)
    assert (row["stream"], row["memo"]) == ("events", "schön")


def test_the_last_of_equal_headers_counts() -> None:
    twice: Headers = [*SOUND.items(), ("kind", b"x"), ("kind", b"y")]
    decoded = check(with_sides([event()], [b'{"payload":{"id":"a"}}'], [twice]), SPREAD)
    assert decoded.valid["kind"].to_pylist() == ["y"]


PAYMENT = {"amount": 12.5, "currency": "EUR", "card": "c1"}
CLOUD = {
    "transaction_id": {"field": "id"},
    "event_time": {"field": "time"},
    "amount": {"field": "data.amount"},
    "currency": {"field": "data.currency"},
    "entities": {"card": {"field": "data.card"}},
    "extra": {},
    "untrusted_text": {},
}


def test_a_structured_cloud_event_is_read_by_paths() -> None:
    whole = {
        "specversion": "1.0",
        "id": "e1",
        "time": "2026-07-01T12:30:00Z",
        "type": "paid",
        "data": PAYMENT,
    }
    decoded = decode(records([json.dumps(whole).encode()]), contract(**CLOUD), NOW)
    assert decoded.valid.select(["transaction_id", "amount", "card"]).to_pylist() == [
        {"transaction_id": "e1", "amount": 12.5, "card": "c1"}
    ]


def test_a_binary_cloud_event_has_its_attributes_in_headers() -> None:
    under = contract(
        transaction_id={"field": "header:ce_id"},
        event_time={"field": "header:ce_time"},
        entities={"card": {"field": "card"}},
        extra={"type": {"field": "header:ce_type"}},
        untrusted_text={},
    )
    attributes: Headers = [("ce_id", b"e1"), ("ce_time", b"2026-07-01T12:30:00Z"), ("ce_type", b"paid")]
    decoded = check(with_sides([json.dumps(PAYMENT).encode()], [None], [attributes]), under)
    row = decoded.valid.to_pylist()[0]
    assert (row["transaction_id"], row["amount"], row["type"]) == ("e1", 12.5, "paid")


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_change_by_debezium_is_read_by_paths(wrapped: bool) -> None:
    change = {"op": "c", "before": None, "after": {"id": 42, "at": 1_782_909_000_000_000, **PAYMENT}}
    head = "payload.after." if wrapped else "after."
    under = contract(
        transaction_id={"field": f"{head}id"},
        event_time={"field": f"{head}at", "format": "epoch", "unit": "us"},
        amount={"field": f"{head}amount"},
        currency={"field": f"{head}currency"},
        entities={"card": {"field": f"{head}card"}},
        extra={},
        untrusted_text={},
    )
    value = {"schema": {"type": "struct"}, "payload": change} if wrapped else change
    row = decode(records([json.dumps(value).encode()]), under, NOW).valid.to_pylist()[0]
    assert (row["transaction_id"], row["amount"], row["card"]) == ("42", 12.5, "c1")


@pytest.mark.parametrize(
    ("field", "source"),
    [
        ("id", Source("value", "id")),
        ("a.b", Source("value", "a.b")),
        ("value:header:x", Source("value", "header:x")),
        ("header:ce_id", Source("header", "ce_id")),
        ("key:", Source("key", "")),
        ("topic:", Source("topic", "")),
        ("xml:id", Source("value", "xml:id")),
        (":", Source("value", ":")),
    ],
)
def test_a_field_names_a_part_of_the_record(field: str, source: Source) -> None:
    assert source_of(field) == source


@pytest.mark.parametrize("field", ["header:", "value:", "topic:x"])
def test_parts_that_name_nothing_are_refused(field: str) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        contract(transaction_id={"field": field})


def test_the_json_schema_is_of_the_value_alone() -> None:
    schema = SPREAD.json_schema()
    assert "who" in schema["properties"] and "header:kind" in schema["properties"]
    assert not any(":" in name for name in schema["properties"] if name != "header:kind")


@given(
    st.one_of(
        st.binary(max_size=8), st.text(max_size=4).map(lambda text: text.encode("utf-8", "surrogatepass"))
    )
)
def test_utf_8_is_what_python_takes_for_it(data: bytes) -> None:
    try:
        data.decode()
        expected = True
    except UnicodeDecodeError:
        expected = False
    assert is_utf8(np.frombuffer(data, np.uint8), 0, len(data)) == expected


def test_a_file_has_all_fields_in_columns_of_their_whole_names() -> None:
    row = {"key:payload.id": "a", "header:ce_time": "2026-07-01T12:30:00Z", "header:device": 7, "who": "c"}
    value = json.dumps({**row, "amount": 1, "currency": "EUR", "header:kind": "abc"}).encode()
    decoded = decode(records([value]), SPREAD, NOW, from_file=True).valid.to_pylist()
    assert [(each["transaction_id"], each["device"], each["kind"]) for each in decoded] == [("a", "7", "abc")]


@pytest.mark.long
@given(_records)
def test_a_condition_reads_headers_as_text(sides: list[tuple[Any, Headers]]) -> None:
    under = contract(
        where='"header:kind" = \'abc\' or "topic:" = \'other\' or "header:visits" > 2',
        extra={"kind": {"field": "header:kind"}},
    )
    keys, headers = zip(*sides, strict=True)
    taken = with_sides([event()] * len(sides), keys, headers)
    exact, wanted = ExactDecoder(under), []
    for row in taken.to_pylist():
        with contextlib.suppress(FilteredError, RejectedError):
            exact.decode_one(row["value"], STAMP, Beside(row["key"], row["headers"], row["topic"]))
            wanted.append(row["offset"])
    assert decode(taken, under, NOW).valid["offset"].to_pylist() == wanted
