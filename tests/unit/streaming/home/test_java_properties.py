"""Properties are read as Java reads them, which is asked."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from streaming.home.java_properties import property_lines
from tests.java_reading import read_by_java
from tests.properties_text import parse_properties

PARTS = (
    "\\", "\\\\", "\n", "\r", "\r\n", "\\\n", "\\\r\n", " ", "\t", "\f", "=", ":", "#", "!", "a",
    "b.c", "\\u0041", "\\u00e9", "\\n", "\\t", "\\ ", "\\=", "\u00a0", "\u2028", "\u000b", "\u0085",
    '"', "ä", "😀", "\\u12", "\\ud83d\\ude00",
)  # fmt: skip


def texts(parts: tuple[str, ...], number: int, most: int) -> list[str]:
    chosen = random.Random(7)
    return ["".join(chosen.choices(parts, k=chosen.randint(1, most))) for _ in range(number)]


def read_here(text: str) -> dict[str, str] | None:
    try:
        return parse_properties(text)
    except ConfigurationError:
        return None


def test_whatever_stands_there_is_read_as_java_reads_it(tmp_path: Path) -> None:
    # Of a backslash at the very end Java makes an empty key, which is nothing to anybody.
    asked = [f"{text}z" for text in texts(PARTS, 3000, 14)]
    found = read_by_java("properties", asked, tmp_path)
    assert len(found) == len(asked)
    assert sum(each is None for each in found) > 100
    differ = [(text, java) for text, java in zip(asked, found, strict=True) if read_here(text) != java]
    assert differ == []


def test_a_key_is_known_by_the_line_it_begins_on() -> None:
    text = "\ufeff# first\r\n\r\na=1\\\r\n  2\r\n! between\n\tb : 3\nc"
    assert property_lines(text) == [(3, "a", "12"), (6, "b", "3"), (7, "c", "")]


@pytest.mark.parametrize("line", ["x\\", "\\\\\\", "\\"])
def test_many_continued_lines_take_no_longer_than_as_many_others(line: str) -> None:
    """Each was joined to all before it: 200,000 took minutes."""
    begun = time.process_time()
    found = parse_properties("key=" + f"{line}\n" * 200_000)
    assert time.process_time() - begun < 5.0
    assert len(found["key"]) == 200_000 * len(parse_properties(f"key={line}")["key"])


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_by_its_line(text: str) -> None:
    try:
        found = property_lines(text)
    except ConfigurationError as refused:
        assert "backslash is written as two" in str(refused)
    else:
        assert [each.number for each in found] == sorted({each.number for each in found})
