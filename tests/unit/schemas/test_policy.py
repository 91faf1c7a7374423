"""A policy denies whatever it does not name, and a bad one names its fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.planning.catalogue import CATALOGUE
from agent.triage.triage import POLICIES
from schemas.errors import ConfigurationError
from schemas.policy import SENDABLE, AllowedActions, DataAccess, Policy, load_policy

MODEL = {"name": "m", "provenance": "made for tests", "region": "here"}


def written(folder: Path, **changes: Any) -> Path:
    content = {"policyName": "p", "allowedModels": [MODEL], "allowedFields": ["amount"], **changes}
    path = folder / "p.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_an_empty_policy_allows_nothing() -> None:
    policy = Policy(policyName="closed")
    assert not policy.allows_model("local")
    assert not any(policy.allows(name) for name in (*SENDABLE, "entities.customer", "texts.memo"))


def test_the_default_policy_keeps_ids_and_free_text_at_home() -> None:
    policy = load_policy("default", POLICIES)
    assert policy.allows_model("local")
    assert not policy.allows_model("some-other-model")
    assert policy.allows("amount")
    assert not any(name.startswith(("entities", "texts")) for name in policy.allowedFields)


def test_a_named_field_is_allowed_and_its_neighbours_are_not(tmp_path: Path) -> None:
    policy = load_policy(str(written(tmp_path, allowedFields=["texts.memo"])), POLICIES)
    assert policy.allows("texts.memo")
    assert not policy.allows("texts.note")
    assert not policy.allows("texts")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"allowedModel": ["m"]}, "did you mean 'allowedModels'"),
        ({"allowedFields": ["amuont"]}, "did you mean 'amount'"),
        ({"allowedFields": ["entities"]}, "no field 'entities'"),
        ({"allowedFields": ["texts.*"]}, "no field 'texts.*'"),
        ({"policyName": "Bad Name"}, "policyName"),
        ({"allowedModels": ["m"]}, "expected each model as {name, provenance, region}, got 'm'"),
        ({"allowedModels": [{**MODEL, "regoin": "EU"}]}, "did you mean 'region'"),
        (
            {"allowedModels": [{"name": "m", "provenance": "x"}]},
            "allowedModels.0.region: this key is required",
        ),
        ({"allowedModels": [MODEL, MODEL]}, "the model 'm' is named twice"),
        ({"dataAccess": {"tables": ["ledger"]}}, "dataAccess.tables.0"),
        ({"dataAccess": {"readOnlyPath": ["lake"]}}, "did you mean 'readOnlyPaths'"),
        ({"actions": {"query_agregates": {}}}, "did you mean 'query_aggregates'"),
        ({"actions": {"query_aggregates": {"rows": 0}}}, "actions.query_aggregates.rows"),
        ({"actions": {"run_job": {"submit": True}}}, "'submit' needs the address of a 'workspace'"),
        ({"actions": {"notify": {"targets": {"x": "http://example.org"}}}}, "expected an https address"),
        ({"actions": {"notify": {"targets": {"x": "https://example.org:99999"}}}}, "expected a port"),
        ({"budgets": {"step": 3}}, "did you mean 'steps'"),
    ],
)
def test_a_fault_is_named_with_the_nearest_right_name(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_policy(str(written(tmp_path, **changes)), POLICIES)
    assert said in str(caught.value)
    assert "p.json" in str(caught.value)


def test_an_unknown_policy_name_suggests_a_shipped_one() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'default'"):
        load_policy("defualt", POLICIES)


def test_nothing_may_be_done_under_a_policy_that_names_no_action() -> None:
    policy = Policy(policyName="closed")
    assert not any(policy.actions.limits(name) for name in CATALOGUE)
    assert (policy.budgets.steps, policy.budgets.tokens, policy.budgets.seconds) == (0, 0, 0)
    assert policy.dataAccess.tables == policy.dataAccess.readOnlyPaths == ()


def test_every_declared_action_can_be_allowed_and_no_other() -> None:
    assert set(AllowedActions.model_fields) == set(CATALOGUE)


def test_an_allowed_model_tells_where_it_comes_from(tmp_path: Path) -> None:
    policy = load_policy(str(written(tmp_path)), POLICIES)
    model = policy.model("m")
    assert model is not None
    assert (model.provenance, model.region) == ("made for tests", "here")
    assert policy.model("n") is None
    assert policy.model_names == ("m",)


@pytest.mark.parametrize("secret", ["https://me:s3cr3t@example.org", "ftp://example.org/s3cr3t"])
def test_an_address_that_is_refused_is_not_shown(tmp_path: Path, secret: str) -> None:
    for actions in ({"notify": {"targets": {"desk": secret}}}, {"run_job": {"workspace": secret}}):
        with pytest.raises(ConfigurationError) as caught:
            load_policy(str(written(tmp_path, actions=actions)), POLICIES)
        assert "s3cr3t" not in str(caught.value)


def test_a_folder_that_no_path_can_name_is_refused() -> None:
    with pytest.raises(ValueError, match="readOnlyPaths"):
        DataAccess.model_validate({"readOnlyPaths": ["lake\0"]})


@pytest.mark.parametrize("name", ["mine.json", "mine.yaml", "mine.yml", "here/mine"])
def test_what_looks_like_a_path_is_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"policy {name}: no such file"):
        load_policy(name, tmp_path)
