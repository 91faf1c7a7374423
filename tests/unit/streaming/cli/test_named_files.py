"""Errors in files: which file, which line, and what it was to be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.planning.plans import load_plan
from schemas.contract import CONTRACTS, load_contract
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


def test_a_document_of_another_kind_is_told_for_what_it_is(tmp_path: Path) -> None:
    spec, contract = tmp_path / "spec.yaml", tmp_path / "contract.yaml"
    spec.write_text(SPEC_TEXT, encoding="utf-8")
    contract.write_text((CONTRACTS / "simulator.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    told = {
        (spec_named, contract): "this is a contract; expected a spec, which names this file under "
        "data_sources.transactions.contract",
        (
            load_contract,
            spec,
        ): "this is a spec; expected a contract, such as the one that this file names under "
        "data_sources.transactions.contract",
        (lambda name: load_policy(name, tmp_path), contract): "this is a contract; expected a policy",
    }
    for (load, file), said in told.items():
        with pytest.raises(ConfigurationError) as raised:
            load(str(file))
        assert str(raised.value) == f"{file}: {said}"


def test_a_misspelt_key_is_still_called_so_where_the_kind_is_right(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(f"{SPEC_TEXT}rulse: []\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="rulse: unknown key; did you mean 'rules'"):
        load_spec(path)
    path.write_text(SPEC_TEXT.replace("data_sources:", "data_source:") + "rules: []\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="data_source: unknown key; did you mean 'data_sources'"):
        load_spec(path)
