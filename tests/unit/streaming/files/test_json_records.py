"""JSON by lines, in an array, or one object after the other over any lines holds the same records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from streaming.files import json_records as module
from streaming.files.json_records import json_records

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
records = st.lists(st.dictionaries(st.text(max_size=4), values, min_size=1, max_size=4), max_size=6)


def read(path: Path) -> list[Any]:
    return [json.loads(each.value) for each in json_records(path)]


@pytest.mark.long
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=records, indent=st.sampled_from([None, 1]), piece=st.integers(1, 40), ascii_only=st.booleans())
def test_lines_arrays_and_sequences_hold_the_same(
    tmp_path: Path, events: list[Any], indent: int | None, piece: int, ascii_only: bool
) -> None:
    path = tmp_path / "a.json"
    each = [json.dumps(event, indent=indent, ensure_ascii=ascii_only) for event in events]
    for text in (
        "\n".join(each),
        json.dumps(events, indent=indent, ensure_ascii=ascii_only),
        "\n\n".join(each) + "\n",
    ):
        path.write_text("\ufeff" + text, encoding="utf-8", newline="")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_PIECE", piece)
            assert read(path) == events


def test_records_of_arrays_are_numbered_and_know_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[\n {"a":\n  1},\n {"a": 2}, {"a": 3}\n]\n')
    assert [(each.line, each.number) for each in json_records(path)] == [(2, 1), (4, 2), (4, 3)]


def test_characters_that_are_merely_unescaped_do_no_harm_in_an_array(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": "x\ty"}]')
    assert [each.value for each in json_records(path)] == [b'{"a": "x\ty"}']


@pytest.mark.parametrize("codec", ["utf-16", "utf-32"])
def test_a_text_whose_mark_says_that_it_is_not_utf_8_is_refused_by_its_name(
    tmp_path: Path, codec: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n', encoding=codec)
    with pytest.raises(
        ConfigurationError, match=f"a.jsonl: is text in {codec}, and JSON is UTF-8: convert it"
    ):
        read(path)


def test_a_torn_first_line_does_not_spoil_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1\n{"a": 2}\n')
    assert [each.value for each in json_records(path)] == [b'{"a": 1', b'{"a": 2}']


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"a": 1}\n {"a": 2}]', r"a\.json:2: column 2: expected , or \]"),
        ('[{"a": 1},\n {"a" 2}]', r"a\.json:2: column 7: not JSON"),
        ('[{"a": 1}] x', r"a\.json:1: column 12: expected nothing"),
        ('[{"a": 1},', r"a\.json:1: column 11: not JSON"),
    ],
)
def test_broken_arrays_are_named_by_line_and_column(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=problem):
        read(path)
