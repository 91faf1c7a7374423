"""The agent spec: defaults that work, faults that are named, and a digest of all it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.documents import resolve_named
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from schemas.rules import SEVERITIES
from schemas.spec import AgentSpec, load_spec

SMALLEST: dict[str, Any] = {
    "name": "cards",
    "version": "1.0.0",
    "data_sources": {"transactions": {"contract": "simulator", "topic": "transactions"}},
    "alerts": {"topic": "alerts"},
}
RULE = {"name": "large", "when": "amount > 10000", "severity": "high", "reason": "amount above 10000"}


def parsed(**changes: Any) -> AgentSpec:
    return parse_document({**SMALLEST, **changes}, AgentSpec, where="spec.yaml")


def test_the_smallest_spec_is_complete_and_survives_a_round_trip(tmp_path: Path) -> None:
    spec = parsed(rules=[RULE])
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json")), encoding="utf-8")
    again = load_spec(path)
    assert again == spec
    assert again.digest == spec.digest


def test_every_change_changes_the_digest() -> None:
    specs = [
        parsed(),
        parsed(version="1.0.1"),
        parsed(rules=[RULE]),
        parsed(rules=[{**RULE, "severity": "low"}]),
        parsed(llm={"prompt": {"version": 3}}),
    ]
    assert len({spec.digest for spec in specs}) == len(specs)


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"treshold": 0.9}, "treshold", "did you mean 'threshold'"),
        ({"llm": {"promt": "x"}}, "llm.promt", "did you mean 'prompt'"),
        ({"llm": {"budget": {"calls": 1}}}, "llm.budget.calls", "did you mean 'calls_per_batch'"),
        ({"threshold": 1.0}, "threshold", "less than 1"),
        ({"alerts": {"topic": "bad topic!"}}, "alerts.topic", "pattern"),
        ({"tables": {"transactions": "../../x"}}, "tables.transactions", "pattern"),
        ({"replay_horizon": "0s"}, "replay_horizon", "greater than 0"),
        ({"rules": None}, "rules", "a list"),
        ({"name": "Cards"}, "name", "pattern"),
        ({"version": "1"}, "version", "pattern"),
        ({"orchestrator": "parallel"}, "orchestrator", "sequential"),
        ({"rules": [RULE, RULE]}, "rules", "share the name 'large'"),
        ({"rules": [{**RULE, "severity": "severe"}]}, "rules.0.severity", "critical"),
        ({"alerts": {"topic": "transactions"}}, "", "must differ"),
        ({"tables": {"audit": "alerts"}}, "tables", "share the name 'alerts'"),
        ({"tables": {"audit": "snapshots"}}, "tables", "is where snapshots are kept"),
        ({"profiles": {"horizons": ["1d", "1h"]}}, "profiles.horizons", "ascending"),
        ({"profiles": {"horizons": ["1d"]}}, "profiles.horizons", "at least two"),
        ({"llm": {"deadline": "soon"}}, "llm.deadline", "expected a duration"),
        ({"llm": {"max_concurrency": 0}}, "llm.max_concurrency", "greater than or equal to 1"),
        ({"detectors": {"amount": {"weight": 0}}}, "detectors.amount.weight", "greater than 0"),
    ],
)
def test_a_fault_names_its_key_and_what_was_expected(changes: dict[str, Any], key: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parsed(**changes)
    assert caught.value.key == key
    assert said in str(caught.value)


def test_severities_ascend() -> None:
    assert SEVERITIES == ("low", "medium", "high", "critical")


def test_names_stand_for_shipped_files_and_paths_for_themselves(tmp_path: Path) -> None:
    (tmp_path / "cards.yaml").touch()
    assert resolve_named("cards", tmp_path, "spec") == tmp_path / "cards.yaml"
    assert resolve_named("other/spec.yaml", tmp_path, "spec") == Path("other/spec.yaml")
    with pytest.raises(ConfigurationError, match="did you mean 'cards'"):
        resolve_named("crads", tmp_path, "spec")


@pytest.mark.parametrize(
    "llm",
    [
        {"api_key_env": "sk-secret"},
        {"base_url": "https://user:sk-secret@host/v1"},
        {"base_url": "https://host/v1?key=sk-secret"},
        {"base_url": "https://host/v1#sk-secret"},
        {"base_url": "sk-secret"},
    ],
)
def test_what_may_be_a_secret_is_refused_unquoted(llm: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as fault:
        parsed(llm=llm)
    assert fault.value.key == f"llm.{next(iter(llm))}"
    assert "secret" not in str(fault.value)


@pytest.mark.parametrize(
    "url",
    ["http://host:99999/v1", "https://host:port/v1", "https://....", "https://ho st/v1", "https://host\n/v1"],
)
def test_an_address_that_nothing_can_be_sent_to_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as fault:
        parsed(llm={"base_url": url})
    assert fault.value.key == "llm.base_url"


def test_a_contract_s_path_starts_at_the_spec_s_folder(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    source = {"contract": "contracts/own.yaml", "topic": "transactions"}
    path.write_text(yaml.safe_dump({**SMALLEST, "data_sources": {"transactions": source}}), encoding="utf-8")
    assert load_spec(path).data_sources.transactions.contract == str(tmp_path / "contracts" / "own.yaml")


def test_a_folder_is_no_spec(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_spec(tmp_path)


def test_keys_of_models_that_nobody_uses_leave_the_digest_alone() -> None:
    assert (
        parsed(llm={"model": "a"}).digest
        == parsed(llm={"model": "a", "fallbacks": [], "api_version": None}).digest
    )
    assert "fallbacks" not in parsed().model_dump_json()
    used = [parsed(llm={"fallbacks": [{"model": each}]}) for each in ("a", "b")]
    assert len({each.digest for each in (*used, parsed())}) == 3
    assert AgentSpec.model_validate_json(used[0].model_dump_json()) == used[0]


@pytest.mark.parametrize(
    ("llm", "said"),
    [
        ({"fallbacks": [{"model": "a"}, {"model": "a"}]}, "'a' is named twice"),
        ({"model": "a", "fallbacks": [{"model": "a"}]}, "the model itself"),
        ({"fallbacks": [{"base_url": "https://host/v1"}]}, "required"),
        (
            {"fallbacks": [{"model": "a", "base_url": "https://host/v1?key=sk-secret"}]},
            "nothing after the path",
        ),
        ({"fallbacks": [{"model": "a", "api_key_env": "sk-secret"}]}, "the name of an environment variable"),
        ({"api_version": "2024 10"}, "pattern"),
    ],
)
def test_a_list_of_models_that_cannot_be_used_is_refused(llm: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as fault:
        parsed(llm=llm)
    assert said in str(fault.value)
    assert "sk-secret" not in str(fault.value)


def test_where_records_are_decoded_is_no_part_of_what_decides() -> None:
    away = parsed(execution="cluster", cluster={"master": "spark://here:7077", "executors": 2})
    assert away.digest == parsed().digest
    assert not {"execution", "cluster"} & away.model_dump().keys()
    assert away.cluster is not None
    assert (away.execution, away.cluster.executors, parsed().execution) == ("cluster", 2, "local")
    with pytest.raises(ConfigurationError, match="needs the master's address"):
        parsed(execution="cluster")


def test_where_a_lake_lies_is_no_part_of_what_decides(tmp_path: Path) -> None:
    assert parsed(store="s3://bucket/agents").digest == parsed().digest
    path = tmp_path / "spec.yaml"
    for store, found in (
        ("s3://bucket/a", "s3://bucket/a"),
        ("lakes", str(tmp_path / "lakes")),
        ("/a", "/a"),
    ):
        path.write_text(yaml.safe_dump({**SMALLEST, "store": store}), encoding="utf-8")
        assert load_spec(path).store == found
