"""Machines that share a lake in a store, each with a home of its own."""

from __future__ import annotations

import os
from pathlib import Path

from schemas.spec import AgentSpec
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.drivers import Drivers

TAKEOVER_SECONDS = 1.0


class Machines:
    """Machines that know where the lake is and how to get in; each has a home of its own."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        self._folder, self._bootstrap = folder, bootstrap
        self._known: dict[int, tuple[Settings, Drivers]] = {}

    def __call__(self, number: int) -> tuple[Settings, Drivers]:
        if number not in self._known:
            settings = Settings.load(self._folder / f"machine-{number}", os.environ)
            self._known[number] = settings, Drivers(settings, self._bootstrap)
        return self._known[number]

    def end(self) -> None:
        for _, drivers in self._known.values():
            drivers.end()

    def hold_nothing_that_counts(self) -> None:
        homes = [settings.home for settings, _ in self._known.values() if settings.home.is_dir()]
        for home in homes:
            kept = {path.name for path in home.iterdir()}
            assert not kept & {"lake", "profiles", "models", "audit", "keys"}, kept


def replays(settings: Settings, spec: AgentSpec, rows: int) -> None:
    found = run_replay(PlacedAgent(settings, spec), ReplaySpan())
    assert (found.differences, found.rows) == ((), rows)
    assert found.alerts > 0
