"""Replays need Delta alone: contract and trained model may be gone, or others, by then."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from schemas.contract import CONTRACTS, load_contract
from schemas.spec import AgentSpec
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.pins import pinned_contract
from streaming.detection.model import save, train
from streaming.detection.scoring import Scorer
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.history.snapshot_copy import create_snapshot
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.live_lake import agent, events, run_live, without_broker

ROWS = 400


def content_of_simulator() -> dict[str, Any]:
    return dict(yaml.safe_load((CONTRACTS / "simulator.yaml").read_text(encoding="utf-8")))


def write_contract(path: Path, **changes: object) -> str:
    path.write_text(yaml.safe_dump({**content_of_simulator(), **changes}), encoding="utf-8")
    return str(path)


def write_model(folder: Path, seed: int) -> Path:
    """Train on noise: what it says does not matter, that it says the same does."""
    random = np.random.default_rng(seed)
    names = Scorer.under(agent(), load_contract("simulator"), None).feature_names
    features = random.normal(size=(200, len(names))).astype(np.float32)
    return save(train(features, random.random(200) < 0.3, names), folder, {})


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    without_broker(monkeypatch)
    return Settings.load(tmp_path / "home", {})


@pytest.fixture
def lived(settings: Settings, tmp_path: Path) -> AgentSpec:
    """An agent with a contract and a model in files of their own, which names no hash."""
    spec = agent(
        data_sources={
            "transactions": {"contract": write_contract(tmp_path / "contract.yaml"), "topic": "events"}
        },
        model={"path": str(write_model(tmp_path / "model", seed=1))},
    )
    run_live(PlacedAgent(settings, spec), events(ROWS))
    assert run_replay(PlacedAgent(settings, spec), ReplaySpan()).differences == ()
    return spec


def change_everything(tmp_path: Path) -> None:
    """Leave another contract and another model where the spec looks for its own."""
    write_contract(tmp_path / "contract.yaml", duplicates={"horizon": "2h"})
    shutil.rmtree(tmp_path / "model")
    write_model(tmp_path / "model", seed=2)


def lose_everything(tmp_path: Path) -> None:
    (tmp_path / "contract.yaml").unlink()
    shutil.rmtree(tmp_path / "model")


@pytest.mark.long
@pytest.mark.parametrize("happens", [change_everything, lose_everything])
def test_a_replay_takes_contract_and_model_as_they_were(
    settings: Settings, lived: AgentSpec, tmp_path: Path, happens: Any
) -> None:
    happens(tmp_path)
    found = run_replay(PlacedAgent(settings, lived), ReplaySpan())
    assert (found.rows, found.differences) == (ROWS, ())
    assert found.alerts > 5


def test_a_snapshot_holds_contract_and_model(settings: Settings, lived: AgentSpec, tmp_path: Path) -> None:
    contract = AgentDefinition.of(lived).contract
    history = ReplaySpan().history(PlacedAgent(settings, lived))
    create_snapshot(settings, AgentDefinition.pinned(lived, contract), "kept", history.whole)
    lose_everything(tmp_path)
    for each in settings.lake(lived.name).path.iterdir():
        if each.name != settings.snapshots(lived.name).name:
            shutil.rmtree(each)
    found = run_replay(PlacedAgent(settings, lived), ReplaySpan(snapshot="kept"))
    assert (found.rows, found.differences) == (ROWS, ())


@pytest.mark.parametrize("name", ["simulator", "handbook", "amlsim"])
def test_a_pinned_contract_is_the_contract(name: str) -> None:
    contract = load_contract(name)
    assert pinned_contract({"contract": contract.model_dump(mode="json")}) == contract
