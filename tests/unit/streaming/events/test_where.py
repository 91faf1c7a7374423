"""What a contract wants of a topic: the same by the scan and by the exact decoder, before anything else."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.contract import EventContract
from schemas.event_conditions import Condition, parse_condition
from streaming.events.decode import decode
from streaming.events.exact_decode import ExactDecoder, FilteredError
from streaming.events.where import holds
from tests.unit.schemas.test_event_conditions import written as condition_text
from tests.unit.streaming.events.test_decode import NOW, VALID, check_against_exact, contract, event, records
from tests.unit.streaming.events.test_shapes import spoilt

VALUES: tuple[Any, ...] = (
    *("c", "C", "", "é", "z\u00e9", "\n", "1", "true", "0"),
    *(0, 1, -1, 2, 999_999_999_999_999_999, 2**53 + 1, 2**63, 10**400),
    *(0.0, 1.0, 1.5, -0.5, 1e300, 0.1, 9007199254740993.0),
    *(True, False, None, [], ["c"], {}, {"op": "c"}),
)
LITERALS: list[Any] = [each for each in VALUES if isinstance(each, str | bool | float)]
LITERALS += [0, 1, -1, 2, 2**53 + 1]
PATHS = ["op", "payload.op", "payload.list[1]", "amount", "who", "payload"]


def one_test(draw: random.Random) -> str:
    field, literal = draw.choice(PATHS), draw.choice(LITERALS)
    alike = [each for each in LITERALS if type(each) is type(literal)]
    kind = draw.randrange(4)
    if kind == 0:
        return f'"{field}" is {draw.choice(["", "not "])}null'
    if kind == 1:
        listed = ", ".join(map(_literal, draw.sample(alike, min(2, len(alike)))))
        return f'"{field}" {draw.choice(["", "not "])}in ({listed})'
    sign = "=" if isinstance(literal, bool) else draw.choice(["=", "<", "<=", ">", ">=", "<>"])
    return f'"{field}" {sign} {_literal(literal)}'


def condition_of(draw: random.Random) -> str:
    parts = [f"{draw.choice(['', 'not '])}{one_test(draw)}" for _ in range(draw.choice([1, 1, 2, 3]))]
    return f" {draw.choice(['and', 'or'])} ".join(parts)


def _literal(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else json.dumps(value)


def changed(draw: random.Random) -> bytes | None:
    if draw.random() < 0.05:
        return None
    payload = {"op": draw.choice(VALUES), "list": [1, draw.choice(VALUES)]}
    given: dict[str, Any] = {"op": draw.choice(VALUES), "payload": draw.choice([payload, payload, "c", None])}
    if draw.random() < 0.3:
        given |= {draw.choice(["who", "amount", "id"]): draw.choice(VALUES)}
    text = json.dumps({**VALID, **given}, ensure_ascii=draw.random() < 0.5).encode()
    return spoilt(draw, text) if draw.random() < 0.3 else text


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_the_scan_wants_what_the_exact_decoder_wants(seed: int) -> None:
    draw = random.Random(seed)
    under = contract(
        where=condition_of(draw),
        tombstones=draw.choice([None, "reject", "filter"]),
        max_record_bytes=2000,
        extra={"country": {"field": "country"}},
    )
    taken = records([changed(draw) for _ in range(60)])
    check_against_exact(taken, decode(taken, under, NOW), under)


OPERATIONS = contract(where="payload.op = 'c'")


def operation(op: Any, **changes: Any) -> bytes:
    return event(payload={"op": op}, **changes)


def reasons(values: list[bytes | None], under: EventContract) -> list[str]:
    decoded = decode(records(values), under, NOW)
    found = {
        **{row["offset"]: "stored" for row in decoded.valid.to_pylist()},
        **{row["offset"]: row["reason"] for row in decoded.rejected.to_pylist()},
        **{row["offset"]: row["reason"] for row in decoded.filtered.to_pylist()},
    }
    return [found[offset] for offset in range(len(values))]


def test_the_filter_judges_before_roles_are_required() -> None:
    values = [
        operation("c"),
        operation("u"),
        json.dumps({"payload": {"op": "d"}}).encode(),
        None,
        json.dumps({"payload": {"op": "c"}}).encode(),
        event(),
        operation(7),
        b"{",
        b'{"payload": {"op": "u"}, "amount": NaN}',
    ]
    expected = ["stored", "where", "where", "tombstone", "missing_field", "where_unknown", "where_unknown"]
    assert reasons(values, OPERATIONS) == [*expected, "malformed_json", "where"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "null_value"),
        ({"tombstones": "filter"}, "tombstone"),
        ({"where": "op = 'c'"}, "tombstone"),
        ({"where": "op = 'c'", "tombstones": "reject"}, "null_value"),
    ],
)
def test_tombstones_go_where_the_contract_says(keys: dict[str, Any], expected: str) -> None:
    assert reasons([None], contract(**keys)) == [expected]


def test_a_contract_without_a_filter_keeps_its_digest_and_says_nothing_of_one() -> None:
    plain = contract()
    assert not {"where", "tombstones"} & plain.model_dump().keys()
    assert plain.digest != OPERATIONS.digest


def test_what_the_scan_vouches_for_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("decoded one at a time")

    values: list[bytes | None] = [operation(op) for op in ("c", "u", 5, None, "\n", "é")]
    expected = reasons([*values, None], OPERATIONS)
    monkeypatch.setattr(ExactDecoder, "decode_one", refuse)
    assert reasons([*values, None], OPERATIONS) == expected


def test_whole_numbers_are_compared_to_the_last_digit() -> None:
    under = contract(where=f"account > {2**53}")
    assert reasons([event(account=2**53), event(account=2**53 + 1)], under) == ["where", "stored"]


@given(st.integers(0, 2**32))
def test_a_condition_or_its_opposite_holds_unless_both_are_unknown(seed: int) -> None:
    draw = random.Random(seed)
    condition: Condition = parse_condition(condition_of(draw))
    opposite = parse_condition(f"not ({condition_text(condition)})")
    chosen = {path: draw.choice(VALUES) for path in PATHS}
    found, other = holds(condition, chosen.get), holds(opposite, chosen.get)
    assert (found is None) == (other is None)
    assert found is None or found is not other


def test_the_exact_decoder_says_why_it_leaves_an_event_out() -> None:
    with pytest.raises(FilteredError) as caught:
        ExactDecoder(OPERATIONS).decode_one(operation("u"), 0)
    assert caught.value.reason == "where"
