"""A policy denies whatever it does not name, and a bad one names its fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.triage import POLICIES
from schemas.errors import ConfigurationError
from schemas.policy import SENDABLE, Policy, load_policy


def written(folder: Path, **changes: Any) -> Path:
    content = {"policyName": "p", "allowedModels": ["m"], "allowedFields": ["amount"], **changes}
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
