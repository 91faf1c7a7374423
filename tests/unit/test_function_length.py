"""No function is longer than a reader can hold, but for loops that are compiled as they stand."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST_LINES = 28  # of the body, without its docstring
PACKAGES = ("agent", "benchmarks", "schemas", "streaming")
COMPILED = {"compiled", "inlined"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions() -> Iterator[tuple[str, Function]]:
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, Function) and not is_compiled(node):
                    yield f"{file.relative_to(ROOT)}:{node.lineno} {node.name}", node


def is_compiled(node: Function) -> bool:
    return any(isinstance(each, ast.Name) and each.id in COMPILED for each in node.decorator_list)


def lines_of(node: Function) -> int:
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_lines_are_those_of_the_body_alone() -> None:
    source = 'def f(\n    a: int,\n) -> int:\n    """Say.\n\n    More.\n    """\n    b = a\n\n    return b\n'
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    assert lines_of(node) == 3


def test_no_function_is_longer_than_one_can_read_at_once() -> None:
    lengths = {name: lines_of(node) for name, node in functions()}
    assert len(lengths) > 1_000
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}
