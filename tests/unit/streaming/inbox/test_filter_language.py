"""Filters are read as they are meant, written so that they read back, and refused where they are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from streaming.inbox.filter_language import (
    EVERYTHING,
    MOST_CHARACTERS,
    MOST_COMPARISONS,
    MOST_DEPTH,
    AnyPart,
    EveryPart,
    FieldAmong,
    FieldCompared,
    Filter,
    NoPart,
    parse_filter,
    written,
)

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("and", "or", "not", "in")
)
VALUES = st.text(max_size=12)
COMPARED = st.builds(FieldCompared, NAMES, st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "~"]), VALUES)
AMONG = st.builds(FieldAmong, NAMES, st.lists(VALUES, min_size=1, max_size=4).map(tuple))
FILTERS = st.recursive(
    COMPARED | AMONG,
    lambda inner: st.one_of(
        st.builds(NoPart, inner),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: EveryPart(tuple(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: AnyPart(tuple(parts))),
    ),
    max_leaves=8,
)


def depth(found: Filter) -> int:
    parts = (found.part,) if isinstance(found, NoPart) else getattr(found, "parts", ())
    return 1 + max(map(depth, parts), default=0)


@given(FILTERS)
def test_what_is_written_reads_back(wanted: Filter) -> None:
    text = written(wanted)
    if len(text) <= MOST_CHARACTERS and depth(wanted) < MOST_DEPTH / 2:
        assert parse_filter(text) == wanted


@given(st.text(alphabet='abor nti()"\\=<>~!,0', max_size=60) | st.text(max_size=60))
def test_any_text_is_a_filter_or_refused_with_its_place(text: str) -> None:
    try:
        found = parse_filter(text)
    except ConfigurationError as fault:
        assert fault.where == "filter"
        assert "at character" in str(fault)
    else:
        assert parse_filter(written(found)) == found if found != EVERYTHING else text.strip() == ""


def test_and_binds_closer_than_or_and_not_closest() -> None:
    a, b, c = (FieldCompared(name, "=", "1") for name in "abc")
    assert parse_filter("a = 1 or b = 1 and c = 1") == AnyPart((a, EveryPart((b, c))))
    assert parse_filter("(a = 1 or b = 1) and c = 1") == EveryPart((AnyPart((a, b)), c))
    assert parse_filter("not a = 1 and b = 1") == EveryPart((NoPart(a), b))
    assert parse_filter("not (a=1 and b=1)") == NoPart(EveryPart((a, b)))
    assert parse_filter('a in (1, "2 3",or_)') == FieldAmong("a", ("1", "2 3", "or_"))
    assert parse_filter("  ") == EVERYTHING


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("severity", "an operator"),
        ("severity =", "a value"),
        ("severity = high and", "a field"),
        ("severity = high low = 3", "`and`, `or` or the end, at character 17"),
        ("(severity = high", "expected '\\)'"),
        ("severity in high", "expected '\\('"),
        ("severity = and", "in quotes"),
        ("1; drop table alerts", "the name of a field, at character 1"),
        ('memo = "open', "at character"),
        ("not " * 40 + "a = 1", "deep"),
        ("(" * 40 + "a = 1" + ")" * 40, "deep"),
        (" and ".join(["a = 1"] * (MOST_COMPARISONS + 1)), "comparisons"),
        ("a in (" + "1," * 300 + "1)", "values"),
        ("a = " + "x" * MOST_CHARACTERS, "characters"),
    ],
)
def test_what_is_no_filter_is_refused_with_what_was_expected(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_filter(text)
