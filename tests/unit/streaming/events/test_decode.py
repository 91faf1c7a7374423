"""Decoding: no bytes raise, every record ends in one place, and the fast path is the exact decoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.contract import EventContract, load_contract
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from schemas.tables import FAULTS, HEADERS, UTC_MICROS
from streaming.events import decode as decoding
from streaming.events.beside import Beside
from streaming.events.decode import Decoded, decode
from streaming.events.exact_decode import ExactDecoder, FilteredError
from streaming.events.exact_values import RejectedError, RejectionReason
from streaming.events.writer_schemas import NO_WRITERS, WriterSchemas

STAMP = 1_790_000_000_000_000
NOW = datetime.fromtimestamp(STAMP / 1e6, UTC)
PLACE = ["topic", "partition", "offset", "kafka_timestamp"]


def contract(**changes: Any) -> EventContract:
    content = {
        "name": "cards",
        "transaction_id": {"field": "id"},
        "event_time": {"field": "at"},
        "amount": {"field": "amount"},
        "currency": {"field": "currency"},
        "entities": {"customer": {"field": "who"}, "device": {"field": "device", "type": "integer"}},
        "extra": {
            "country": {"field": "country"},
            "visits": {"field": "visits", "type": "integer"},
            "distance": {"field": "distance", "type": "float"},
            "online": {"field": "online", "type": "boolean", "required": True},
            "country_again": {"field": "country"},
        },
        "untrusted_text": {"memo": {"field": "memo", "max_length": 12}},
        "max_record_bytes": 400,
        **changes,
    }
    return parse_document(content, EventContract, where="cards.yaml")


FLAT = contract()
EPOCH = contract(event_time={"field": "at", "format": "epoch", "unit": "ms"}, currency={"constant": "EUR"})
DAYS = contract(event_time={"field": "at", "format": "epoch", "unit": "d", "epoch": "2020-01-01T00:00:00Z"})
PATTERN = contract(event_time={"field": "at", "format": "%d.%m.%Y %H:%M:%S", "zone": "Europe/Berlin"})
BERLIN = contract(event_time={"field": "at", "zone": "Europe/Berlin"})
NESTED = contract(
    amount={"field": "money.amount"},
    currency={"field": "money.currency"},
    untrusted_text={"memo": {"field": "note.text", "max_length": 12}},
)
TIGHT = contract(
    transaction_id={"field": "id", "max_length": 3},
    amount={"field": "amount", "most": 1000},
    currency={"field": "currency", "max_length": 3},
    entities={"customer": {"field": "who", "max_length": 2}, "device": {"field": "device", "max_length": 2}},
    extra={
        "online": {"field": "online", "type": "boolean", "required": True},
        "country": {"field": "country", "max_length": 2},
    },
)
ROOMY = contract(max_record_bytes=200_000)
RENAMED = contract(
    aliases={
        "id": ["currency", "memo"],
        "amount": ["distance"],
        "who": ["memo"],
        "country": ["visits", "who"],
        "visits": ["device"],
        "online": ["country"],
    }
)
CONTRACTS = [FLAT, EPOCH, DAYS, PATTERN, BERLIN, NESTED, TIGHT, RENAMED]

VALID: dict[str, Any] = {
    "id": "t1",
    "at": "2026-07-01T12:30:00.25Z",
    "amount": 12.34,
    "currency": "EUR",
    "who": "c1",
    "device": 17,
    "country": "DE",
    "visits": 3,
    "distance": -1.5,
    "online": True,
    "memo": "thanks",
}

TIMES = {"epoch": 1_782_909_000_250, "%d.%m.%Y %H:%M:%S": "01.07.2026 12:30:00"}


def event(**changes: Any) -> bytes:
    return json.dumps({**VALID, **changes}).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in VALID.items() if key != name}).encode()


def records(values: Sequence[bytes | None], stamps: Sequence[int | None] | None = None) -> pa.Table:
    count = len(values)
    return pa.table(
        {
            "key": pa.array([str(place).encode() for place in range(count)], pa.binary()),
            "value": pa.array(values, pa.binary()),
            "headers": pa.array([[("n", str(place).encode())] for place in range(count)], HEADERS),
            "topic": pa.array(["events"] * count, pa.string()),
            "partition": pa.array(np.arange(count) % 3, pa.int32()),
            "offset": pa.array(np.arange(count), pa.int64()),
            "timestamp": pa.array(stamps or [STAMP] * count, UTC_MICROS),
        }
    )


def one(value: bytes | None, under: EventContract = FLAT) -> dict[str, Any]:
    """Return the row a value becomes, or its reason."""
    decoded = decode(records([value]), under, NOW)
    row: dict[str, Any] = (decoded.valid.to_pylist() + decoded.rejected.to_pylist())[0]
    return row


def reason(value: bytes | None, under: EventContract = FLAT) -> str | None:
    found = one(value, under).get("reason")
    return None if found is None else str(found)


def check_against_exact(
    taken: pa.Table, decoded: Decoded, under: EventContract, key_writers: WriterSchemas = NO_WRITERS
) -> None:
    """Compare with one `decode_one` per record: same split, order, bits and reasons."""
    exact = ExactDecoder(under, key_writers=key_writers)
    names = [*(column.name for column in under.columns), FAULTS.name]
    valid: list[tuple[dict[str, Any], int]] = []
    rejected: list[tuple[str, str, bytes | None, int]] = []
    filtered: list[tuple[str, int]] = []
    for row, value in enumerate(taken["value"].to_pylist()):
        offset = taken["offset"][row].as_py()
        try:
            sides = (taken[name][row].as_py() for name in ("key", "headers", "topic"))
            found = exact.decode_one(value, stamp_of(taken, row), Beside(*sides))
            found["transaction_id"] = found["transaction_id"] or made_id(taken, row, under)
            valid.append((found, offset))
        except FilteredError as fault:
            filtered.append((fault.reason, offset))
        except RejectedError as fault:
            rejected.append((fault.reason, fault.detail, value, offset))
    for name in names:
        column = decoded.valid.schema.field(name).type
        expected = pa.array([each[name] for each, _ in valid], column)
        assert bits(decoded.valid[name]) == bits(expected), name
    assert decoded.valid["offset"].to_pylist() == [offset for _, offset in valid]
    columns = [decoded.rejected[name].to_pylist() for name in ("reason", "detail", "value", "offset")]
    assert list(zip(*columns, strict=True)) == rejected
    columns = [decoded.filtered[name].to_pylist() for name in ("reason", "offset")]
    assert list(zip(*columns, strict=True)) == filtered


def stamp_of(taken: pa.Table, row: int) -> int:
    """Return a record's stamp; one without any counts as stamped when it is decoded."""
    stamp: int | None = taken["timestamp"][row].value
    return STAMP if stamp is None or stamp < 0 else stamp


