"""Another version takes over between two batches: what goes on, what is brought up, what is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.budget import SpendingBudget
from agent.ledger import MemoryLedger
from schemas.errors import DataLossError
from schemas.spec import AgentSpec
from streaming.arrays.compilation import Floats
from streaming.batch.engine import Engine
from streaming.compose import build_engine, rule_watch
from streaming.delta.stored import StoredTable, open_version
from streaming.labels.verdicts import verdicts_schema
from streaming.settings import Settings
from streaming.versions.registry_table import registry_path
from streaming.versions.renewal import RegistryWatch, Renewal, spec_in_force
from tests.registry_rows import activate, entry, put
from tests.unit.small_lake import CONTRACT, build_lake, spec_of

FIRST = spec_of()
STRICTER = spec_of(version="1.1.0", threshold=0.99, rules=[])
BUDGETED = spec_of(version="1.2.0", alerts_per_day=50)
NO_RATE = spec_of(version="1.3.0", detectors={"rate": {"enabled": False}})
NO_VERDICTS = verdicts_schema(CONTRACT.entity_names).empty_table()


class Running:
    """An agent's engine between batches, on the rows of a small lake."""

    def __init__(self, settings: Settings, spec: AgentSpec = FIRST) -> None:
        self.settings = settings
        self.built: list[str] = []
        watch = rule_watch(spec, CONTRACT)
        self.renew = Renewal(watch, RegistryWatch(registry_path(settings, spec)), self.engine_for)
        self.engine = self.engine_for(watch.load())
        self.rows = _transactions(settings)

    def engine_for(self, spec: AgentSpec) -> Engine:
        self.built.append(spec.version)
        return build_engine(
            self.settings, spec, CONTRACT, None, MemoryLedger(), SpendingBudget(spec.llm.budget)
        )

    def batch(self, first: int, end: int) -> Floats:
        """Renew, bring up, decide rows: their scores less their thresholds."""
        self.engine = self.renew(self.engine)
        brought_up(self.engine, self.rows, first)
        judged = self.engine.judge(self.rows.read("sequence", first, end), NO_VERDICTS)
        self.engine.commit(judged)
        scored = judged.scored
        return np.asarray(scored.score - scored.threshold)


def brought_up(engine: Engine, rows: StoredTable, next_sequence: int) -> None:
    engine.restore(rows, next_sequence, lambda *_: NO_VERDICTS, lambda *_: [])


def _transactions(settings: Settings) -> StoredTable:
    path = settings.lake("tester") / "transactions"
    table = open_version(path, 1)
    assert table is not None
    return table


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings.load(tmp_path / "home", {})
    build_lake(found, FIRST)
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
    fresh = build_engine(
        settings, version, CONTRACT, None, MemoryLedger(), SpendingBudget(version.llm.budget)
    )
    brought_up(fresh, running.rows, 200)
    scored = fresh.judge(running.rows.read("sequence", 200, 400), NO_VERDICTS).scored
    np.testing.assert_array_equal(found, scored.score - scored.threshold)


def test_a_rollback_takes_effect_at_the_next_batch_from_the_state_that_was_kept(settings: Settings) -> None:
    running = Running(settings)
    activate(settings, FIRST)
    running.batch(0, 200)
    kept = running.engine.scorer
    activate(settings, NO_RATE, FIRST)
    running.batch(200, 300)
    assert running.engine.scorer is not kept
    activate(settings, FIRST, NO_RATE)
    found = running.batch(300, 400)
    assert running.engine.spec.version == "1.0.0"
    assert running.engine.scorer is kept
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

    watch, registry = rule_watch(FIRST, CONTRACT), RegistryWatch(registry_path(settings, FIRST))
    running.renew = Renewal(watch, registry, running.engine_for, warm=warm)
    activate(settings, FIRST)
    running.batch(0, 200)
    brought_up(beside, running.rows, 150)
    activate(settings, NO_RATE, FIRST)
    running.batch(200, 300)
    assert asked == [NO_RATE.digest]
    assert running.engine.scorer is beside.scorer
    assert running.engine.spec == NO_RATE


def test_state_goes_on_where_scores_are_defined_alike(settings: Settings) -> None:
    running = Running(settings)
    scorer = running.engine.scorer
    activate(settings, FIRST)
    running.batch(0, 100)
    activate(settings, STRICTER, FIRST)
    running.batch(100, 200)
    assert running.engine.scorer is scorer
    assert (running.engine.rules.rules, running.engine.spec.threshold) == ((), 0.99)


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
    assert spec_in_force(settings, FIRST) is FIRST
    activate(settings, STRICTER)
    assert spec_in_force(settings, FIRST) == STRICTER


def test_a_state_of_other_scores_is_refused(settings: Settings) -> None:
    running = Running(settings)
    with pytest.raises(DataLossError, match="another profile definition"):
        running.engine.scorer.heed(NO_RATE)
