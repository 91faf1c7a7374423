"""An agent that is given another place for its lake does not begin anew beside the lake that it has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError
from streaming.batch.lake_left import check_none_left
from streaming.commands.backfill import run_backfill
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.live_lake import agent, events, run_live, without_broker
from tests.unit.streaming.commands.test_backfill import written_to

TOLD = "holds no lake of this agent yet, and the home does, .*/home/lake/tester, which nobody has moved"


def test_a_lake_that_was_left_in_the_home_is_named_before_another_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_broker(monkeypatch)
    home, elsewhere = tmp_path / "home", {"FLAGSTREAM_STORE": str(tmp_path / "store")}
    before, moved = (PlacedAgent(Settings.load(home, given), agent()) for given in ({}, elsewhere))
    check_none_left(moved)
    run_live(before, [])
    check_none_left(moved)
    run_live(before, events(20))
    check_none_left(before)
    with pytest.raises(ConfigurationError, match=TOLD):
        run_live(moved, events(40)[20:], first_batch=1)
    with pytest.raises(ConfigurationError, match=TOLD):
        run_backfill(moved, written_to(tmp_path))
    assert not (tmp_path / "store" / "lake").exists()
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    for part in ("lake", "audit"):
        shutil.copytree(home / part, tmp_path / "store" / part)
    run_live(moved, events(40)[20:], first_batch=1)
    assert LakeReader.of(moved).count("transactions") == 40
    shutil.rmtree(tmp_path / "store")
    before.lake.path.rename(tmp_path / "aside")
    run_live(moved, events(20))
    assert LakeReader.of(moved).count("transactions") == 20
