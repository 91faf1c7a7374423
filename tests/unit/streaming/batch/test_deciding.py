"""What decides never changes, its memory is in one place, and the way of a batch is spelled out once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streaming.batch.deciders import Deciders
from streaming.batch.engine import Engine
from streaming.definition.agent_definition import AgentDefinition
from streaming.detection import checkpoints
from streaming.home.settings import Settings
from streaming.store.folders import Folders
from streaming.store.local_folders import LocalFolders
from tests.unit.streaming.batch.test_pattern_engine import CONTRACT, NO_LABELS, STREAM, VERSIONS, specified

ROOT = Path(__file__).resolve().parents[4]
MARKS = {"query_id": "q", "batch_id": 0, "created_at": datetime(2026, 5, 1, tzinfo=UTC)}
LONGEST = 20  # lines of code in a function of the pipeline, its docstring left out


def engine_of(home: Path, version: int = 0) -> Engine:
    spec = specified(version, profiles={"block_rows": 16, "checkpoint_rows": 100})
    return Engine.on_rules(Settings.load(home, {}), AgentDefinition.pinned(spec, CONTRACT))


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Kernels cannot be compiled while Hypothesis runs an example."""
    Deciders(engine_of(tmp_path_factory.mktemp("home"))).decide(STREAM.slice(0, 40), NO_LABELS)


@pytest.mark.long
@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, len(VERSIONS) - 1), min_size=1, max_size=5), st.integers(40, 200))
def test_whoever_else_decides_with_a_memory_leaves_it_and_every_decider_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, others: list[int], rows: int
) -> None:
    engine = engine_of(tmp_path_factory.mktemp("home"))
    first = Deciders(engine).decide(STREAM.slice(0, rows), NO_LABELS)
    Deciders(engine).commit(first.judged)
    then = STREAM.slice(rows, 80)
    wanted = Deciders(engine).decide(then, NO_LABELS).alerts(MARKS)
    for version in others:
        Deciders(engine.with_rules(specified(version))).decide(then, NO_LABELS)
    assert Deciders(engine).decide(then, NO_LABELS).alerts(MARKS).equals(wanted)


def test_a_decider_and_an_engine_cannot_be_changed(tmp_path: Path) -> None:
    engine = engine_of(tmp_path)
    for part in (engine, engine.decider):
        for each in fields(part):
            with pytest.raises(FrozenInstanceError):
                setattr(part, each.name, None)


def test_other_rules_and_those_of_before_know_of_the_same_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(tmp_path)
    ruled = engine.with_rules(specified(1))
    engine.commit(engine.judge(STREAM.slice(0, 120), NO_LABELS))
    written, real = list[int](), checkpoints.write

    def write(snapshot: Any, folders: Folders) -> str:
        written.append(snapshot.next_sequence)
        return real(snapshot, folders)

    monkeypatch.setattr(checkpoints, "write", write)
    for each in (ruled, engine, ruled):
        each.checkpoint_if_due()
        each.close()
    assert written == [120]


def test_what_goes_on_from_another_state_holds_that_very_memory(tmp_path: Path) -> None:
    engine, other = (
        engine_of(tmp_path),
        engine_of(tmp_path, 1).saved_in(LocalFolders.of(tmp_path / "elsewhere")),
    )
    engine.commit(engine.judge(STREAM.slice(0, 120), NO_LABELS))
    continued = engine.continued_as(other)
    assert continued.memory is engine.memory
    assert (continued.decider, continued.checkpoints) == (other.decider, other.checkpoints)
    scores = [each.judge(STREAM.slice(120, 60), NO_LABELS).scored.score for each in (engine, continued)]
    np.testing.assert_array_equal(*scores)


def _calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "id", getattr(node.func, "attr", ""))


def _files_that(found: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for folder in ("streaming", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if found in _calls(ast.parse(path.read_text(encoding="utf-8")))
    }


@pytest.mark.long
@pytest.mark.parametrize("step", ["flag", "build_alerts"])
def test_what_becomes_of_rows_is_decided_in_one_place(step: str) -> None:
    assert _files_that(step) == {"streaming/batch/deciders.py"}


@pytest.mark.long
def test_the_row_that_closes_a_batch_is_built_in_one_place() -> None:
    builders = set()
    for path in (ROOT / "streaming").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            keys = {getattr(key, "value", None) for key in getattr(node, "keys", ())}
            if isinstance(node, ast.Dict) and {"next_outbox_seq", "closed_at", "pins"} <= keys:
                builders.add(path.relative_to(ROOT).as_posix())
    assert builders == {"streaming/batch/closing.py"}


def test_the_pipeline_reads_like_a_table_of_contents() -> None:
    tree = ast.parse((ROOT / "streaming/batch/pipeline.py").read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    lengths = {}
    for node in functions:
        body = node.body[1:] if ast.get_docstring(node) else node.body
        lengths[node.name] = (body[-1].end_lineno or 0) - body[0].lineno + 1
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}
