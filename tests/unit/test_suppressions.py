"""Whoever silences a checker says why, on the same line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("schemas", "agent", "streaming", "benchmarks", "tests")
_SILENCED = re.compile(
    r"# (?:type: ignore\b(?:\[[^\]]*\])?|noqa\b(?:: [A-Z]+[0-9]+(?:, ?[A-Z]+[0-9]+)*)?)(.*)$"
)
_REASON = re.compile(r" +(?:#|--?) \S")


def without_reason(source: str) -> list[str]:
    """Return the lines that silence a checker and do not say why."""
    found = ((line, _SILENCED.search(line)) for line in source.splitlines())
    return [line.strip() for line, silenced in found if silenced and not _REASON.match(silenced[1])]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_suppression_has_a_reason_beside_it(folder: str) -> None:
    files = [path for path in (ROOT / folder).rglob("*.py") if path != Path(__file__).resolve()]
    found = {path.name: lines for path in files if (lines := without_reason(path.read_text("utf-8")))}
    assert files
    assert found == {}


@pytest.mark.parametrize(
    ("line", "is_bare"),
    [
        ("x = y  # type: ignore[arg-type]  # a number by then", False),
        ("import x  # noqa: PLC0415 -- loaded only where it is needed", False),
        ("import x  # noqa: PLC0415, F401 - as above", False),
        ("x = y  # type: ignore[arg-type]", True),
        ("x = y  # type: ignore", True),
        ("import x  # noqa: PLC0415", True),
        ("import x  # noqa", True),
        ("x = y  # nothing is silenced", False),
    ],
)
def test_what_counts_as_a_reason(line: str, is_bare: bool) -> None:
    assert (without_reason(line) != []) is is_bare
