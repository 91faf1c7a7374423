"""One thing has one name: no class is defined twice, and words of a private dialect do not come back."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path
    for folder in ("schemas", "agent", "streaming", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
TESTS = [path for path in sorted((ROOT / "tests").rglob("*.py")) if path != Path(__file__).resolve()]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

# What a word of the left was called; the plain word for it is on the right.
DIALECT = {
    r"\b[Vv]erdicts?\b": "label (what is known of a transaction) or classification (what triage says)",
    r"\b_?(standings?|standing_in)\b": "in force, latest, or the noun itself",
    r"\b(is|are) told\b": "receives, is notified, learns",
    r"\b[Ll]ooks? at\b|\blooked at\b": "reads, uses, checks",
    r"\bheed\b|\b(read_)?[Ww]ish\b|\bLookout\b|\bgoing_on_as\b": "adopt, order, DetectorInput, continued_as",
    r"\b[Tt]ells? (what|whether|which|how)\b": "returns, says, measures",
    r"\bin hand\b": "current, open, being taken",
    r"'s to say\b": "is defined by",
}
# Words that are stored, published or part of a prompt stay as they are.
KEPT = {
    "agent/model/chat_request.py": ['"name": "verdict"'],
    "agent/planning/curated.py": ["one row per verdict", "date of the verdict"],
    "docs/reference.md": ["`--verdicts`"],
    "streaming/cli/learning.py": ['"--verdicts"'],
    "streaming/detection/checkpoints.py": ['"verdicts"'],
    "streaming/detection/reasons.py": ["verdicts on this"],
    "streaming/labels/book.py": ['"no verdict"'],
    "streaming/learning/training.py": ['"verdicts"'],
    "tests/integration/test_local_llm.py": ['"name": "verdict"'],
    "tests/unit/streaming/labels/test_label_book.py": ['"no verdict"'],
}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_class_is_defined_twice() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(named(path))
    assert len(places) > 400
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def dialect_in(text: str, kept: list[str]) -> list[str]:
    for words in kept:
        text = text.replace(words, "")
    return [found.group() for word in DIALECT for found in re.finditer(word, text)]


@pytest.mark.parametrize("path", [*SOURCES, *TESTS, *PAGES], ids=named)
def test_words_that_a_newcomer_would_not_guess_do_not_come_back(path: Path) -> None:
    found = dialect_in(path.read_text(encoding="utf-8"), KEPT.get(named(path), []))
    assert not found, f"{found}: see DIALECT for the plain words"


def test_what_is_kept_is_there() -> None:
    for name, words in KEPT.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert all(each in text for each in words), name
        assert dialect_in(text, []) != [], name
