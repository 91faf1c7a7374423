"""Rules in a file: read again when it changes, refused with file and line, the last good ones in force."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import Mock

import pyarrow as pa
import pytest

from schemas.contract import CONTRACTS
from schemas.documents import line_of
from schemas.errors import ConfigurationError
from schemas.loading import load_document
from schemas.spec import AgentSpec, load_spec
from streaming.batch.topic_watch import TopicWatch
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.publish import Publisher
from streaming.rules import rule_file
from streaming.rules.rule_file import RuleWatch
from streaming.run.beside import RunReporter
from streaming.run.display import JsonProgress
from streaming.run.opening import open_agent
from streaming.run.surroundings import Hooks
from streaming.service.health import Condition, Health
from streaming.service.last_read import LastRead
from streaming.testing.live_lake import TOPIC, QuietLane, agent
from streaming.versions.clients import Clients
from tests.unit.scoring_samples import agent_spec

SCHEMA = pa.schema([pa.field("amount", pa.float64()), pa.field("score", pa.float64())])
INLINE = {"name": "large", "when": "amount > 100", "severity": "high", "reason": "large"}
GOOD = """\
rules:
  - name: odd
    when: amount > 10 and score > 0.5
    severity: low
    reason: odd
"""


def watching(path: Path, text: str = GOOD, health: Health | None = None) -> RuleWatch:
    path.write_text(text, encoding="utf-8")
    return RuleWatch(agent_spec(rules=[INLINE], rules_file=str(path)), SCHEMA, health=health)


def rewrite(path: Path, text: str, seconds: int) -> None:
    """Write anew, at a moment that differs however coarse the file system's clock is."""
    path.write_text(text, encoding="utf-8")
    os.utime(path, (seconds, seconds))


def names(spec: AgentSpec | None) -> list[str]:
    assert spec is not None
    return [rule.name for rule in spec.rules]


def test_the_file_s_rules_follow_the_spec_s_own_and_the_spec_is_then_complete(tmp_path: Path) -> None:
    spec = watching(tmp_path / "rules.yaml").load()
    assert names(spec) == ["large", "odd"]
    assert spec.rules_file is None
    assert AgentSpec.model_validate(spec.model_dump(mode="json")).digest == spec.digest


def test_a_change_is_seen_once(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    watch = watching(path)
    watch.load()
    assert watch.changed() is None
    rewrite(path, GOOD.replace("odd", "strange"), 1_000)
    assert names(watch.changed()) == ["large", "strange"]
    assert watch.changed() is None


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (GOOD.replace("amount", "amout"), "rules.yaml:3: rules.0.when: rule 'odd': unknown column 'amout'"),
        (GOOD.replace("low", "lowest"), "rules.yaml:4: rules.0.severity"),
        (GOOD.replace("    reason: odd\n", ""), "rules.yaml:2: rules.0.reason: this key is required"),
        (GOOD.replace("odd", "large"), "two rules share the name 'large'"),
        ("rules: [", "not valid YAML"),
        ("- a", "expected a mapping"),
        (GOOD.replace("reason: odd", "reason: 2020-13-45"), "month must be in 1..12"),
        (f"? [a]\n: b\n{GOOD}", "expected a plain key"),
        (GOOD.replace("10", "9" * 5000), "rules.yaml:3: rules.0.when: rule 'odd'"),
        (GOOD.replace("reason: odd", f"reason: {'9' * 5000}"), "of more than 64 characters"),
        ("[" * 5000, "nested"),
        (GOOD.replace("reason: odd", 'reason: "\\0"'), "a text that is none"),
    ],
)
def test_a_broken_file_is_a_condition_with_its_line_and_the_rules_in_force_stay(
    broken: str, told: str, tmp_path: Path
) -> None:
    path, health = tmp_path / "rules.yaml", Health()
    watch = watching(path, health=health)
    watch.load()
    rewrite(path, broken, 1_000)
    assert watch.changed() is None
    (state,) = health.active
    assert state.condition is Condition.RULES_FILE_BROKEN
    assert told in state.cause
    assert "the rules in force stay" in state.cause
    assert watch.changed() is None
    rewrite(path, GOOD, 2_000)
    assert names(watch.changed()) == ["large", "odd"]
    assert health.active == ()
    with pytest.raises(ConfigurationError):
        watching(tmp_path / "other.yaml", broken).load()


def test_a_file_that_goes_and_comes_back(tmp_path: Path) -> None:
    path, health = tmp_path / "rules.yaml", Health()
    watch = watching(path, health=health)
    watch.load()
    path.unlink()
    assert watch.changed() is None
    assert ["no such file" in each.cause for each in health.active] == [True]
    rewrite(path, GOOD, 1_000)
    assert names(watch.changed()) == ["large", "odd"]


def test_without_a_file_nothing_changes() -> None:
    spec = agent_spec(rules=[INLINE])
    watch = RuleWatch(spec, SCHEMA)
    assert watch.load() == spec
    assert watch.changed() is None


