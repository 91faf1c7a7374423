"""Ids of several fields, written alike, made of what a record has: the same by the scan and one at a time."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from schemas.id_fields import BLANKS, EntityField, joined
from streaming.events.decode import decode
from streaming.events.exact_decode import ExactDecoder
from tests.unit.streaming.events.test_decode import (
    FLAT,
    NOW,
    check_against_exact,
    contract,
    event,
    one,
    reason,
    records,
    without,
)
from tests.unit.streaming.events.test_shapes import spoilt

TEXTS = (
    *("c1", " c1", "C1\u00a0", "UNKNOWN", "unknown ", "", " ", "0", "-", "a|b", "a\\", "|", "\\|", "\n"),
    *("caf\u00e9", "cafe\u0301", "\u00df", "\u0130", "\ufb01", "\ud83d", "x" * 12, "\u00df" * 7, "\u2003y"),
)
VALUES: tuple[Any, ...] = (*TEXTS, None, 0, 7, -1, 10**20, 1.5, True, [], {"a": 1})
STEPS = ("trim", "upper", "nfc", "lower")


def id_of(draw: random.Random, *names: str) -> dict[str, Any]:
    """Return a way to read an id from some of the fields."""
    found: dict[str, Any] = {"field": draw.choice(names)}
    if draw.random() < 0.5:
        found = {"fields": draw.sample(names, draw.choice([2, len(names)]))}
    if draw.random() < 0.5:
        found["null_values"] = draw.sample(TEXTS[:10], draw.choice([1, 2]))
    if draw.random() < 0.5:
        found["normalise"] = sorted({draw.choice(STEPS[:3]), draw.choice(STEPS[:3])})
    return {
        **found,
        "max_length": draw.choice([10, 30]),
        "type": draw.choice(["string", "string", "integer"]),
    }


@pytest.mark.long
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_ids_are_what_the_exact_decoder_makes_of_them(seed: int) -> None:
    draw = random.Random(seed)
    names = ("id", "who", "device", "part")
    made = draw.choice([{}, {"from": "coordinates"}, {"from": "digest"}])
    under = contract(
        transaction_id=draw.choice([id_of(draw, *names) | made, {"field": "id"} | made]),
        entities={
            "customer": id_of(draw, *names),
            "device": id_of(draw, *names) | {"required": False},
            "plain": {"field": "part", "required": False},
        },
        max_record_bytes=2_000,
    )
    values = []
    for _ in range(50):
        content = {name: draw.choice(VALUES if draw.random() < 0.3 else TEXTS[:4]) for name in names}
        text = event(**{name: each for name, each in content.items() if draw.random() < 0.9})
        values.append(spoilt(draw, text) if draw.random() < 0.1 else text)
    taken = records(values)
    check_against_exact(taken, decode(taken, under, NOW), under)


def test_every_blank_that_there_is_is_trimmed() -> None:
    assert sorted(BLANKS) == [chr(each) for each in range(sys.maxunicode + 1) if chr(each).isspace()]


@given(st.lists(st.text("ab|\\", max_size=4), min_size=2, max_size=3), st.data())
def test_no_two_ids_of_several_fields_look_alike(parts: list[str], data: st.DataObject) -> None:
    size = len(parts)
    others = data.draw(st.lists(st.text("ab|\\", max_size=4), min_size=size, max_size=size))
    assert (joined(parts) == joined(others)) == (parts == others)


@given(st.text(max_size=8), st.sets(st.sampled_from(["trim", "upper", "nfc"])))
def test_what_is_written_alike_stays_as_it_is(text: str, steps: set[str]) -> None:
    field = EntityField.model_validate({"field": "x", "normalise": sorted(steps)})
    once = field.normalised(text)
    assert "trim" not in steps or once == once.strip()
    assert "nfc" not in steps or unicodedata.is_normalized("NFC", once)
    assert field.normalised(once) == once


GUEST = contract(
    entities={
        "customer": {"field": "who", "required": False, "null_values": ["UNKNOWN", "0", ""]},
        "device": {"field": "device"},
    }
)


@pytest.mark.parametrize(
    "value",
    [event(who=None), without("who"), event(who="UNKNOWN"), event(who=""), event(who=0), event(who="0")],
)
def test_a_guest_is_nobody_and_pays_all_the_same(value: bytes) -> None:
    row = one(value, GUEST)
    assert (row["customer"], row["device"], row["faults"]) == (None, "17", None)


def test_what_is_no_id_costs_an_optional_entity_alone() -> None:
    row = one(event(who=[1]), GUEST)
    assert (row["customer"], row["faults"]) == (None, ["customer: not usable as string"])


def test_a_placeholder_of_a_required_entity_is_a_missing_one() -> None:
    under = contract(entities={"customer": {"field": "who", "null_values": ["none"], "normalise": ["lower"]}})
    assert reason(event(who="NONE"), under) == "missing_field"
    assert one(event(who="Some"), under)["customer"] == "some"


def test_an_id_of_several_fields_names_them_in_order() -> None:
    under = contract(transaction_id={"fields": ["bank", "id"], "normalise": ["trim", "upper"]})
    assert one(event(bank=" db", id="7|x"), under)["transaction_id"] == "DB|7\\|X"
    assert reason(event(id="7"), under) == "missing_field"


@pytest.mark.parametrize("value", [without("id"), event(id=None)])
@pytest.mark.parametrize("field", [{"field": "id"}, {}, {"fields": ["id", "more"]}])
def test_a_payment_without_an_id_has_that_of_its_record(field: dict[str, Any], value: bytes) -> None:
    place = contract(transaction_id={**field, "from": "coordinates"})
    digest = contract(transaction_id={**field, "from": "digest"})
    assert one(value, place)["transaction_id"] == "events/0/0"
    assert one(value, digest)["transaction_id"] == hashlib.sha256(value).hexdigest()


def test_an_id_that_an_event_has_is_kept() -> None:
    assert (
        one(event(), contract(transaction_id={"field": "id", "from": "coordinates"}))["transaction_id"]
        == "t1"
    )


def test_contracts_without_the_new_keys_keep_their_digest() -> None:
    dumped = FLAT.model_dump(mode="json")
    assert dumped["transaction_id"] == {"field": "id", "type": "string"}
    assert dumped["entities"]["device"] == {"field": "device", "type": "integer"}


def test_a_contract_with_the_new_keys_survives_being_written() -> None:
    under = contract(
        transaction_id={"fields": ["a", "b"], "from": "digest"}, entities=GUEST.model_dump()["entities"]
    )
    dumped = json.loads(under.model_dump_json())
    assert dumped["transaction_id"]["from"] == "digest"
    assert type(under).model_validate(dumped) == under


def test_frequent_shapes_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("decoded one at a time")

    under = contract(
        transaction_id={
            "fields": ["id", "who"],
            "from": "coordinates",
            "normalise": ["trim", "upper", "nfc"],
        },
        entities={
            **GUEST.model_dump()["entities"],
            "other": {"fields": ["who", "device"], "required": False},
        },
    )
    values = [
        event(),
        event(who="UNKNOWN"),
        without("who"),
        event(who=" caf\u00e9"),
        without("id"),
    ]
    expected = decode(records(values), under, NOW).valid
    monkeypatch.setattr(ExactDecoder, "decode_one", refuse)
    assert decode(records(values), under, NOW).valid == expected


@pytest.mark.parametrize("field", ["header:card", "key:", "key:card"])
def test_a_digest_of_the_value_is_no_id_where_something_beside_it_counts(field: str) -> None:
    entities = {"customer": {"field": "who"}, "card": {"field": field}}
    with pytest.raises(ConfigurationError, match="payments that differ there alone would be one"):
        contract(transaction_id={"from": "digest"}, entities=entities)
    assert contract(transaction_id={"from": "coordinates"}, entities=entities).entity_names[1] == "card"
