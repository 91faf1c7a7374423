"""Another version takes over between two batches: what goes on, what is brought up, what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import DataLossError
from schemas.spec import AgentSpec
from streaming.arrays.compilation import Floats
from streaming.batch.deciders import Canary, Deciders, in_share
from streaming.batch.engine import Engine
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.stored import StoredTable, open_version
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.labels.entity_labels import entity_labels_schema
from streaming.service.health import Condition, Health
from streaming.store.local_folders import LocalFolders
from streaming.testing.small_lake import CONTRACT, build_lake, spec_of
from streaming.versions.registry_table import registry_place
from streaming.versions.registry_watch import RegistryWatch, spec_in_force
from streaming.versions.renewal import Renewal
from tests.registry_rows import Looking, activate, entry, put

FIRST = spec_of()
STRICTER = spec_of(version="1.1.0", threshold=0.99, rules=[])
BUDGETED = spec_of(version="1.2.0", alerts_per_day=50)
NO_RATE = spec_of(version="1.3.0", detectors={"rate": {"enabled": False}})
NO_LABELS = entity_labels_schema(CONTRACT.entity_names).empty_table()


class Running:
    """An agent's engine between batches, on the rows of a small lake."""

    def __init__(self, settings: Settings, spec: AgentSpec = FIRST) -> None:
        self.settings = settings
        self.built: list[str] = []
        watch = AgentDefinition.pinned(spec, CONTRACT).rule_watch()
        registry = Looking(PlacedAgent(settings, spec))
        self.renew = Renewal(watch, registry, self.engine_for, self.canary_for)
        self.deciders = Deciders(self.engine_for(watch.load()))
        self.rows = _transactions(settings)

    def engine_for(self, spec: AgentSpec) -> Engine:
        self.built.append(spec.version)
        return Engine.on_rules(self.settings, AgentDefinition.pinned(spec, CONTRACT))

    def canary_for(self, spec: AgentSpec) -> Engine:
        return self.engine_for(spec).saved_in(LocalFolders.of(self.settings.home / "canary"))

    @property
    def engine(self) -> Engine:
        return self.deciders.engine

    @property
    def canary(self) -> Engine:
        assert self.deciders.canary is not None
        return self.deciders.canary.engine

    def batch(self, first: int, end: int) -> Floats:
        """Renew, bring up, decide rows: their scores less their thresholds."""
        self.deciders = self.renew(self.deciders)
        for engine in self.deciders.engines:
            brought_up(engine, self.rows, first)
        judged = self.deciders.judge(self.rows.read("sequence", first, end), NO_LABELS)
        self.deciders.commit(judged)
        scored = judged[0].scored
        return np.asarray(scored.score - scored.threshold)


def brought_up(engine: Engine, rows: StoredTable, next_sequence: int) -> None:
    engine.restore(rows, next_sequence, lambda *_: NO_LABELS, lambda *_: [])


def _transactions(settings: Settings) -> StoredTable:
    table = open_version(settings.lake("tester") / "transactions")
    assert table is not None
    assert table.read("sequence", 0).num_rows == 600
    return table


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings.load(tmp_path / "home", {})
    build_lake(PlacedAgent(found, FIRST))
    return found


@pytest.mark.parametrize("version", [STRICTER, BUDGETED, NO_RATE])
def test_a_version_takes_over_at_the_next_batch_as_if_it_had_always_been_there(
    settings: Settings, version: AgentSpec
) -> None:
    running = Running(settings)
    activate(settings, FIRST)
    running.batch(0, 200)
    activate(settings, version, FIRST)
    found = running.batch(200, 400)
    assert running.engine.spec.version == version.version
    fresh = Engine.on_rules(settings, AgentDefinition.pinned(version, CONTRACT))
    brought_up(fresh, running.rows, 200)
    scored = fresh.judge(running.rows.read("sequence", 200, 400), NO_LABELS).scored
    np.testing.assert_array_equal(found, scored.score - scored.threshold)


