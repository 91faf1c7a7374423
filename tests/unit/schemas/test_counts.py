"""Numbers go with the right form of their noun, and no message writes one without asking for it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.counts import count_of

ROOT = Path(__file__).parents[3]
COUNTED = {
    "alerts", "batches", "calls", "days", "differences", "events", "files", "frauds", "groups", "messages",
    "questions", "records", "requests", "rows", "tables", "transactions", "versions",
}  # fmt: skip
# Sentences of alerts are stored, and compared by replay.
LEFT = ("streaming/detection/",)


@given(st.integers(0, 10**9))
def test_one_is_the_only_number_of_a_single_thing(number: int) -> None:
    said = count_of(number, "call")
    assert said.endswith(" call") == (number == 1)
    assert int(said.split()[0].replace(",", "")) == number


def test_a_noun_may_have_a_plural_of_its_own() -> None:
    assert (count_of(1, "batch", "batches"), count_of(1200, "batch", "batches")) == (
        "1 batch",
        "1,200 batches",
    )


def sources() -> list[Path]:
    folders = ("agent", "schemas", "streaming")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def bare_counts(path: Path) -> Iterator[str]:
    """Yield the whole numbers of an f-string that are followed by a noun that is counted."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            for value, text in zip(node.values, node.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                    noun = re.match(r" ([a-z]+)\b", str(text.value))
                    spec = "" if value.format_spec is None else ast.unparse(value.format_spec)
                    if noun and noun[1] in COUNTED and "." not in spec and not is_constant(value.value):
                        yield f"{ast.unparse(value.value)} {noun[1]}"


def is_constant(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id.isupper()


@pytest.mark.long
def test_counted_nouns_are_written_by_the_one_function() -> None:
    found = {path.relative_to(ROOT).as_posix(): list(bare_counts(path)) for path in sources()}
    assert {name: nouns for name, nouns in found.items() if nouns and not name.startswith(LEFT)} == {}


def test_a_bare_count_is_found(tmp_path: Path) -> None:
    source = tmp_path / "one.py"
    source.write_text('f"{calls} calls about {len(groups):,} groups in {days:.1f} days, {MOST} rows"')
    assert list(bare_counts(source)) == ["calls calls", "len(groups) groups"]
