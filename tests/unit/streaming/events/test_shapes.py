"""Events in people's own shapes, nested, with arrays and escapes: fast, and read as they are meant."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.contract import EventContract
from schemas.event_paths import look_up, steps_of
from streaming.events.decode import decode
from streaming.events.exact_decode import ExactDecoder
from streaming.events.paths import CLOSING, FIELD, FIRST, LAST, PLACE, tree_of
from tests.unit.streaming.events.test_decode import NOW, check_against_exact, contract, event, one, records

AT = {"field": "created", "format": "epoch", "unit": "s"}
CHARGE = contract(
    transaction_id={"field": "id"},
    event_time=AT,
    amount={"field": "amount"},
    entities={"card": {"field": "method.card.print"}, "customer": {"field": "customer"}},
    extra={"city": {"field": "billing.address.city"}, "note": {"field": 'meta.what "n" \\ é'}},
    untrusted_text={"memo": {"field": "text", "max_length": 20}},
    max_record_bytes=1 << 16,
)
TRANSFER = contract(
    transaction_id={"field": "Tx.Id[0].Value"},
    event_time={**AT, "field": "Tx.At"},
    amount={"field": "Tx.Amt.Amt"},
    currency={"field": "Tx.Amt.Ccy"},
    entities={
        "payer": {"field": "Tx.Dbtr.Othr[0].Id"},
        "payee": {"field": "Tx.Cdtr[1][0]", "type": "integer"},
    },
    extra={
        "kind": {"field": "kind"},
        "kinds": {"field": "kind[2]"},
        "inner": {"field": "kind.name"},
    },
    untrusted_text={"memo": {"field": "Tx.Rmt[1].Text[0]", "max_length": 20}},
    max_record_bytes=1 << 16,
)
TEXTS = (
    "café",
    'naïve "quote"',
    "C:\\tmp\n",
    "日本語",
    "\U0001f600 ok",
    "plain",
    "a/b\x7f",
    "\x00",
    "x" * 40,
    "é" * 20,
)


def charge(seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    return {
        "id": f"ch_{seed}",
        "object": "charge",
        "amount": draw.choice([5, 12.5, 0, 1e3, 123456.78]),
        "billing": {
            "address": {"city": draw.choice(TEXTS), "line2": None},
            "tags": ["vip", 3, [1, {"x": None}]],
        },
        "created": 1_782_909_000 + seed,
        "currency": "eur",
        "customer": draw.choice(["cus_1", "cus_é"]),
        "fraud": {},
        "meta": {draw.choice(['what "n" \\ é', "other"]): draw.choice(TEXTS), "basket": "[1,2]"},
        "method": {
            "card": {"checks": {"cvc": "pass"}, "print": f"fp{seed % 7}", "last4": "0042"},
            "type": "card",
        },
        "refunds": {"data": [{"id": "re_1", "tags": ["a", "b", 1.5e3, -0.0]}, []], "count": 0},
        "text": draw.choice(TEXTS),
    }


def transfer(seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    ids = [{"Value": f"e{seed}"}, {"Value": "second"}, 7]
    return {
        "kind": draw.choice(["pacs.008", {"name": "x"}, [1, 2, "third"], [], {}, None, 5]),
        "Tx": {
            "Id": ids[: draw.choice([1, 2, 3])],
            "At": 1_782_909_000 + seed,
            "Amt": {"Amt": 325.02, "Ccy": "ZAR", "Amt2": [1]},
            "Dbtr": {
                "Nm": draw.choice(TEXTS),
                "Othr": [{"Id": f"d{seed % 5}", "Schme": {"Cd": "A"}}, {"Id": "no"}],
            },
            "Cdtr": [[1], [seed % 9, 2], []],
            "Rmt": [{"Text": ["no"]}, {"Text": [draw.choice(TEXTS)]}],
        },
    }


SHAPES = [(CHARGE, charge), (TRANSFER, transfer)]
TOKENS = [
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\\",
        b"\\u",
        b"\\ud83d",
        b"\\ude00",
        b"null",
        b"true",
        b"NaN",
    ),
    *(
        b"1",
        b"-",
        b".",
        b"e5",
        b" ",
        b"\n",
        b"\x00",
        b"\xc3\xa9",
        b"\xff",
        b'""',
        b"{}",
        b"[]",
        b"[0]",
        b'"Tx"',
    ),
    *(
        b'"card":',
        b'"Othr":[',
        b'"method":{',
        b'"kind":',
        b'"Tx.Id[0].Value":',
        b'"\\u0069d":',
        b'{"print":"y"}',
    ),
]


def spoilt(draw: random.Random, value: bytes) -> bytes:
    """Cut out, put in or copied within: what is left is valid now and then."""
    data = bytearray(value)
    for _ in range(draw.choice([0, 1, 1, 2, 3])):
        at, kind = draw.randrange(len(data)), draw.randrange(5)
        if kind == 0:
            del data[at : at + draw.choice([1, 1, 2, 5, 20])]
        elif kind == 1:
            data[at:at] = draw.choice(TOKENS)
        elif kind == 2:
            data[at : at + 1] = draw.choice(TOKENS)
        elif kind == 3:
            data[at] = draw.randrange(256)
        else:
            to = draw.randrange(len(data))
            data[at:at] = data[min(at, to) : max(at, to)][:60]
        data = data or bytearray(b"{}")
    return bytes(data)


def written(draw: random.Random, event: dict[str, Any]) -> bytes:
    keys = list(event)
    draw.shuffle(keys)
    shuffled = {key: event[key] for key in (keys if draw.random() < 0.3 else event)}
    separators = draw.choice([(",", ":"), (", ", ": "), (" ,\n", " :\t")])
    return json.dumps(shuffled, ensure_ascii=draw.random() < 0.5, separators=separators).encode()


@pytest.mark.parametrize(("under", "shape"), SHAPES, ids=["charge", "transfer"])
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_whatever_becomes_of_a_nested_event_is_what_the_exact_decoder_says(
    under: EventContract, shape: Any, seed: int
) -> None:
    draw = random.Random(seed)
    taken = records([spoilt(draw, written(draw, shape(draw.randrange(99)))) for _ in range(30)])
    check_against_exact(taken, decode(taken, under, NOW), under)


ODD = [
    *(
        '"\\ud83d\\ude00"',
        '"\\ud83d"',
        '"\\ude00\\ud83d"',
        '"\\ud83d\\ud83d"',
        '"\\u0000"',
        '"\\/\\b\\f\\n\\r\\t\\"\\\\"',
    ),
    *(
        '"\\x"',
        '"\\u12"',
        '"\\u12G4"',
        '"\\u00E9"',
        '"\\u00e9"',
        '"\t"',
        "null",
        "[1,2",
        "[1,2,]",
        "{}",
        '{"a":}',
        "NaN",
    ),
    *(
        "1e999",
        "01",
        "-0",
        "-",
        "1.",
        ".5",
        "tru",
        "[" * 59 + "]" * 59,
        "[" * 61 + "]" * 61,
        "9" * 5_000,
        "1e5",
    ),
    *(
        '{"a":1,"a":2}',
        '{"a" 1}',
        "{1:2}",
        '["\\ud800"]',
        '["\\z"]',
        "[1 2]",
        "[}",
        "{]",
        " [ 1 , { } ] ",
        '"' + "é" * 21 + '"',
    ),
]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", ["text", "elsewhere", "method", "billing"])
def test_odd_values_anywhere_are_what_the_exact_decoder_says(odd: str, name: str) -> None:
    plain = json.dumps(charge(1))
    values = [f'{plain[:-1]},"{name}":{odd}}}'.encode(), f'{{"{name}":{odd},{plain[1:]}'.encode()]
    taken = records(values)
    check_against_exact(taken, decode(taken, CHARGE, NOW), CHARGE)


@pytest.mark.parametrize(("under", "shape"), SHAPES, ids=["charge", "transfer"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_nested_events_with_arrays_and_escapes_need_no_detour(
    under: EventContract, shape: Any, ascii_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = [json.dumps(shape(seed), ensure_ascii=ascii_only).encode() for seed in range(200)]
    exact = ExactDecoder(under)
    sound = [each for each in sound if exact.decode_one(each, 2**60)["faults"] is None]
    assert len(sound) > 40
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    assert decode(records(sound), under, NOW).valid.num_rows == len(sound)


def test_arrays_are_stepped_into_by_place() -> None:
    row = one(json.dumps(transfer(3)).encode(), TRANSFER)
    assert (row["transaction_id"], row["payer"], row["payee"], row["amount"]) == ("e3", "d3", "3", 325.02)


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("a", ("a",)),
        ("a.b", ("a", "b")),
        ("a[0].b", ("a", 0, "b")),
        ("a[12][3]", ("a", 12, 3)),
        ("a[x]", ("a[x]",)),
        ("a[-1]", ("a[-1]",)),
        ("a..b", ("a", "", "b")),
        ("[0]", (0,)),
        ("a[0]b", ("a[0]b",)),
    ],
)
def test_a_path_is_keys_and_places(path: str, steps: tuple[str | int, ...]) -> None:
    assert steps_of(path) == steps


def test_a_key_that_reads_like_the_whole_path_goes_first() -> None:
    event = {"a[0]": 1, "a": [2], "b.c": 3, "b": {"c": 4}}
    assert [look_up(event, path, steps_of(path)) for path in ("a[0]", "b.c")] == [1, 3]


@pytest.mark.parametrize("path", ["[0]", "[0][1]", "a[0]", "a[x]", "a.", ".a", "."])
def test_a_key_that_reads_like_a_path_is_found_however_it_reads(path: str) -> None:
    under = contract(extra={"odd": {"field": path}, "a": {"field": "a"}})
    events = (
        {path: "literal"},
        {path: None},
        {"a": ["in"]},
        {"a": {"": "in"}},
        {"": {"a": "in"}},
        {"a": "x"},
    )
    taken = records([event(**each) for each in events])
    check_against_exact(taken, decode(taken, under, NOW), under)


def test_paths_that_are_written_differently_may_lead_to_the_same_place() -> None:
    paths = ("a[0]", "a[00]", "a.[0]", "b[1].c", "b[01].c")
    under = contract(extra={f"x{place}": {"field": path} for place, path in enumerate(paths)})
    events = ({"a": ["in"]}, {"a": ["in"], "b": [1, {"c": "in"}]}, {"a[00]": "literal"}, {"b": [{}]})
    taken = records([event(**each) for each in events])
    check_against_exact(taken, decode(taken, under, NOW), under)


def test_the_tree_numbers_paths_and_meets_each_key_once() -> None:
    tree = tree_of(["id", "a.b", "a.c[1]", "a.c[0].d"])
    assert bytes(tree.nodes[:, CLOSING].tolist()) == b"}}]}"
    assert sorted(each for each in tree.slots[:, FIELD] if each >= 0) == [0, 1, 2, 3]
    of_array = tree.slots[tree.nodes[2, FIRST] : tree.nodes[2, LAST]]
    assert of_array[:, PLACE].tolist() == [0, 1]
