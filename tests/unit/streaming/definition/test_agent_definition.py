"""A definition is loaded by one loader, tells every fault at once, and stays as it was read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from agent.triage.triage import POLICIES
from schemas.contract import CONTRACTS
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec
from streaming.batch.engine import Engine
from streaming.definition.agent_definition import AgentDefinition
from streaming.home.settings import Settings

ROOT = Path(__file__).resolve().parents[4]
RULES = "rules:\n- {name: large, when: amount > 250, severity: high, reason: large}\n"


def spec_of(folder: Path, **changes: Any) -> AgentSpec:
    """A spec whose contract, policy and rules are files of its own."""
    contract, policy, rules = (folder / name for name in ("contract.yaml", "policy.json", "rules.yaml"))
    if not contract.exists():
        shutil.copy(CONTRACTS / "simulator.yaml", contract)
        shutil.copy(POLICIES / "default.json", policy)
        rules.write_text(RULES)
    return AgentSpec.model_validate(
        {
            "name": "tester",
            "version": "1.0.0",
            "data_sources": {"transactions": {"contract": str(contract), "topic": "events"}},
            "alerts": {"topic": "alerts"},
            "policy": str(policy),
            "rules_file": str(rules),
            **changes,
        }
    )


def test_what_was_read_stays_whatever_becomes_of_the_files(tmp_path: Path) -> None:
    definition = AgentDefinition.load(spec_of(tmp_path))
    for path in tmp_path.iterdir():
        path.unlink()
    engine = Engine.on_rules(Settings.load(tmp_path / "home", {}), definition)
    pins = engine.decider.pins()
    assert [rule.name for rule in engine.decider.rules.rules] == ["large"]
    assert pins["policy_digest"] == definition.policy.digest
    assert definition.digests.items() <= pins.items()


def test_other_rules_are_another_definition_that_shares_what_was_read(tmp_path: Path) -> None:
    first = AgentDefinition.load(spec_of(tmp_path))
    (tmp_path / "rules.yaml").write_text(RULES.replace("large", "larger"))
    (tmp_path / "policy.json").unlink()
    then = first.with_rules(first.rule_watch(spec_of(tmp_path)).load())
    assert [rule.name for rule in first.rules.rules] == ["large"]
    assert [rule.name for rule in then.rules.rules] == ["larger"]
    assert (then.policy, then.contract, then.layout) == (first.policy, first.contract, first.layout)
    assert then.digests["rules_version"] != first.digests["rules_version"]
    for each in fields(first):
        with pytest.raises(FrozenInstanceError):
            setattr(first, each.name, None)


def _lost(name: str) -> Callable[[Path], dict[str, Any]]:
    def lose(folder: Path) -> dict[str, Any]:
        (folder / name).unlink()
        return {}

    return lose


def _broken_rule(folder: Path) -> dict[str, Any]:
    (folder / "rules.yaml").write_text(RULES.replace("amount", "amuont"))
    return {}


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_lost("contract.yaml"), "contract.yaml"),
        (_lost("policy.json"), "policy.json"),
        (_lost("rules.yaml"), "rules.yaml"),
        (_broken_rule, "amuont"),
        (lambda _: {"llm": {"prompt": {"id": "triage", "version": 99}}}, "llm.prompt"),
        (lambda _: {"llm": {"model": "nobody-knows-it"}}, "llm.model"),
        (lambda _: {"llm": {"context_tokens": 256}}, "llm.prompt"),
        (lambda folder: {"model": {"path": str(folder / "gone")}}, "gone: not a model artefact"),
        (lambda _: {"profiles": {"entities": ["nobody"]}}, "nobody"),
    ],
)
def test_every_fault_of_content_is_told_when_a_definition_is_loaded(
    tmp_path: Path, damage: Callable[[Path], dict[str, Any]], told: str
) -> None:
    whole = spec_of(tmp_path)
    AgentDefinition.load(whole)
    changes = damage(tmp_path)
    spec = AgentSpec.model_validate({**whole.model_dump(), **changes})
    with pytest.raises(ConfigurationError, match=re.escape(told)) as caught:
        AgentDefinition.load(spec, "mine.yaml")
    assert any(place in str(caught.value) for place in ("mine.yaml", str(tmp_path))), "it names a file"


def test_a_spec_s_contract_is_loaded_in_one_place() -> None:
    named = re.compile(r"load_contract\([^()]*data_sources")
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("streaming", "benchmarks", "agent", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if named.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"streaming/definition/contracts.py"}
