"""The registry is read beside the batches; whatever befalls it, the state last read stays in force."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable

from schemas.errors import ConfigurationError, DataLossError
from schemas.tables import SHADOW
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.service.health import Condition, Health
from streaming.store.place import Place
from streaming.testing.drivers import wait_until
from streaming.testing.live_lake import agent, events, run_live, without_broker
from streaming.versions import registry_watch
from streaming.versions.registry_table import registry_place
from streaming.versions.registry_watch import RegistryWatch, spec_in_force
from tests.registry_rows import activate

FIRST, SECOND = agent(), agent(version="1.1.0", threshold=0.9)
SECONDS = 30.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings.load(tmp_path / "home", {})
    activate(found, FIRST)
    return found


def another_table(path: Path) -> None:
    shutil.rmtree(path)
    DeltaTable.create(path, SHADOW)


def without_log(path: Path) -> None:
    shutil.rmtree(path / "_delta_log")


def of_another_agent(path: Path) -> None:
    settings, other = Settings.load(path.parents[2] / "elsewhere", {}), agent(name="other")
    activate(settings, other)
    shutil.rmtree(path)
    shutil.copytree(registry_place(PlacedAgent(settings, other)).path, path)


REPLACED: dict[str, Callable[[Path], None]] = {
    "another table than 'specs'": another_table,
    "the log that says which of them count is gone": without_log,
    "is gone or empty": shutil.rmtree,
    "the registry of agent 'other'": of_another_agent,
}


@pytest.mark.parametrize("said", REPLACED)
def test_what_was_read_last_stays_in_force_until_the_registry_is_back(settings: Settings, said: str) -> None:
    path, health = registry_place(PlacedAgent(settings, FIRST)), Health()
    watch = RegistryWatch(PlacedAgent(settings, FIRST), health)
    before = watch.refresh()
    kept = shutil.copytree(path.path, settings.home / "kept")
    REPLACED[said](path.path)
    for _ in range(2):
        watch.round()
        assert watch.newest is before
        (condition,) = health.active
        assert condition.condition == Condition.REGISTRY_UNREADABLE
        assert said in condition.cause
        assert "stay in force" in condition.cause
    shutil.rmtree(path.path, ignore_errors=True)
    shutil.copytree(kept, path.path)
    watch.round()
    assert watch.newest.active == before.active == FIRST
    assert health.active == ()


def test_a_start_is_refused_by_name(settings: Settings) -> None:
    path = registry_place(PlacedAgent(settings, FIRST))
    without_log(path.path)
    with pytest.raises(DataLossError, match="_delta_log"):
        spec_in_force(PlacedAgent(settings, FIRST))
    another_table(path.path)
    with pytest.raises(ConfigurationError, match="another table than 'specs'"):
        spec_in_force(PlacedAgent(settings, FIRST))
    of_another_agent(path.path)
    with pytest.raises(ConfigurationError, match="the registry of agent 'other'"):
        spec_in_force(PlacedAgent(settings, FIRST))


def test_a_thread_finds_what_was_promoted_and_pauses_a_second_between_looks(settings: Settings) -> None:
    watch = RegistryWatch(PlacedAgent(settings, FIRST))
    assert watch.refresh().active == FIRST
    watch.start()
    try:
        activate(settings, SECOND, FIRST)
        wait_until(lambda: watch.newest.active == SECOND, SECONDS, "the promoted version")
    finally:
        watch.close()
    assert watch.round() >= 1.0


@pytest.mark.long
def test_batches_look_at_no_registry(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    without_broker(monkeypatch)
    looks, real = list[Place](), registry_watch.change_mark

    def counted(place: Place, since: tuple[int, int]) -> tuple[int, int]:
        looks.append(place)
        return real(place, since)

    monkeypatch.setattr(registry_watch, "change_mark", counted)
    monkeypatch.setattr(registry_watch, "_PAUSE_SECONDS", 3_600.0)
    counts = []
    for first, batches in ((0, 1), (90, 12)):
        looks.clear()
        told = events(first + 20 * batches)[first:]
        run_live(PlacedAgent(settings, FIRST), told, first_batch=first, rows=20)
        counts.append(len(looks))
    assert counts[0] == counts[1]
