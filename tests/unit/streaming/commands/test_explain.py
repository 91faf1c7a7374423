"""What `explain` shows beside a reason's figures says how it was counted."""

from __future__ import annotations

import io
from pathlib import Path

from streaming.commands.explain import show
from streaming.delta.lake_reader import AgentLake, LakeReader
from streaming.history.explain import explain
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.output.terminal import Terminal
from streaming.testing.small_lake import build_lake, spec_of


def test_the_usual_amount_of_a_reason_and_the_median_are_said_to_be_two_figures(tmp_path: Path) -> None:
    settings, spec = Settings.load(tmp_path / "home", {}), spec_of()
    build_lake(PlacedAgent(settings, spec))
    lake = settings.lake(spec.name)
    alert = str(LakeReader(lake, spec.tables).frame("alerts", ["alert_id"])["alert_id"][-1])
    file = io.StringIO()
    show(explain(AgentLake(lake, spec), alert, "customer"), Terminal(file=file, width=200))
    text = " ".join(file.getvalue().split())
    assert "by all payments on record before, each counted alike" in text
    assert "median of all" in text
    assert 'What a reason calls "usual" is another figure, the one the score was made with' in text
