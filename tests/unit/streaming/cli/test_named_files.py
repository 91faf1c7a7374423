"""Errors in files: which file, which line, and what it was to be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.planning.plans import load_plan
from schemas.contract import load_contract
from schemas.errors import ConfigurationError
from schemas.policy import load_policy
from schemas.spec import load_spec
from streaming.cli.options import spec_named
from streaming.definition.agent_definition import AgentDefinition

SPEC_TEXT = """name: tester
version: 1.0.0
data_sources:
  transactions:
    contract: simulator
    topic: events
threshold: 0.9
alerts: {topic: alerts}
"""


def test_a_fault_in_a_file_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    rule = "  - name: large\n    when: amount > 1000\n    severity: high\n    reason: large\n"
    good = f"{SPEC_TEXT}rules:\n{rule}"
    broken = {
        "    severity: hgih\n": ":12: rules.0.severity: Input should be",
        "    severity: [high\n": ": not valid YAML at line 13: expected",
        "    svrity: high\n": ":12: rules.0.svrity: unknown key",
    }
    for line, told in broken.items():
        path.write_text(good.replace("    severity: high\n", line), encoding="utf-8")
        with pytest.raises(ConfigurationError) as raised:
            load_spec(path)
        assert str(raised.value).startswith(f"{path}{told}")
        assert "\n" not in str(raised.value)


def test_a_missing_file_is_named_with_what_it_was_to_be(tmp_path: Path) -> None:
    gone = str(tmp_path / "none.yaml")
    for kind, load in (
        ("contract", load_contract),
        ("spec", spec_named),
        ("policy", lambda name: load_policy(name, tmp_path)),
        ("plan", lambda name: load_plan(Path(name))),
    ):
        with pytest.raises(ConfigurationError, match=f"^{kind} {re.escape(gone)}: no such file$"):
            load(gone)


def test_what_names_a_missing_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC_TEXT.replace("contract: simulator", "contract: none.yaml"), encoding="utf-8")
    key = "data_sources.transactions.contract"
    with pytest.raises(ConfigurationError) as raised:
        AgentDefinition.load(load_spec(path), str(path))
    named = tmp_path / "none.yaml"
    assert str(raised.value) == f"{path}: {key}: contract {named}: no such file"
