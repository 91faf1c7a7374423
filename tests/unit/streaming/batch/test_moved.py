"""A lake that moves to a machine of another fingerprint says so: its batches, log, status and replays."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from streaming.arrays.fingerprint import machine_fingerprint
from streaming.batch import decider, moved
from streaming.batch.engine import Engine
from streaming.batch.moved import ComputedOn
from streaming.batch.steps import BatchStep
from streaming.cli.root import app
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.whole_tables import read_stored
from streaming.detection import checkpoints, scoring
from streaming.history import replay, snapshot_copy, spans
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.history.snapshot_copy import create_snapshot
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run.opening import open_agent
from streaming.run.status import read_status
from streaming.run.surroundings import Hooks
from streaming.testing.live_lake import CONTRACT, TOPIC, agent, events, records, run_live, without_broker
from streaming.versions.clients import Clients

HERE, THERE = machine_fingerprint(), "1-000000000000feed"
SPEC, ROWS = agent(), 400


@contextmanager
def machine_of(fingerprint: str) -> Iterator[list[dict[str, Any]]]:
    """Let all that is done here count as done on another machine; yields what it logs of that."""
    said: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (decider, moved, replay, scoring, snapshot_copy):
            patch.setattr(module, "machine_fingerprint", lambda: fingerprint)
        patch.setattr(
            moved, "log", lambda event, text, **more: said.append({"event": event, "text": text, **more})
        )
        yield said


class GoneError(Exception):
    """The process is gone."""


@pytest.fixture
def placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlacedAgent:
    without_broker(monkeypatch)
    return PlacedAgent(Settings.load(tmp_path / "home", {}), SPEC)


def lived_on(placed: PlacedAgent, *machines: str) -> list[list[dict[str, Any]]]:
    """Have machines decide two batches each, one after the other; return what each has logged."""
    told, logged = events(ROWS), list[list[dict[str, Any]]]()
    for number, fingerprint in enumerate(machines):
        with machine_of(fingerprint) as said:
            part = told[number * 100 : number * 100 + 100]
            run_live(placed, part, first_batch=2 * number, rows=50)
        logged.append(said)
    return logged


def fingerprints(placed: PlacedAgent) -> list[list[str]]:
    batches = read_stored(placed.lake / "batches")
    assert batches is not None
    return pl.DataFrame(batches).sort("next_sequence")["fingerprints"].to_list()


def stopped_after(step: BatchStep, placed: PlacedAgent) -> None:
    """Decide one batch and end after a step of it."""

    def reached(at: BatchStep) -> None:
        if at == step:
            raise GoneError

    rows: pa.Table = records(events(ROWS)[100:150])
    with (
        pytest.raises(GoneError),
        Clients(placed.settings, "none") as clients,
        open_agent(placed, "127.0.0.1:1", clients, Hooks(reached=reached)) as started,
    ):
        started.pipeline.process(lambda: rows, "live", 2, lambda: {TOPIC: {"0": 150}})


def test_a_machine_says_once_that_it_is_another_one(placed: PlacedAgent) -> None:
    first, same, moved_to, back = lived_on(placed, HERE, HERE, THERE, HERE)
    assert (first, same) == ([], [])
    assert [(each["event"], each["batch"], each["before"]) for each in moved_to] == [
        ("machine_changed", 3, HERE)
    ]
    assert [(each["event"], each["batch"], each["before"]) for each in back] == [
        ("machine_changed", 5, THERE)
    ]
    assert all(
        each["fingerprint"] in each["text"] and each["before"] in each["text"] for each in moved_to + back
    )
    assert fingerprints(placed) == [[HERE]] * 4 + [[THERE]] * 2 + [[HERE]] * 2


@pytest.mark.parametrize("step", [BatchStep.STORE, BatchStep.ALERT])
def test_a_batch_finished_elsewhere_was_computed_on_both(placed: PlacedAgent, step: BatchStep) -> None:
    lived_on(placed, HERE)
    with machine_of(HERE):
        stopped_after(step, placed)
    with machine_of(THERE) as said:
        run_live(placed, [])
    assert [(each["event"], each["batch"]) for each in said] == [("machine_changed", 2)]
    assert "finished here" in said[0]["text"]
    assert fingerprints(placed)[-1] == [HERE, THERE]
    with machine_of(THERE) as said:
        run_live(placed, [])
    assert said == []


def test_status_says_since_which_batch(placed: PlacedAgent) -> None:
    lived_on(placed, HERE)
    assert read_status(placed, None).computed_on == ComputedOn(HERE)
    lived_on(placed, HERE, THERE)
    found = read_status(placed, None)
    assert found.computed_on is not None
    assert (found.computed_on.fingerprint, found.computed_on.before) == (THERE, HERE)
    assert (found.computed_on.batch_id, found.computed_on.closed_at is None) == (2, False)
    assert THERE in found.to_json()


histories = st.lists(
    st.one_of(st.none(), st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True)), max_size=12
)


@given(histories)
def test_the_newest_move_is_where_the_machine_changed_last(history: list[list[str] | None]) -> None:
    moments = pl.datetime_range(
        pl.datetime(2026, 5, 1), pl.datetime(2026, 5, 13), "1d", time_zone="UTC", eager=True
    )
    batches = pl.DataFrame(
        {
            "batch_id": range(len(history)),
            "next_sequence": range(len(history)),
            "closed_at": moments.head(len(history)),
            "fingerprints": history,
        },
        schema_overrides={"fingerprints": pl.List(pl.String)},
    )
    noted = [(number, each) for number, found in enumerate(history) for each in found or ()]
    moves = [(number, before, after) for (_, before), (number, after) in pairwise(noted) if before != after]
    found = ComputedOn.of(batches)
    if not noted:
        assert found is None
        return
    assert found is not None
    assert found.fingerprint == noted[-1][1]
    assert (found.batch_id, found.before) == ((None, None) if not moves else moves[-1][:2])


def test_replays_are_exact_up_to_the_first_batch_of_another_machine(placed: PlacedAgent) -> None:
    lived_on(placed, HERE, THERE, HERE)
    found = run_replay(placed, ReplaySpan())
    assert (found.rows, found.differences) == (300, ())
    assert found.tolerated is not None
    assert (found.tolerated.batches, found.tolerated.was_needed) == (4, False)
    assert run_replay(placed, ReplaySpan(from_version=0, to_version=2)).tolerated is None
    with machine_of(THERE):
        elsewhere = run_replay(placed, ReplaySpan())
    assert elsewhere.tolerated is not None
    assert elsewhere.tolerated.batches == 6


def published_as(changed: Callable[[dict[str, Any]], dict[str, Any]], patch: pytest.MonkeyPatch) -> None:
    """Let replays find other alerts than those that were published."""
    raised_in = spans.raised_in

    def found(alerts: Any, span: Any) -> pa.Table:
        rows = raised_in(alerts, span)
        return pa.Table.from_pylist([changed(each) for each in rows.to_pylist()], schema=rows.schema)

    patch.setattr(replay, "raised_in", found)


@pytest.mark.parametrize(
    ("machines", "off", "code"),
    [
        ((HERE, HERE), 0.0, 0),
        ((HERE, THERE), 0.0, 0),
        ((HERE, THERE), 1e-13, 6),
        ((HERE, THERE), 1e-9, 1),
        ((HERE, HERE), 1e-13, 1),
    ],
)
def test_exit_codes_tell_exact_from_within_the_tolerance_from_other(
    placed: PlacedAgent,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    machines: tuple[str, ...],
    off: float,
    code: int,
) -> None:
    lived_on(placed, *machines)
    (tmp_path / "spec.json").write_text(SPEC.model_dump_json(), encoding="utf-8")
    published_as(
        lambda row: {**row, "score": row["score"] + (off if row["sequence"] >= 100 else 0.0)}, monkeypatch
    )
    command = ["replay", "--spec", str(tmp_path / "spec.json"), "--home", str(tmp_path / "home")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == code, done.output
    assert ("within a tolerance" in " ".join(done.output.split())) == (THERE in machines)
    assert ("differ within it, at most by: score 1e-13" in " ".join(done.output.split())) == (code == 6)


def test_a_snapshot_is_exact_only_where_its_maker_and_its_batches_are(placed: PlacedAgent) -> None:
    lived_on(placed, HERE, HERE)
    whole = ReplaySpan().history(placed).whole
    for name, fingerprint in (("ours", HERE), ("theirs", THERE)):
        with machine_of(fingerprint):
            create_snapshot(placed.settings, AgentDefinition.pinned(SPEC, CONTRACT), name, whole)
    assert run_replay(placed, ReplaySpan(snapshot="ours")).tolerated is None
    found = run_replay(placed, ReplaySpan(snapshot="theirs"))
    assert found.tolerated is not None
    assert (found.tolerated.batches, found.differences) == (4, ())


def checkpoint_of(placed: PlacedAgent, machine: str) -> None:
    """Have a machine compute the state after what is stored, as a shadow does, and decide no batch."""
    rows = read_stored(placed.lake / "transactions")
    assert rows is not None
    with machine_of(machine):
        engine = Engine.on_rules(placed.settings, AgentDefinition.pinned(SPEC.anew(), CONTRACT))
        engine.absorb(rows.sort_by("sequence"))
        checkpoints.write(engine.memory.snapshot(), engine.checkpoints.folders)


def test_a_batch_tells_of_the_machine_whose_checkpoint_it_rests_on(placed: PlacedAgent) -> None:
    lived_on(placed, HERE)
    checkpoint_of(placed, THERE)
    told = events(ROWS)
    for batch in (2, 4):
        with machine_of(HERE):
            run_live(placed, told[batch * 50 : batch * 50 + 100], first_batch=batch, rows=50)
    assert fingerprints(placed) == [[HERE], [HERE], [THERE, HERE], [HERE], [HERE], [HERE]]
    found = run_replay(placed, ReplaySpan())
    assert found.tolerated is not None
    assert (found.tolerated.batches, found.differences) == (4, ())


def test_a_replay_from_the_checkpoint_of_another_machine_is_lenient(placed: PlacedAgent) -> None:
    lived_on(placed, HERE)
    checkpoint_of(placed, THERE)
    with machine_of(HERE):
        shutil.move(placed.settings.profiles(SPEC.name).path, placed.settings.home / "aside")
        run_live(placed, events(ROWS)[100:200], first_batch=2, rows=50)
        shutil.rmtree(placed.settings.profiles(SPEC.name).path, ignore_errors=True)
        shutil.move(placed.settings.home / "aside", placed.settings.profiles(SPEC.name).path)
    assert fingerprints(placed) == [[HERE]] * 4
    assert run_replay(placed, ReplaySpan(from_version=0, to_version=2)).tolerated is None
    found = run_replay(placed, ReplaySpan(from_version=3))
    assert found.tolerated is not None
    assert (found.tolerated.batches, found.differences) == (2, ())
