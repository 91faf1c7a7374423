"""A spec is valid where a run would take it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import SPECS
from schemas.cluster import SparkClusterSettings
from schemas.contract import load_contract
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec, load_spec
from streaming.commands.specs import show_columns, validate
from streaming.definition.agent_definition import AgentDefinition
from streaming.detection.feature_meanings import meaning
from streaming.detection.features import (
    _DETECTOR_OF,
    CALENDAR,
    EVIDENCE,
    encounter_feature_names,
    kind_feature_names,
    window_feature_names,
)


def written(**changes: Any) -> AgentSpec:
    master = SparkClusterSettings(master="spark://10.0.0.5:7077")
    spec = load_spec(SPECS / "card-fraud.yaml")
    return spec.model_copy(update={"execution": "cluster", "cluster": master, **changes})


def test_a_cluster_that_does_what_is_needed_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    validate(written(), "my.yaml", as_json=True)
    assert '"valid": true' in capsys.readouterr().out


def test_what_a_cluster_refuses_is_no_valid_spec(tmp_path: Path) -> None:
    """By the check of a run: here a contract that reads by a schema registry."""
    content = load_contract("simulator").model_dump(mode="json", exclude_unset=True)
    contract = tmp_path / "registry.yaml"
    contract.write_text(yaml.safe_dump({**content, "format": {"avro": {"registry": True}}}), encoding="utf-8")
    sources = written().data_sources
    transactions = sources.transactions.model_copy(update={"contract": str(contract)})
    spec = written(data_sources=sources.model_copy(update={"transactions": transactions}))
    with pytest.raises(ConfigurationError, match=r"my\.yaml: execution: cluster decodes no contract that"):
        validate(spec, "my.yaml", as_json=True)


def test_brokers_with_a_login_are_no_valid_spec_for_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "client.properties"
    file.write_text("security.protocol=SSL\n", encoding="utf-8")
    monkeypatch.setenv("FLAGSTREAM_KAFKA", "broker:9093")
    monkeypatch.setenv("FLAGSTREAM_KAFKA_CONFIG", str(file))
    with pytest.raises(ConfigurationError, match=r"my\.yaml: execution: .* executors get no secrets"):
        validate(written(), "my.yaml", as_json=True)


@pytest.mark.parametrize("name", sorted(path.stem for path in SPECS.glob("*.yaml")))
def test_of_each_column_that_rules_can_use_it_says_what_it_means(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = load_spec(SPECS / f"{name}.yaml")
    show_columns(spec, as_json=True)
    columns = json.loads(capsys.readouterr().out)
    assert columns.keys() == set(AgentDefinition.of(spec).content.rule_schema.names)
    assert all(each["type"] and each["meaning"] for each in columns.values())
    assert columns["amount"]["meaning"].startswith("amount, from ")


def test_every_feature_has_a_meaning_in_words() -> None:
    """Of all detectors and windows, whichever specs use them."""
    windows = window_feature_names("card-refunds", [3600.0], delayed=True)
    names = [
        *kind_feature_names("card", [3600.0], [86400.0]),
        *encounter_feature_names(["card"], [3600.0]),
        *windows,
        *CALENDAR,
        *(EVIDENCE, "habit_nats.card", "distance.card", "speed.card"),
    ]
    assert not [name for name in names if "{" in meaning(name)]
    assert meaning(windows[0]) == "refunds of this card in the last 1 hour, exactly"
    assert set(_DETECTOR_OF) <= {name.partition(".")[0] for name in names}
