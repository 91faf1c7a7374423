"""A contract that changes: columns are only added, old rows stay readable, old spans replay as decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from schemas.contract import CONTRACTS
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec
from streaming.delta.lake_reader import LakeReader
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.live_lake import LARGE, agent, events, run_live, without_broker

HALF = 180


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    without_broker(monkeypatch)
    return Settings.load(tmp_path / "home", {})


def spec_of(tmp_path: Path, name: str, extra: dict[str, Any] | None) -> AgentSpec:
    """An agent whose contract has these further fields."""
    content = yaml.safe_load((CONTRACTS / "simulator.yaml").read_text(encoding="utf-8"))
    content["extra"] = extra or {}
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return agent(
        data_sources={"transactions": {"contract": str(path), "topic": "events"}},
        rules=[{**LARGE, "when": "amount > 60"}],
    )


def stored(settings: Settings, spec: AgentSpec, *columns: str) -> pl.DataFrame:
    reader = LakeReader(settings.lake(spec.name), spec.tables)
    return reader.frame("transactions", ["sequence", *columns]).sort("sequence")


COUNTRY = {"country": {"field": "country"}}
CATEGORY = {"merchant_category": {"field": "merchant_category"}}


def test_a_field_that_is_added_is_null_in_what_is_stored(settings: Settings, tmp_path: Path) -> None:
    old, new, made = (
        spec_of(tmp_path, "old", COUNTRY),
        spec_of(tmp_path, "new", COUNTRY | CATEGORY),
        events(360),
    )
    run_live(PlacedAgent(settings, old), made[:HALF])
    run_live(PlacedAgent(settings, new), made[HALF:], first_batch=2)
    found = stored(settings, new, "merchant_category", "country")
    assert found["merchant_category"].to_list() == [None] * HALF + ["grocery"] * HALF
    assert found["country"].to_list() == ["DE"] * 2 * HALF
    replayed = run_replay(PlacedAgent(settings, new), ReplaySpan())
    assert (replayed.differences, replayed.alerts > 0) == ((), True)


def test_a_field_that_is_gone_stays_and_is_null_from_then_on(settings: Settings, tmp_path: Path) -> None:
    old, new, made = (
        spec_of(tmp_path, "old", COUNTRY | CATEGORY),
        spec_of(tmp_path, "new", COUNTRY),
        events(540),
    )
    run_live(PlacedAgent(settings, old), made[:HALF])
    run_live(PlacedAgent(settings, new), made[HALF : 2 * HALF], first_batch=2)
    run_live(PlacedAgent(settings, old), made[2 * HALF :], first_batch=4)
    found = stored(settings, new, "merchant_category")
    assert found["merchant_category"].to_list() == ["grocery"] * HALF + [None] * HALF + ["grocery"] * HALF
    assert run_replay(PlacedAgent(settings, new), ReplaySpan()).differences == ()


def test_a_stored_column_never_changes_its_type(settings: Settings, tmp_path: Path) -> None:
    number = {"score_of_bank": {"field": "bank", "type": "integer"}}
    wider = {"score_of_bank": {"field": "bank", "type": "float"}}
    run_live(PlacedAgent(settings, spec_of(tmp_path, "old", number)), events(90))
    with pytest.raises(ConfigurationError, match="'score_of_bank' holds int64 there and would hold double"):
        run_live(PlacedAgent(settings, spec_of(tmp_path, "new", wider)), events(90), first_batch=1)
    both = {**number, "bank_score": {"field": "bank", "type": "float"}}
    run_live(PlacedAgent(settings, spec_of(tmp_path, "both", both)), events(90), first_batch=1)


def test_a_column_that_differs_in_case_alone_is_refused_by_name(settings: Settings, tmp_path: Path) -> None:
    run_live(PlacedAgent(settings, spec_of(tmp_path, "old", COUNTRY)), events(90))
    louder = {"Country": {"field": "country"}}
    with pytest.raises(ConfigurationError, match="'Country' is 'country' there"):
        run_live(PlacedAgent(settings, spec_of(tmp_path, "new", louder)), events(90), first_batch=1)