def test_a_relative_file_lies_beside_its_spec(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(
        "name: a\nversion: 1.0.0\nrules_file: rules.yaml\nalerts: {topic: b}\n"
        "data_sources: {transactions: {contract: simulator, topic: c}}\n",
        encoding="utf-8",
    )
    assert load_spec(path).rules_file == str(tmp_path / "rules.yaml")


def test_lines_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(GOOD, encoding="utf-8")
    assert [line_of(path, key) for key in ("rules", "rules.0.when", "rules.0.nothing", "rules.7", "x")] == [
        2, 3, 2, 2, 1,
    ]  # fmt: skip
    assert line_of(tmp_path / "none.yaml", "rules") is None


def test_a_look_sees_a_file_break_and_mended_before_any_batch_takes_it(tmp_path: Path) -> None:
    path, health = tmp_path / "rules.yaml", Health()
    watch = watching(path, health=health)
    watch.load()
    watch.check()
    assert not health.active
    rewrite(path, GOOD.replace("low", "lowest"), 1_000)
    watch.check()
    (state,) = health.active
    assert state.condition is Condition.RULES_FILE_BROKEN
    assert "rules.yaml:4: rules.0.severity" in state.cause
    assert watch.changed() is None
    assert health.active == (state,)
    rewrite(path, GOOD.replace("odd", "strange"), 2_000)
    watch.check()
    assert health.active == ()
    assert names(watch.changed()) == ["large", "strange"], "a look takes nothing"


def test_looks_beside_batches_leave_a_file_that_stands_still_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, load = tmp_path / "rules.yaml", Mock(wraps=load_document)
    watch = watching(path)
    watch.load()
    monkeypatch.setattr(rule_file, "load_document", load)
    for _ in range(3):
        watch.check()
    assert load.call_count == 0
    rewrite(path, GOOD.replace("odd", "strange"), 1_000)
    for _ in range(3):
        watch.check()
    assert load.call_count == 1


def test_an_idle_round_of_a_run_sees_a_file_break_and_mended(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(GOOD, encoding="utf-8")
    settings, spec, health = Settings.load(tmp_path / "home", {}), agent(rules_file=str(path)), Health()
    hooks = Hooks(publisher=cast("Callable[..., Publisher]", QuietLane))
    with (
        Clients(settings, "none") as clients,
        open_agent(PlacedAgent(settings, spec), "127.0.0.1:1", clients, hooks, health) as opened,
    ):
        watch = cast("TopicWatch", SimpleNamespace(unread_by_partition=dict, open_transactions=list))
        display = JsonProgress("tester")
        report = RunReporter(watch, None, display, health, lambda: None, lambda: None, opened.check_rules)
        rewrite(path, "rules: [", 1_000)
        report.round()
        assert [each.condition for each in health.active] == [Condition.RULES_FILE_BROKEN]
        rewrite(path, GOOD, 2_000)
        report.round()
        assert health.active == ()


def test_a_run_goes_on_by_the_last_good_rules_when_it_opens_the_agent_again(tmp_path: Path) -> None:
    path, last_read, health = tmp_path / "rules.yaml", LastRead(), Health()
    path.write_text(GOOD, encoding="utf-8")
    spec = agent_spec(rules=[INLINE], rules_file=str(path))

    def attempt() -> RuleWatch:
        return RuleWatch(spec, SCHEMA, health=health, last_read=last_read)

    first = attempt()
    assert names(first.begin()) == ["large", "odd"]
    rewrite(path, GOOD.replace("odd", "strange"), 1_000)
    assert names(first.changed()) == ["large", "strange"]
    rewrite(path, "rules: [", 2_000)
    second = attempt()
    assert names(second.begin()) == ["large", "strange"], "the last good ones"
    (broken,) = health.active
    assert broken.condition == Condition.RULES_FILE_BROKEN
    attempt().begin()
    assert health.active == (broken,), "it goes on, and has not begun anew"
    rewrite(path, GOOD, 3_000)
    assert names(second.changed()) == ["large", "odd"]
    assert health.active == ()
    with pytest.raises(ConfigurationError):
        rewrite(path, "rules: [", 4_000)
        RuleWatch(spec, SCHEMA, health=health).begin()


def test_an_agent_opens_again_in_the_same_run_whatever_became_of_its_files(tmp_path: Path) -> None:
    rules, contract = tmp_path / "rules.yaml", tmp_path / "contract.yaml"
    rules.write_text(GOOD, encoding="utf-8")
    contract.write_bytes((CONTRACTS / "simulator.yaml").read_bytes())
    sources = {"transactions": {"contract": str(contract), "topic": TOPIC}}
    spec = agent(rules_file=str(rules), data_sources=sources)
    settings, health, last_read = Settings.load(tmp_path / "home", {}), Health(), LastRead()
    hooks = Hooks(publisher=cast("Callable[..., Publisher]", QuietLane))

    def opened(known: LastRead) -> AbstractContextManager[object]:
        at = (PlacedAgent(settings, spec), "127.0.0.1:1", clients, hooks, health)
        return open_agent(*at, last_read=known)

    with Clients(settings, "none") as clients:
        with opened(last_read):
            pass
        rewrite(rules, "rules: [", 1_000)
        rewrite(contract, "transaction_id: [", 1_000)
        with opened(last_read):
            assert [each.condition for each in health.active] == [Condition.RULES_FILE_BROKEN]
        with pytest.raises(ConfigurationError, match="contract"), opened(LastRead()):
            pass
