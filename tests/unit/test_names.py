"""One thing has one name: no class is defined twice, and words of a private dialect do not come back."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path
    for folder in ("schemas", "agent", "streaming", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
TESTS = [path for path in sorted((ROOT / "tests").rglob("*.py")) if path != Path(__file__).resolve()]
_TEXTS = {".md", ".html", ".js", ".json", ".yaml", ".yml", ".sh", ".css"}
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docker/Dockerfile")),
    *(
        path
        for folder in ("docs", "docker", "agent", "schemas", "streaming")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in _TEXTS
    ),
]

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
# The same within identifiers, split at underscores and capitals.
DIALECT_OF_NAMES = {
    r"\b(told|tells?)\b": "record, report, send, or the noun itself",
    r"\b(heed|wish|lookout)\b": "adopt, order, DetectorInput",
    r"\bin hand\b": "current, open",
    r"\b(looks?|looked)\b(?! (up|ups|ahead|like)\b)": "check, read, refresh",
}
# A finding is what an agent run reports.
FINDINGS = {
    *("schemas/lake_tables.py", "schemas/policy.py", "schemas/spec.py", "schemas/tables.py"),
    *("streaming/commands/agent_view.py", "streaming/commands/describe.py", "streaming/serve/agent_api.py"),
}
# Names of Python's own, and published ones.
KEPT_NAMES = {
    "streaming/audit/audit_check.py": {"findings"},
    "streaming/commands/audit.py": {"findings"},
    "streaming/events/avro_schema.py": {"tell"},
    "streaming/serve/audit_api.py": {"findings"},
    "streaming/store/downloads.py": {"tell"},
}
# Words that are stored, published or part of a prompt stay as they are.
KEPT = {
    "CHANGELOG.md": ["`train --verdicts`"],
    "agent/model/chat_request.py": ['"name": "verdict"'],
    "agent/planning/curated.py": ["one row per verdict", "date of the verdict"],
    "agent/prompts/triage/cases.yaml": ["verdicts"],
    "docs/reference.md": ["`--verdicts`"],
    "streaming/cli/learning.py": ['"--verdicts"'],
    "streaming/detection/checkpoint_files.py": ['"verdicts"'],
    "streaming/detection/reasons.py": ["verdicts on this"],
    "streaming/labels/recorded.py": ['"no verdict"'],
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


def names_in(source: str) -> set[str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {each.string for each in tokens if each.type == tokenize.NAME}


def words_of(name: str) -> str:
    """Split `_tell_late` into `tell late`, and `BatchInHand` into `batch in hand`."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)).lower()


def dialect_of_names(place: str, source: str) -> Iterator[str]:
    about_findings = place in FINDINGS or place.startswith(("agent/planning/", "streaming/actions/"))
    for name in names_in(source) - KEPT_NAMES.get(place, set()):
        words = words_of(name)
        if any(re.search(each, words) for each in DIALECT_OF_NAMES):
            yield name
        if not about_findings and re.search(r"\bfindings?\b", words):
            yield name


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_names_in_the_code_are_words_that_a_newcomer_would_guess(path: Path) -> None:
    found = sorted(dialect_of_names(named(path), path.read_text(encoding="utf-8")))
    assert not found, f"{found}: see DIALECT_OF_NAMES for the plain words, and FINDINGS"


def test_identifiers_are_split_at_underscores_and_capitals() -> None:
    source = "class BatchInHand: _tell_late = LOOK_SECONDS = look_up = hand_over = nextFinding = retold = 0"
    assert sorted(dialect_of_names("streaming/batch/store.py", source)) == [
        *("BatchInHand", "LOOK_SECONDS", "_tell_late", "nextFinding")
    ]
    assert words_of("_XMLInHand2") == "xml in hand 2"


def test_what_is_kept_is_there() -> None:
    for name, names in KEPT_NAMES.items():
        assert names <= names_in((ROOT / name).read_text(encoding="utf-8")), name
    for name, words in KEPT.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert all(each in text for each in words), name
        assert dialect_in(text, []) != [], name
