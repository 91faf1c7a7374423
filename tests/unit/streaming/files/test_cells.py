"""Cells become JSON that reads back as what was written."""

from __future__ import annotations

import json
from decimal import Decimal

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.files.cells import number_token, quoted, strings
from streaming.files.dialect import DecimalSign
from streaming.files.event_text import event_texts

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.none() | texts, min_size=1))
def test_every_text_is_quoted_as_json_has_it(values: list[str | None]) -> None:
    assert [json.loads(each) for each in quoted(pa.array(values, pa.string())).to_pylist()] == values


@given(
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=4),
    st.sampled_from([".", ","]),
    st.sampled_from(["other", " ", "'", "\u00a0", "\u202f"]),
)
def test_grouped_numbers_keep_their_digits(number: Decimal, decimal: DecimalSign, group: str) -> None:
    other = "," if decimal == "." else "."
    group = other if group == "other" else group
    text = f"{number:,f}".replace(",", "_").replace(".", decimal).replace("_", group)
    token = number_token(text, decimal)
    assert token is not None
    assert Decimal(token) == number
    json.loads(token)


@pytest.mark.parametrize(
    "text", ["", "-", ".", "1,23,4", "12,34", "1.2.3", "$5", "5 EUR", "0x5", "1_0", "inf", "\u0661"]
)
@pytest.mark.parametrize("decimal", [".", ",", None])
def test_what_is_no_number_is_none(text: str, decimal: DecimalSign | None) -> None:
    assert (text == "12,34" and decimal == ",") or number_token(text, decimal) is None


paths = st.lists(
    st.lists(st.sampled_from(["a", "b", "[0]", "[2]"]), min_size=1, max_size=3).map(
        lambda steps: "".join(each if each[0] == "[" else f".{each}" for each in ["r", *steps]).removeprefix(
            "."
        )
    ),
    min_size=1,
    max_size=5,
    unique=True,
)


@given(paths)
def test_events_of_nested_fields_are_json_with_every_field_where_its_path_leads(names: list[str]) -> None:
    fields = {name: pa.array([f'"{name} {row}"' for row in range(3)]) for name in names}
    for row, text in enumerate(event_texts(fields)):
        event = orjson.loads(text)
        for name in names:
            found = event[name] if name in event else reached(event, name)
            assert found == f"{name} {row}"


def reached(event: object, path: str) -> object:
    for step in path.replace("[", ".[").split("."):
        place = int(step[1:-1]) if step[0] == "[" else step
        event = event[place]  # type: ignore[index]  # what JSON is read as
    return event


@given(
    st.lists(st.none() | st.text(max_size=4) | st.sampled_from(['"', "\\", "\n", "é", "plain"])),
    st.integers(0, 4),
)
def test_texts_of_any_kind_become_strings_of_events(values: list[str | None], first: int) -> None:
    texts = pa.array(values, pa.string()).slice(first)
    rows = event_texts({"a": strings(texts), "b.c": strings(pa.array(["x"] * len(texts), pa.string()))})
    assert [json.loads(each) for each in rows] == [{"a": value, "b": {"c": "x"}} for value in values[first:]]
