"""Conditions over raw fields: what is read is what was written, and all else is refused with a reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from schemas.event_conditions import (
    AllOf,
    AnyOf,
    Compared,
    Condition,
    IsNull,
    Not,
    OneOf,
    fields_of,
    parse_condition,
)
from tests.unit.schemas.test_contract import SMALLEST, parsed

WORDS = [
    "and",
    "or",
    "not",
    "in",
    "between",
    "is",
    "null",
    "true",
    "(",
    ")",
    ",",
    "=",
    "<>",
    "'a'",
    "1",
    "a.b",
]

fields = st.sampled_from(["op", "payload.op", "items[0].kind", "ein feld", "a.b-c[2][0]", "in"])
texts = st.text(max_size=5)
numbers = st.one_of(st.integers(-(10**17), 10**17), st.floats(allow_nan=False, allow_infinity=False))
tests = st.one_of(
    st.builds(Compared, fields, st.sampled_from(["=", "<", "<=", ">", ">="]), st.one_of(texts, numbers)),
    st.builds(Compared, fields, st.just("="), st.booleans()),
    st.builds(OneOf, fields, st.lists(texts, min_size=1, max_size=3).map(tuple)),
    st.builds(OneOf, fields, st.lists(numbers, min_size=1, max_size=3).map(tuple)),
    st.builds(IsNull, fields),
)
conditions: st.SearchStrategy[Condition] = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: AllOf(tuple(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: AnyOf(tuple(parts))),
    ),
    max_leaves=6,
)


def written(condition: Condition) -> str:
    """Write a condition as people do, with brackets around all of its parts."""
    match condition:
        case Not(inner):
            return f"not ({written(inner)})"
        case AllOf(parts) | AnyOf(parts):
            word = " and " if isinstance(condition, AllOf) else " OR "
            return word.join(f"({written(part)})" for part in parts)
        case IsNull(field):
            return f'"{field}" is null'
        case OneOf(field, literals):
            return f'"{field}" in ({", ".join(map(_literal, literals))})'
        case Compared(field, sign, literal):
            return f'"{field}" {sign} {_literal(literal)}'


def _literal(value: str | bool | float) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower()


@given(conditions)
def test_what_is_written_is_what_is_read(condition: Condition) -> None:
    assert parse_condition(written(condition)) == condition


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map(" ".join)))
def test_any_other_text_is_refused_with_a_reason(text: str) -> None:
    try:
        parse_condition(text)
    except ValueError as fault:
        assert str(fault)


def test_short_forms_mean_what_sql_means_by_them() -> None:
    assert parse_condition("a <> 'b'") == parse_condition("a != 'b'") == Not(Compared("a", "=", "b"))
    assert parse_condition("a not in (1)") == Not(OneOf("a", (1,)))
    assert parse_condition("a is not null") == Not(IsNull("a"))
    between = AllOf((Compared("a", ">=", -1), Compared("a", "<=", 2.5)))
    assert parse_condition("a between -1 and 2.5") == between
    assert parse_condition("a between -1 and 2.5 and b = 'x'") == AllOf((between, Compared("b", "=", "x")))
    assert parse_condition("NOT a = 1 or b[0].c = TRUE") == AnyOf(
        (Not(Compared("a", "=", 1)), Compared("b[0].c", "=", True))
    )


def test_fields_are_named_once_in_order() -> None:
    assert fields_of(parse_condition("b = 1 and (a is null or not b = 2 or c in (3))")) == ("b", "a", "c")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an empty condition"),
        ("op", "expected =, <>"),
        ("op = ", "expected a 'text', a number, true or false at its end"),
        ("op = c", "expected a 'text', a number, true or false before 'c'"),
        ("op == 'c'", "true or false before"),
        ("op = 'c' payload = 'd'", "expected 'and' or 'or' before \"payload = 'd'\""),
        ("op = 'c", 'cannot read "\'c"'),
        ("(op = 'c'", "expected ')' at its end"),
        ("op in ()", "expected a 'text'"),
        ("op in ('c', 1)", "compared with one type"),
        ("op not = 1", "expected 'in' or 'between'"),
        ("op is 1", "expected 'null'"),
        ("op > true", "have no order"),
        ("op = 1234567890123456789", "at most 18 digits"),
        ("op = 1e999", "too large"),
        ("'a' = op", "expected a field"),
        ('"[0]" = 1', "names no field"),
        ("not " * 60 + "a = 1", "nested deeper"),
        (" and ".join(["a = 1"] * 400), "1000 at most"),
    ],
)
def test_a_fault_is_told_at_its_place(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parsed({**SMALLEST, "where": text})
    assert caught.value.key == "where"
    assert said in str(caught.value)
