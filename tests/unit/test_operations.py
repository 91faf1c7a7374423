"""Every error that stops or delays the work is explained to operators, in the words that they read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("operations.md", "machines.md", "kafka.md", "stores.md", "models.md")
ERRORS = {"DataLossError", "MachineError", "FencedError", "RetryableError", "StoreError", "DiskError"}
LEAST_LETTERS = 10
_SPAN = re.compile(r"`([^`\n]+)`")
_VALUE = "…"

# Where a message is made, and its source → why no page quotes it.
UNQUOTED = {
    ("streaming/commands/status.py", "away"): "the cause of `store_away`, in the store's words",
    ("streaming/databricks/smoke.py", "fault"): "the same, of the smoke run",
    ("streaming/store/client.py", "f'{place}: {said}'"): "the store's words, shown as `store_away`",
    ("streaming/store/faults.py", "f'{place}: {first_line(text)}'"): "as above",
    ("streaming/store/faults.py", "f'{place}: {code}: {first_line(text)}'"): "as above",
    ("streaming/delta/faults.py", "f'{place}: {_last_words(fault)}'"): "the system's, as `disk_unusable`",
    ("streaming/delta/lake_table.py", "f'{self.place.name}: {fault}'"): "Delta's, of a commit made again",
    ("streaming/batch/stream_topics.py", "refusal(lost)"): "made in another module; rows of exit code 5",
    ("streaming/labels/label_topic.py", "str(refused)"): "the broker's refusal of a right, see its row",
    ("streaming/run/service_run.py", "self._jvm_has_ended(spec)"): "made there; the row that begins so",
    ("streaming/service/supervisor.py", "missing"): "the cause of the condition that is waited for",
    (
        "streaming/commands/doctor_checks.py",
        "str(fault)",
    ): "Docker's words, shown with advice",
    (
        "agent/model/processes.py",
        "f'{self.name} was ended while it started: it is not needed any more'",
    ): "the agent ends, and nobody reads it",
}


class Raised(NamedTuple):
    """A message as its module makes it, with `…` for every value."""

    module: str
    source: str
    text: str


class Function:
    """The errors that a function makes, with what it has given names to before."""

    def __init__(self, node: ast.AST) -> None:
        self._node = node
        self._named = {
            target.id: each.value
            for each in ast.walk(node)
            if isinstance(each, ast.Assign)
            for target in each.targets
            if isinstance(target, ast.Name)
        }

    def raised(self, module: str) -> Iterator[Raised]:
        for node in ast.walk(self._node):
            if isinstance(node, ast.Call) and self._is_error(node.func):
                (message,) = node.args
                yield Raised(module, ast.unparse(message), self._text(message))

    def _is_error(self, kind: ast.expr) -> bool:
        meant = self._meant(kind)
        either = [meant.body, meant.orelse] if isinstance(meant, ast.IfExp) else [meant]
        return any(isinstance(each, ast.Name) and each.id in ERRORS for each in either)

    def _meant(self, node: ast.expr) -> ast.expr:
        return self._named.get(node.id, node) if isinstance(node, ast.Name) else node

    def _text(self, node: ast.expr) -> str:
        node = self._meant(node.value if isinstance(node, ast.FormattedValue) else node)
        if isinstance(node, ast.Constant):
            return str(node.value)
        if isinstance(node, ast.JoinedStr):
            return "".join(map(self._text, node.values))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "rstrip":
            return self._text(node.func.value)
        return _VALUE


def raised_in(source: str, module: str) -> Iterator[Raised]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    yield from dict.fromkeys(each for node in functions for each in Function(node).raised(module))


def all_raised() -> list[Raised]:
    files = [path for folder in ("schemas", "agent", "streaming") for path in (ROOT / folder).rglob("*.py")]
    modules = [path for path in sorted(files) if not path.is_relative_to(ROOT / "streaming" / "testing")]
    return [
        each
        for path in modules
        for each in raised_in(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    ]


def is_quoted(message: str, quote: str) -> bool:
    """Whether what a page quotes is a message or a long part of it, with `…` in both for what differs."""
    parts = [part.strip() for part in quote.split(_VALUE) if part.strip(" :;,.")]
    telling = re.sub(r"\W", "", "".join(parts))
    if quote == message:
        return telling != ""
    found = re.search(".*".join(map(re.escape, parts)), message, re.DOTALL)
    return len(telling) >= LEAST_LETTERS and " " in quote.strip() and found is not None


def quotes() -> list[str]:
    texts = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in PAGES]
    return [span for text in texts for span in _SPAN.findall(text)]


def test_every_error_is_explained_in_the_manual() -> None:
    raised, listed = all_raised(), quotes()
    assert len(raised) > 100
    missing = [each for each in raised if not any(is_quoted(each.text, quote) for quote in listed)]
    assert {each[:2] for each in missing} == set(UNQUOTED), missing


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("raise DataLossError('all of it')", "all of it"),
        ("raise DiskError(f'{place}: row {number}' ' is gone')", "…: row … is gone"),
        ("problem = f'of {one}'\nraise StoreError(problem)", "of …"),
        ("kind = Taken if busy else MachineError\nraise kind(f'{name} ended')", "… ended"),
        ("about = f'of {one}'\nraise StoreError(f'asking {about}')", "asking of …"),
        ("raise FencedError(by(whom))", "…"),
    ],
)
def test_messages_are_found_however_they_are_raised(source: str, text: str) -> None:
    function = "def f():\n" + indent(source, "    ")
    assert [each.text for each in raised_in(function, "m")] == [text]


@pytest.mark.parametrize(
    ("message", "quote", "expected"),
    [
        ("…: row … is gone or empty", "… is gone or empty", True),
        ("…: row … is gone or empty", "row … is gone or empty: …", False),
        ("… answered …", "… answered …", True),
        ("… answered … of …", "… answered …", False),
        ("…: …", "…: …", False),
    ],
)
def test_a_quote_is_the_whole_message_or_a_long_part_of_it(message: str, quote: str, expected: bool) -> None:
    assert is_quoted(message, quote) == expected