def test_a_rollback_takes_effect_at_the_next_batch_from_the_state_that_was_kept(settings: Settings) -> None:
    running = Running(settings)
    activate(settings, FIRST)
    running.batch(0, 200)
    kept = running.engine.memory
    activate(settings, NO_RATE, FIRST)
    running.batch(200, 300)
    assert running.engine.memory is not kept
    activate(settings, FIRST, NO_RATE)
    found = running.batch(300, 400)
    assert running.engine.spec.version == "1.0.0"
    assert running.engine.memory is kept
    never_changed = Running(settings)
    activate(settings, FIRST)
    for first, end in ((0, 200), (200, 300)):
        never_changed.batch(first, end)
    np.testing.assert_array_equal(found, never_changed.batch(300, 400))


def test_a_version_that_kept_up_in_shadow_takes_over_with_its_own_state(settings: Settings) -> None:
    running = Running(settings)
    beside = running.engine_for(NO_RATE)
    asked: list[str] = []

    def warm(digest: str) -> Engine | None:
        asked.append(digest)
        return beside

    watch, registry = (
        AgentDefinition.pinned(FIRST, CONTRACT).rule_watch(),
        Looking(PlacedAgent(settings, FIRST)),
    )
    running.renew = Renewal(watch, registry, running.engine_for, running.canary_for, warm=warm)
    activate(settings, FIRST)
    running.batch(0, 200)
    brought_up(beside, running.rows, 150)
    activate(settings, NO_RATE, FIRST)
    running.batch(200, 300)
    assert asked == [NO_RATE.digest]
    assert running.engine.memory is beside.memory
    assert running.engine.spec == NO_RATE


def test_state_goes_on_where_scores_are_defined_alike(settings: Settings) -> None:
    running = Running(settings)
    memory = running.engine.memory
    activate(settings, FIRST)
    running.batch(0, 100)
    activate(settings, STRICTER, FIRST)
    running.batch(100, 200)
    assert running.engine.memory is memory
    assert (running.engine.decider.rules.rules, running.engine.spec.threshold) == ((), 0.99)


def test_nothing_is_built_while_the_registry_stays_as_it_is(settings: Settings) -> None:
    running = Running(settings)
    activate(settings, FIRST)
    for first in range(0, 300, 100):
        running.batch(first, first + 100)
    put(settings, entry(STRICTER, "sandbox"))
    running.batch(300, 400)
    assert running.built == ["1.0.0"]


