"""Ids, times and filters of what stands beside a value: the same by the scan and one at a time."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.tables import HEADERS
from streaming.events.decode import decode
from tests.unit.streaming.events.test_decode import NOW, check_against_exact, contract, event, records

WHERE = ("\"header:h\" is not null or op = 'c'", "\"key:\" <> '3'", '"header:n" > 1 or "header:n" = \'2\'')
KEYS = (
    b"0",
    b"3",
    b"abc",
    None,
    b'{"a":{"b":5}}',
    b"\xff",
    b"",
    b"\0\0\0\0\7abc",
    b'\0\0\0\0\7{"a":{"b":5}}',
)
DAY, NO_DAY = ("day", b"2026-05-28"), ("day", b"2026-02-30")
SIDES = ([("h", b"x"), DAY], [DAY, ("n", b"2")], [], [("h", None), NO_DAY], [("h", b" \xc3\xa9 "), DAY])


@pytest.mark.long
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_what_stands_beside_a_value_is_read_alike(seed: int) -> None:
    draw = random.Random(seed)
    under = contract(
        transaction_id={
            "fields": ["header:h", "id"],
            "from": "coordinates",
            "normalise": ["trim"],
        },
        event_time={"fields": ["header:day", "at"], "format": "%Y-%m-%d %H:%M"},
        entities={
            "who": {"field": "key:", "null_values": ["0"], "normalise": ["upper"], "required": False},
            "place": {"fields": ["topic:", "who"]},
            "inner": {"field": "key:a.b", "required": False, "type": "integer"},
        },
        where=draw.choice(WHERE),
    )
    taken = records(
        [
            event(
                at=draw.choice(["12:30", "9:05", "x"]), id=draw.choice(["a", None, 3]), op=draw.choice("cd")
            )
            for _ in range(60)
        ]
    )
    columns = {
        "key": pa.array([draw.choice(KEYS) for _ in range(60)], pa.binary()),
        "headers": pa.array([draw.choice(SIDES) for _ in range(60)], HEADERS),
    }
    for name, column in columns.items():
        taken = taken.set_column(taken.schema.get_field_index(name), name, column)
    check_against_exact(taken, decode(taken, under, NOW), under)


def test_a_key_of_avro_or_protobuf_is_refused_by_name_and_one_of_framed_json_is_read() -> None:
    whole = contract(entities={"who": {"field": "key:"}})
    within = contract(entities={"who": {"field": "key:a.b", "type": "integer"}})
    optional = contract(
        entities={"card": {"field": "who"}, "who": {"field": "key:", "required": False}},
    )
    keys = pa.array([b"\0\0\0\0\7\x02a", b'\0\0\0\0\7{"a":{"b":5}}'], pa.binary())
    taken = records([event(), event()])
    taken = taken.set_column(taken.schema.get_field_index("key"), "key", keys)
    refused = decode(taken, whole, NOW).rejected
    assert refused["reason"].to_pylist() == ["mistyped_field"] * 2
    assert refused["detail"].to_pylist() == ["key:"] * 2
    read = decode(taken, within, NOW)
    assert read.valid["who"].to_pylist() == ["5"]
    assert read.rejected["detail"].to_pylist() == ["key:a.b"]
    assert decode(taken, optional, NOW).valid["faults"].to_pylist() == [["who: not usable as string"]] * 2