def made_id(taken: pa.Table, row: int, under: EventContract) -> str:
    """Return the id of an event that has none."""
    if under.transaction_id.made_of == "digest":
        return hashlib.sha256(taken["value"][row].as_py()).hexdigest()
    return "/".join(str(taken[name][row]) for name in ("topic", "partition", "offset"))


def bits(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Values such that equal ones are equal in every bit."""
    return [each.hex() if isinstance(each, float) else each for each in _plain(column)]


def _plain(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    whole = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
    values: list[Any] = whole.to_pylist()
    return values


# What may stand as a value: JSON text, some of it not quite.
_numbers = st.one_of(
    st.integers().map(str),
    st.integers(-(10**20), 10**20).map(str),
    st.floats(0, 1e6).map(lambda value: f"{value:.2f}"),
    st.floats().map(json.dumps),
    st.from_regex(r"-?[0-9]{0,17}\.[0-9]{0,17}([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(["-0", "-0.0", "0.0", "1e999", "-1e999", "1E5", "01", "1.", ".5", "+1", "0x1", "1_0"]),
    st.sampled_from(["9" * 18, "9" * 19, "9007199254740993", "0.1", "1" * 30 + ".5", "9" * 5000]),
)
_times = st.one_of(
    st.datetimes().map(lambda moment: json.dumps(moment.isoformat())),
    st.datetimes().map(lambda moment: json.dumps(moment.strftime("%d.%m.%Y %H:%M:%S"))),
    st.from_regex(
        r'"20[0-9]{2}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{1,7})?'
        r'(Z|z|[+-][0-2][0-9]:?[0-6][0-9])?"',
        fullmatch=True,
    ),
    st.integers(1_500_000_000_000, 1_800_000_000_000).map(str),
    st.floats(1.5e12, 1.8e12).map(lambda value: f"{value:.3f}"),
    st.sampled_from(['"0001-01-01T00:00:00+23:59"', '"9999-12-31T23:59:59-23:59"', '"2026-02-29T00:00:00"']),
    st.sampled_from(
        ['"2026-07-01"', '"2026-07-01T24:00:00"', '"2026-07-01T12:00:00,5"', '"2026-W27-3T12:00"']
    ),
)
_texts = st.one_of(
    st.text(max_size=20).map(json.dumps),
    st.text(max_size=20).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(
        ['""', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"a\\"b"', '"tab\there"', '"\\x"', '"']
    ),
)
_others = st.sampled_from(
    [
        "null",
        "true",
        "false",
        "NaN",
        "Infinity",
        "-Infinity",
        "[]",
        "{}",
        "[1,[2]]",
        '{"a":{"b":1}}',
        "nul",
        "",
    ]
)
_any = st.one_of(_numbers, _times, _texts, _others)
_spaces = st.sampled_from([""] * 6 + [" ", "\n", "\r\n\t", "\u00a0"])
_mostly_no = st.integers(0, 3).map(lambda value: value == 0)


@st.composite
def raw_events(draw: st.DrawFn, under: EventContract) -> bytes:
    """An event near a valid one: fields changed, dropped, doubled or moved, then perhaps spoilt as bytes."""
    event = {**VALID, "at": TIMES.get(under.event_time.format, VALID["at"])}
    if under is NESTED or draw(_mostly_no):
        event["money"] = {"amount": 5, "currency": "EUR"}
        event["note"] = draw(st.sampled_from([None, {"text": "a"}, 3]))
    fields = [(name, json.dumps(value)) for name, value in event.items()]
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from([*VALID, "other", "money.amount", "note", "note.text"]))
        drop = draw(st.booleans())
        fields = [each for each in fields if each[0] != name or not drop]
        fields.append((name, draw(st.one_of(_suited(name), _any))))
    fields = fields if draw(st.booleans()) else draw(st.permutations(fields))
    space = draw(_spaces)
    parts = [f"{space}{json.dumps(name)}{space}:{space}{text}{space}" for name, text in fields]
    value = (space + "{" + ",".join(parts) + "}" + space).encode("utf-8", "surrogatepass")
    return spoilt(draw, value) if draw(_mostly_no) else value


def _suited(name: str) -> st.SearchStrategy[str]:
    """Values of the kind a field mostly has."""
    if name in ("amount", "device", "visits", "distance", "money.amount"):
        return _numbers
    return _times if name == "at" else _texts


def spoilt(draw: st.DrawFn, value: bytes) -> bytes:
    kind = draw(st.sampled_from(["cut", "insert", "change", "bom", "nested", "twice", "long"]))
    place = draw(st.integers(0, len(value)))
    if kind == "cut":
        return value[:place]
    if kind == "insert":
        return value[:place] + draw(st.binary(max_size=3)) + value[place:]
    if kind == "change":
        return value[:place] + draw(st.binary(min_size=1, max_size=1)) + value[place + 1 :]
    shapes = {
        "bom": b"\xef\xbb\xbf" + value,
        "nested": b"[" * 390,
        "twice": value + value,
        "long": value[:-1] + b" " * 400 + b"}",
    }
    return shapes.get(kind, value)


_stamps = st.one_of(st.just(STAMP), st.sampled_from([None, 0, 1_782_909_000_250_000 - 300_000_000, -(2**40)]))


@st.composite
def batches(draw: st.DrawFn) -> tuple[EventContract, pa.Table]:
    """Records on their way in, and the contract they are under."""
    under = draw(st.sampled_from(CONTRACTS))
    values = st.one_of(*[raw_events(under)] * 4, st.binary(max_size=20), st.none())
    drawn = draw(st.lists(st.tuples(values, st.one_of(st.just(STAMP), _stamps)), max_size=12))
    return under, records([value for value, _ in drawn], [stamp for _, stamp in drawn])


@pytest.mark.long
@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(batches(), st.lists(st.integers(0, 12), max_size=3), st.integers(1, 5))
def test_any_bytes_become_what_the_exact_decoder_says_however_they_are_cut(
    batch: tuple[EventContract, pa.Table], cuts: list[int], rows: int
) -> None:
    under, taken = batch
    count = taken.num_rows
    whole = decode(taken, under, NOW)
    check_against_exact(taken, whole, under)
    places = [0, *sorted(min(cut, count) for cut in cuts), count]
    pieces = [taken.slice(first, last - first) for first, last in pairwise(places)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_BLOCK_ROWS", rows)
        blocks = decode(pa.concat_tables(pieces), under, NOW)
    parts = [decode(piece, under, NOW) for piece in pieces]
    for name in ("valid", "rejected"):
        expected = getattr(whole, name)
        assert bits_of(getattr(blocks, name)) == bits_of(expected)
        assert bits_of(pa.concat_tables([getattr(part, name) for part in parts])) == bits_of(expected)
        assert getattr(blocks, name).schema == expected.schema
    offsets = whole.valid["offset"].to_pylist() + whole.rejected["offset"].to_pylist()
    assert sorted(offsets) == list(range(count))


def bits_of(table: pa.Table) -> list[list[Any]]:
    return [bits(column) for column in table.columns]


def test_a_valid_event_becomes_typed_columns_and_coordinates() -> None:
    decoded = decode(records([event()]), FLAT, NOW)
    assert decoded.valid.schema == pa.schema([*FLAT.arrow_schema(), FAULTS])
    assert decoded.valid["faults"].null_count == 1
    row = decoded.valid.to_pylist()[0]
    assert row["event_time"].isoformat() == "2026-07-01T12:30:00.250000+00:00"
    assert {name: row[name] for name in ("transaction_id", "amount", "currency", "customer", "device")} == {
        "transaction_id": "t1",
        "amount": 12.34,
        "currency": "EUR",
        "customer": "c1",
        "device": "17",
    }
    extras = [row[name] for name in ("country", "country_again", "visits", "distance", "online", "memo")]
    assert extras == ["DE", "DE", 3, -1.5, True, "thanks"]
    assert [row[name] for name in PLACE[:3]] == ["events", 0, 0]
    assert decoded.valid["kafka_timestamp"].cast(pa.int64()).to_pylist() == [STAMP]


REASONS: list[tuple[str, bytes | None]] = [
    ("null_value", None),
    ("malformed_json", b""),
    ("malformed_json", event()[:-1]),
    ("malformed_json", event() + b"{}"),
    ("malformed_json", b"\xef\xbb\xbf\xef\xbb\xbf" + event()),
    ("malformed_json", b"[" * 400),
    ("malformed_json", b"hello"),
    ("malformed_json", b"\x00" * 100),
    ("malformed_json", event().replace(b'"id"', b"id")),
    ("malformed_json", b'{"memo": "' + b'\\"' * 60),
    ("invalid_utf8", event(id="\ud800")),
    ("invalid_utf8", event().replace(b"EUR", b"\xff\xfe")),
    ("invalid_utf8", event().replace(b"c1", b"\xed\xa0\x80")),
    ("invalid_utf8", "{}".encode("utf-16")),
    ("not_an_object", b"[]"),
    ("not_an_object", b"null"),
    ("missing_field", b"{}"),
    ("missing_field", without("online")),
    ("missing_field", event(amount=None)),
    ("mistyped_field", event(id="")),
    ("mistyped_field", event(id=1.5)),
    ("mistyped_field", event(who=True)),
    ("mistyped_field", event(device="17")),
    ("mistyped_field", event(amount="12")),
    ("mistyped_field", event(amount=True)),
    ("mistyped_field", event(online=1)),
    ("mistyped_field", event().replace(b"12.34", b"012")),
    ("oversized_field", event(id="x" * 257)),
    ("oversized_field", event(id=10**256)),
    ("oversized_field", event(who="\u00e4" * 257)),
    ("oversized_field", event(currency="x" * 17)),
    ("amount_too_large", event(amount=1e12 + 1)),
    ("amount_too_large", event(amount=1.7976931348623157e308)),
    ("amount_too_large", event(amount=10**300)),
    ("bad_amount", event(amount=-0.01)),
    ("bad_amount", event(amount=-0.0)),
    ("bad_amount", event(amount=-1)),
    ("bad_amount", event(amount=-1.0)),
    ("bad_amount", event(amount=float("nan"))),
    ("bad_amount", event(amount=float("inf"))),
    ("bad_amount", event().replace(b"12.34", b"1e999")),
    ("bad_amount", event(amount=10**400).replace(b"amount", b"amount")),
    ("bad_time", event(at="2026-07-01")),
    ("bad_time", event(at="2026-02-29T00:00:00Z")),
    ("bad_time", event(at="yesterday, at noon sharp")),
    ("mistyped_field", event(at=1_782_909_000)),
    ("absurd_time", event(at="1989-12-31T23:59:59Z")),
    ("absurd_time", event(at="9999-12-31T23:59:59Z")),
    ("time_ahead_of_broker", event(at="2027-01-01T00:00:00Z")),
    ("oversized_record", event(other="x" * 400)),
    ("oversized_record", b"\xff" * 401),
]


@pytest.mark.parametrize(("expected", "value"), REASONS)
def test_a_rejected_record_keeps_its_bytes_and_says_why(expected: str, value: bytes | None) -> None:
    row = one(value, FLAT if expected == "oversized_record" else ROOMY)
    assert row["reason"] == expected
    assert row["value"] == value
    assert row["key"] == b"0"
    assert [row[name] for name in PLACE[:3]] == ["events", 0, 0]


def test_a_rejected_record_keeps_its_headers() -> None:
    taken = records([event(), None, b"{", event()])
    rejected = decode(taken, FLAT, NOW).rejected.sort_by("offset")
    assert rejected["headers"].to_pylist() == taken["headers"].to_pylist()[1:3]


# What may stand where a value is expected, as long as it is clear where the value ends.
_bodies = st.binary(max_size=40).map(lambda raw: raw.replace(b'"', b"'").rstrip(b"\\"))
_strings = st.one_of(
    _bodies.map(lambda body: b'"' + body + b'"'),
    st.sampled_from([b'"x\\ud83d"', b'"\\q"', b'"\\u12"', b'"' + b"x" * 70_000 + b'"', b'"\xff"', b'"\t"']),
)
_words = st.one_of(
    st.sampled_from([b"NaN", b"-Infinity", b"1e999", b"01", b"1.", b"undefined", b"9" * 5_000, b"nul", b"'"]),
    st.from_regex(rb"[A-Za-z0-9.+\-_'\x80-\xff]{1,8}", fullmatch=True),
)
_nested = st.recursive(
    st.one_of(_strings, _words),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: b"[" + b",".join(parts) + b"]"),
        st.dictionaries(st.from_regex(rb"[a-z]{1,3}", fullmatch=True), inner, max_size=3).map(
            lambda parts: b"{" + b",".join(b'"%s":%s' % each for each in parts.items()) + b"}"
        ),
    ),
    max_leaves=6,
)
_depths = st.sampled_from([1, 60, 200, 20_000])
_deep = st.builds(
    lambda depth, inner: b'[{"a":' * depth + inner + b"}]" * depth, _depths, st.one_of(_strings, _words)
)
_junk = st.one_of(_strings, _words, _nested, _deep)
_NEEDED = ("transaction_id", "event_time", "amount", "currency", "customer", "device", "online")


@pytest.mark.long
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(["memo", "country", "visits", "distance", "other", "at2"]), _junk),
    st.booleans(),
    st.booleans(),
)
def test_no_field_that_can_be_done_without_costs_the_payment(
    junk: dict[str, bytes], first: bool, marked: bool
) -> None:
    """Whoever writes the memo, or a field that nobody reads, cannot keep a payment from being scored."""
    parts = [b'"%s":%s' % (name.encode(), value) for name, value in junk.items()]
    sound = [
        b'"%s":%s' % (name.encode(), json.dumps(value).encode())
        for name, value in VALID.items()
        if name not in junk
    ]
    value = b"{" + b",".join(parts + sound if first else sound + parts) + b"}"
    value = b"\xef\xbb\xbf" + value if marked else value
    taken = records([value])
    roomy = contract(max_record_bytes=1 << 20)
    decoded = decode(taken, roomy, NOW)
    check_against_exact(taken, decoded, roomy)
    assert decoded.rejected.num_rows == 0
    row, plain = decoded.valid.to_pylist()[0], one(event(), roomy)
    assert {name: row[name] for name in _NEEDED} == {name: plain[name] for name in _NEEDED}
    for name in ("memo", "country", "visits", "distance"):
        if name not in junk:
            assert row[name] == plain[name]
        told = [fault for fault in row["faults"] or () if fault.startswith(f"{name}: ")]
        assert not told or name in junk
        unusable = row[name] is None and name in junk and junk[name] != b"null"
        assert not unusable or told


FAULTY: list[tuple[bytes, str, Any, str]] = [
    (b'"x\\ud83d"', "memo", "x\ufffd", "memo: broken characters replaced"),
    (b'"x\xff\xfe"', "memo", "x\ufffd\ufffd", "memo: broken characters replaced"),
    (b'"' + b"m" * 70_000 + b'"', "memo", "m" * 12, "memo: cut at 12"),
    (b"[" * 50_000 + b"]" * 50_000, "memo", None, "memo: not usable as string"),
    (b"NaN", "memo", None, "memo: not usable as string"),
    (b"7", "memo", None, "memo: not usable as string"),
    (b'"DE\xff"', "country", "DE\ufffd", "country: broken characters replaced"),
    (b'{"code":"DE"}', "country", None, "country: not usable as string"),
    (b'"' + b"c" * 2_000 + b'"', "country", "c" * 1_000, "country: cut at 1000"),
    (b"9223372036854775808", "visits", None, "visits: not usable as integer"),
    (b"1.0", "visits", None, "visits: not usable as integer"),
    (b"Infinity", "distance", None, "distance: not usable as number"),
    (b"01", "distance", None, "distance: not usable as number"),
]


@pytest.mark.parametrize(("text", "name", "expected", "fault"), FAULTY)
def test_a_faulty_field_is_null_or_cut_and_the_row_says_so(
    text: bytes, name: str, expected: Any, fault: str
) -> None:
    value = without(name)[:-1] + b',"%s":%s}' % (name.encode(), text)
    row = one(value, ROOMY)
    assert row[name] == expected
    assert fault in row["faults"]


@pytest.mark.parametrize(
    "spoilt", [b'"other":NaN,', b'"other":' + b"[" * 9_000 + b"]" * 9_000 + b",", b'"other":"\xff\\q\x01",']
)
def test_what_nobody_reads_is_no_fault(spoilt: bytes) -> None:
    row = one(b"{" + spoilt + event()[1:], ROOMY)
    assert (row["transaction_id"], row["faults"]) == ("t1", None)


def test_a_byte_order_mark_is_no_fault_and_no_detour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    assert one(b"\xef\xbb\xbf" + event())["faults"] is None


def test_blocks_of_large_records_are_cut_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = records([event(id=f"{row:03}", other="x" * (row * 37 % 400)) for row in range(99)])
    expected = bits_of(decode(taken, ROOMY, NOW).valid)
    monkeypatch.setattr(decoding, "_BLOCK_BYTES", 1_000)
    blocks = list(decoding._blocks(taken))
    assert max(block["value"].nbytes for block in blocks) <= 1_000
    assert bits_of(decode(taken, ROOMY, NOW).valid) == expected


def test_every_reason_code_has_an_example() -> None:
    elsewhere = {"broker_time_ahead", "missing_framing", "bad_currency", "unknown_schema"}
    elsewhere |= {"unusable_schema", "malformed_avro", "malformed_protobuf"}
    assert {name for name, _ in REASONS} | elsewhere == set(get_args(RejectionReason))


def test_details_quote_nothing_of_the_record() -> None:
    secret = "s3cret"
    values = [event(**{name: [secret]}) for name in VALID] + [event(at=secret), b'{"' + secret.encode()]
    decoded = decode(records(values), FLAT, NOW)
    details = [*decoded.rejected["detail"].to_pylist(), *map(str, decoded.valid["faults"].to_pylist())]
    assert len(details) == len(values)
    assert not [detail for detail in details if secret in detail]


@pytest.mark.parametrize(
    ("under", "text", "moment"),
    [
        (FLAT, '"2026-07-01 12:30:00"', "2026-07-01T12:30:00+00:00"),
        (FLAT, '"2026-07-01T12:30:00.000001+05:30"', "2026-07-01T07:00:00.000001+00:00"),
        (FLAT, '"2024-02-29T23:59:59-00:30"', "2024-03-01T00:29:59+00:00"),
        (BERLIN, '"2026-07-01T12:30:00"', "2026-07-01T10:30:00+00:00"),
        (BERLIN, '"2026-01-01T12:30:00"', "2026-01-01T11:30:00+00:00"),
        (BERLIN, '"2026-07-01T12:30:00Z"', "2026-07-01T12:30:00+00:00"),
        (PATTERN, '"01.07.2026 12:30:00"', "2026-07-01T10:30:00+00:00"),
        (EPOCH, "1782909000250", "2026-07-01T12:30:00.250000+00:00"),
        (EPOCH, "1782909000250.5", "2026-07-01T12:30:00.250500+00:00"),
        (DAYS, "1.5", "2020-01-02T12:00:00+00:00"),
    ],
)
def test_event_times_are_read_as_the_contract_says(under: EventContract, text: str, moment: str) -> None:
    value = event().replace(json.dumps(VALID["at"]).encode(), text.encode())
    assert one(value, under)["event_time"].isoformat() == moment


def test_times_at_the_bounds_are_kept() -> None:
    edges = contract(
        event_time={
            "field": "at",
            "earliest": "2026-07-01T00:00:00Z",
            "latest": "2026-07-02T00:00:00Z",
            "max_ahead": "5m",
        }
    )
    times = [
        "2026-06-30T23:59:59.999999Z",
        "2026-07-01T00:00:00Z",
        "2026-07-02T00:00:00Z",
        "2026-07-02T00:00:01Z",
    ]
    assert [reason(event(at=time), edges) for time in times] == ["absurd_time", None, None, "absurd_time"]
    late = 1_782_909_000_000_000
    ahead = records([event(at="2026-07-01T12:35:00Z"), event(at="2026-07-01T12:35:00.000001Z")], [late, late])
    assert decode(ahead, FLAT, NOW).rejected["reason"].to_pylist() == ["time_ahead_of_broker"]


def test_a_stamp_ahead_of_the_machine_s_clock_is_rejected_whatever_it_carries() -> None:
    ahead = int(FLAT.event_time.max_ahead / timedelta(microseconds=1))
    edge = STAMP + ahead
    taken = records([event(), None, event(), event()], [edge, edge + 1, edge + 1, STAMP])
    decoded = decode(taken, FLAT, NOW)
    assert decoded.valid["offset"].to_pylist() == [0, 3]
    assert decoded.rejected["reason"].to_pylist() == ["broker_time_ahead"] * 2
    for name in ("value", "headers"):
        assert decoded.rejected[name].to_pylist() == taken[name].to_pylist()[1:3]


def test_untrusted_text_is_cut_by_characters_not_bytes() -> None:
    for text in ("a" * 13, "ä" * 12, "ä" * 13, "\U0001f600" * 30, "plain"):
        for escaped in (True, False):
            value = json.dumps({**VALID, "memo": text}, ensure_ascii=escaped).encode()
            assert one(value, contract(max_record_bytes=2_000))["memo"] == text[:12]


def test_the_last_of_doubled_keys_counts_and_escaped_keys_are_keys() -> None:
    assert one(b'{"amount": "x", ' + event()[1:])["amount"] == 12.34
    assert one(event()[:-1] + b', "country": null}')["country"] is None
    assert one(event().replace(b'"amount"', b'"am\\u006funt"'))["amount"] == 12.34


def test_absent_and_null_optional_fields_are_null() -> None:
    for value in (without("country"), event(country=None)):
        row = one(value)
        assert row["country"] is None
        assert row["country_again"] is None


def test_dotted_fields_step_into_objects_unless_named_so() -> None:
    money = {"amount": 5, "currency": "EUR"}
    assert one(event(money=money, note={"text": "inner"}), NESTED)["memo"] == "inner"
    assert one(event(money=money, note={"text": "inner"}, **{"note.text": "flat"}), NESTED)["memo"] == "flat"
    assert one(event(money=money, note="text"), NESTED)["memo"] is None
    assert reason(event(money=[5]), NESTED) == "missing_field"


def test_numbers_are_the_doubles_python_reads() -> None:
    texts = ["0.1", "123456789012.345", "0.000000000000001", "999999999999999", "9007199254740993", "1e3"]
    texts += ["123456789012345678", "12345678901234567890", "0.30000000000000004", "2.2250738585072014e-308"]
    values = [event().replace(b"12.34", text.encode()) for text in texts]
    under = contract(amount={"field": "amount", "most": 1e20})
    assert bits(decode(records(values), under, NOW).valid["amount"]) == [float(text).hex() for text in texts]


def test_negative_zero_keeps_its_sign_and_never_shows_in_an_id() -> None:
    row = one(event().replace(b'"t1"', b"-0").replace(b"17", b"-0").replace(b"-1.5", b"-0.0"))
    assert (row["transaction_id"], row["device"], row["distance"].hex()) == ("0", "0", "-0x0.0p+0")


def test_no_records_give_two_empty_tables_of_the_usual_shape() -> None:
    nothing, something = decode(records([]), FLAT, NOW), decode(records([event(), None]), FLAT, NOW)
    assert (nothing.valid.num_rows, nothing.rejected.num_rows) == (0, 0)
    assert (nothing.valid.schema, nothing.rejected.schema) == (
        something.valid.schema,
        something.rejected.schema,
    )


def test_a_large_batch_with_a_few_bad_rows_keeps_the_order_of_its_records() -> None:
    spoil = {7: b"\xff", 500: None, 20_000: event(memo="a\u0000b"), 33_000: b"{"}
    values = [spoil.get(row, event(id=f"t{row}", amount=row / 4)) for row in range(40_000)]
    taken = records(values)
    for column_type in (pa.binary(), pa.large_binary()):
        place = taken.schema.get_field_index("value")
        decoded = decode(taken.set_column(place, "value", taken["value"].cast(column_type)), FLAT, NOW)
        assert decoded.rejected["offset"].to_pylist() == [7, 500, 33_000]
        assert decoded.valid["offset"].to_pylist() == [
            row for row in range(40_000) if row not in (7, 500, 33_000)
        ]
        assert decoded.valid["amount"].to_pylist() == [
            12.34 if row == 20_000 else row / 4 for row in range(40_000) if row not in (7, 500, 33_000)
        ]


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        (
            "handbook",
            {
                "TRANSACTION_ID": 0,
                "TX_DATETIME": "2018-04-01 00:00:31",
                "CUSTOMER_ID": 596,
                "TERMINAL_ID": 3156,
                "TX_AMOUNT": 57.16,
                "TX_FRAUD": 0,
            },
            ["0", "2018-04-01T00:00:31+00:00", 57.16, "EUR", "596", "3156"],
        ),
        (
            "amlsim",
            {"tx_id": 1, "sourceNodeId": 249, "targetNodeId": 9015, "value": 104.06, "time": 1},
            ["1", "2020-01-02T00:00:00+00:00", 104.06, "USD", "249", "9015"],
        ),
        (
            "simulator",
            {
                "tx_id": "t9",
                "event_time": "2026-07-01T00:00:00+00:00",
                "customer_id": "c1",
                "terminal_id": "m2",
                "amount": 3,
                "currency": "EUR",
            },
            ["t9", "2026-07-01T00:00:00+00:00", 3.0, "EUR", "c1", "m2"],
        ),
    ],
)
def test_rows_of_the_shipped_shapes_decode(name: str, row: dict[str, Any], expected: list[Any]) -> None:
    shipped = load_contract(name)
    found = one(json.dumps(row).encode(), shipped)
    values = [found[column.name] for column in shipped.columns][:6]
    assert [each.isoformat() if hasattr(each, "isoformat") else each for each in values] == expected
    assert "TX_FRAUD" not in found


@pytest.mark.parametrize("at", ["2026-07-01T12:30:00", "2026-07-01 12:30:00.5+02:00", "1999-12-31T23:59:59Z"])
def test_plain_rows_take_the_fast_path(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> dict[str, Any]:
        raise AssertionError("went through the exact decoder")

    monkeypatch.setattr(ExactDecoder, "decode_one", refuse)
    assert (
        one(event(at=at, visits=-(10**17)).replace(b"thanks", "höflich".encode()))["transaction_id"] == "t1"
    )
    assert one(event(at=1_782_909_000_250), EPOCH)["currency"] == "EUR"
    assert one(event(at=1_782_909_000_250.5), EPOCH)["currency"] == "EUR"


def test_a_field_that_was_renamed_is_read_under_both_names() -> None:
    renamed = contract(aliases={"who": ["customer", "client.id"]})
    old = {**VALID, "customer": "old"}
    del old["who"]
    older = {**VALID, "client": {"id": "older"}, "who": None}
    decoded = decode(records([event(), json.dumps(old).encode(), json.dumps(older).encode()]), renamed, NOW)
    assert decoded.valid["customer"].to_pylist() == ["c1", "old", "older"]
    neither = {**VALID, "who": None}
    rejected = decode(records([json.dumps(neither).encode()]), renamed, NOW).rejected
    assert rejected["reason"].to_pylist() == ["missing_field"]


def test_aliases_name_fields_that_are_read() -> None:
    with pytest.raises(ConfigurationError, match="aliases are other names of fields that are read"):
        contract(aliases={"whom": ["who"]})
