"""A first run says that it is still learning: how many transactions it knows of how many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from schemas.spec import AgentSpec
from streaming.commands.status import print_status
from streaming.delta.lake_reader import AgentLake
from streaming.detection.alert_budget import AlertBudget
from streaming.home.placed_agent import PlacedAgent
from streaming.run import learning
from streaming.run.learning import log_learning
from streaming.run.status import read_status
from streaming.testing.live_lake import agent, events
from streaming.testing.trial import trial

BUDGETED = agent(alerts_per_day=50.0, rules=[])


@pytest.mark.parametrize("block_rows", [1, 8, 64, 1024])
def test_scores_can_alert_from_the_row_on_that_the_spec_names(block_rows: int) -> None:
    spec = agent(alerts_per_day=50.0, profiles={"block_rows": block_rows, "checkpoint_rows": 5_000})
    times = np.arange(3 * block_rows + 1, dtype=np.int64) * 60_000_000_000
    times.flags.writeable = False
    thresholds, _ = AlertBudget(50.0, block_rows).thresholds(times, 0)
    assert np.flatnonzero(thresholds < 1.0)[0] == spec.rows_to_learn
    assert agent().rows_to_learn == 0, "a fixed threshold waits for nothing"


def said_at_start(home: Path, spec: AgentSpec, patch: pytest.MonkeyPatch) -> list[str]:
    logged: list[str] = []
    patch.setattr(learning, "log", lambda _, text, **__: logged.append(text))
    with trial(home, spec) as tried:
        log_learning(PlacedAgent(tried.settings, spec))
    return logged


def test_a_run_says_at_its_start_how_much_it_has_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (said,) = said_at_start(tmp_path, BUDGETED, monkeypatch)
    assert "still learning: 0 of 128 transactions; until then rules alone raise alerts" in said
    with trial(tmp_path, BUDGETED) as tried:
        tried.send(events(127))
        assert tried.alerts == []
    (said,) = said_at_start(tmp_path, BUDGETED, monkeypatch)
    assert "127 of 128" in said
    with trial(tmp_path, BUDGETED) as tried:
        tried.send(events(128)[127:])
    assert said_at_start(tmp_path, BUDGETED, monkeypatch) == []
    assert said_at_start(tmp_path / "other", agent(), monkeypatch) == []


def test_status_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with trial(tmp_path, BUDGETED) as tried:
        lake = tried.settings.lake("tester")
        assert (read_status(AgentLake(lake, BUDGETED), None).learning or "").startswith("0 of 128")
        tried.send(events(100))
        print_status(read_status(AgentLake(lake, BUDGETED), None), as_json=False)
        assert "100 of 128 transactions" in " ".join(capsys.readouterr().out.split())
        tried.send(events(140)[100:])
        assert read_status(AgentLake(lake, BUDGETED), None).learning is None
