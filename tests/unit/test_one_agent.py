"""An agent is handed on as one: no function takes its lake, or the settings, and its spec side by side."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for folder in ("streaming", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
HALVES = ({"Place", "AgentSpec"}, {"Settings", "AgentSpec"})
# The function that makes the lake.
MAKES_IT = {"streaming/delta/lake.py": ["open"]}


def in_halves(source: str) -> Iterator[str]:
    """Yield the functions that take an agent in halves."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            types = {ast.unparse(each.annotation) for each in taken if each.annotation is not None}
            if any(halves <= types for halves in HALVES):
                yield node.name


def makes_readers(source: str) -> bool:
    """Whether readers are made of a lake and names instead of an agent."""
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return any(isinstance(called, ast.Name) and called.id == "LakeReader" for called in calls)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_function_takes_an_agent_in_halves(path: Path) -> None:
    name, source = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    assert list(in_halves(source)) == MAKES_IT.get(name, [])
    assert not makes_readers(source) or name == "streaming/delta/lake_reader.py", (
        "LakeReader.of takes the agent"
    )


def test_halves_are_found_wherever_they_stand() -> None:
    source = "async def f(a: Place, *, b: AgentSpec): ...\ndef g(a: Settings, b: int, c: AgentSpec): ...\n"
    whole = "def h(a: HasLake): ...\ndef i(a: Place, b: AgentSpec | None): ...\n"
    assert list(in_halves(source + whole)) == ["f", "g"]
    assert makes_readers("x = LakeReader(lake, names)")
    assert not makes_readers("x = LakeReader.of(agent)")