def test_a_version_that_cannot_be_built_is_told_once_and_the_one_in_force_stays(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    running = Running(settings)
    activate(settings, spec_of(version="1.1.0", policy="/gone/policy.json"))
    for first in (0, 100):
        running.batch(first, first + 100)
    assert running.engine.spec.version == "1.0.0"
    errors = capsys.readouterr().err
    assert errors.count("no such file; version 1.0.0 stays in force") == 1


def test_the_registry_decides_what_an_agent_starts_under(settings: Settings) -> None:
    assert spec_in_force(PlacedAgent(settings, FIRST)) is FIRST
    activate(settings, STRICTER)
    assert spec_in_force(PlacedAgent(settings, FIRST)) == STRICTER


def test_a_state_of_other_scores_is_refused(settings: Settings) -> None:
    running = Running(settings)
    with pytest.raises(DataLossError, match="another profile definition"):
        running.engine.memory.scorer.adopt(NO_RATE)


def test_a_canary_decides_beside_the_active_version_until_it_is_rolled_back(settings: Settings) -> None:
    running = Running(settings)
    activate(settings, FIRST)
    active = running.batch(0, 200)
    put(settings, entry(NO_RATE, "canary", "promoted"))
    np.testing.assert_array_equal(running.batch(200, 300), Running(settings).batch(0, 300)[200:])
    assert (running.canary.spec, running.engine.spec) == (NO_RATE, FIRST)
    assert running.canary.memory.next_sequence == running.engine.memory.next_sequence == 300
    assert running.deciders.canary == Canary(running.canary, 10)
    put(settings, entry(NO_RATE, "sandbox", "rolled_back"))
    running.batch(300, 400)
    assert running.deciders == Deciders(running.engine)
    assert len(active) == 200


@pytest.mark.parametrize("version", [NO_RATE, STRICTER])
def test_a_canary_becomes_active_with_the_state_it_has(settings: Settings, version: AgentSpec) -> None:
    running = Running(settings)
    activate(settings, FIRST)
    running.batch(0, 200)
    put(settings, entry(version, "canary", "promoted"))
    running.batch(200, 300)
    state, before = running.canary.memory, running.engine.memory
    assert state is not before, "each has a state of its own, also where scores are defined alike"
    activate(settings, version, FIRST)
    found = running.batch(300, 400)
    assert (running.engine.memory, running.deciders.canary) == (state, None)
    assert running.engine.checkpoints.folders.place == settings.profiles("tester")
    fresh = Engine.on_rules(settings, AgentDefinition.pinned(version, CONTRACT))
    brought_up(fresh, running.rows, 300)
    scored = fresh.judge(running.rows.read("sequence", 300, 400), NO_LABELS).scored
    np.testing.assert_array_equal(found, scored.score - scored.threshold)


def test_whoever_decides_is_told_of_once(settings: Settings) -> None:
    running, told = Running(settings), list[Deciders]()
    watch, registry = (
        AgentDefinition.pinned(FIRST, CONTRACT).rule_watch(),
        Looking(PlacedAgent(settings, FIRST)),
    )
    running.renew = Renewal(watch, registry, running.engine_for, running.canary_for, told.append)
    activate(settings, FIRST)
    put(settings, entry(NO_RATE, "canary", "promoted"))
    for first in range(0, 300, 100):
        running.batch(first, first + 100)
    assert told == [running.deciders]
    wider = spec_of(version="1.0.1", promotion={"canary_percent": 50})
    activate(settings, wider, FIRST)
    running.batch(300, 400)
    assert told[1:] == [running.deciders]
    assert running.deciders.canary == Canary(running.canary, 50)


def test_whoever_promotes_may_say_the_share(settings: Settings) -> None:
    running = Running(settings)
    activate(settings, FIRST)
    put(settings, replace(entry(NO_RATE, "canary", "promoted"), evidence={"percent": 3}))
    running.batch(0, 100)
    assert running.deciders.canary == Canary(running.canary, 3)


@pytest.mark.parametrize("percent", [0.5, 10, 90])
def test_a_share_holds_as_many_entities_as_it_says_and_every_smaller_share(percent: float) -> None:
    names = [f"c{number}" for number in range(20_000)]
    inside = [name for name in names if in_share(name, percent)]
    spread = 4 * (len(names) * percent / 100 * (1 - percent / 100)) ** 0.5
    assert abs(len(inside) - len(names) * percent / 100) < spread
    assert all(in_share(name, percent + 5) for name in inside)


def test_a_share_is_the_same_wherever_it_is_asked_for() -> None:
    assert [number for number in range(60) if in_share(number, 10)] == SHARE
    assert [number for number in range(60) if in_share(str(number), 10)] == SHARE
    assert not in_share(None, 100)
    assert in_share("anybody", 100)


SHARE = [18, 29, 47, 55]


def test_a_registry_that_cannot_be_read_leaves_the_version_in_force(settings: Settings) -> None:
    activate(settings, FIRST)
    health = Health()
    registry = RegistryWatch(PlacedAgent(settings, FIRST), health)
    running = Running(settings)
    running.renew = Renewal(
        AgentDefinition.pinned(FIRST, CONTRACT).rule_watch(),
        registry,
        running.engine_for,
        running.canary_for,
    )
    registry.round()
    running.batch(0, 100)
    activate(settings, spec_of(version="1.9.0"), FIRST)
    newest = max(((registry_place(PlacedAgent(settings, FIRST)) / "_delta_log").path).glob("*.json"))
    whole = newest.read_bytes()
    newest.write_bytes(whole[: len(whole) // 2])
    registry.round()
    running.batch(100, 200)
    assert running.engine.spec.version == "1.0.0"
    assert [each.condition for each in health.active] == [Condition.REGISTRY_UNREADABLE]
    newest.write_bytes(whole)
    registry.round()
    running.batch(200, 300)
    assert running.engine.spec.version == "1.9.0"
    assert health.active == ()
