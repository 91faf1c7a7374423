"""The gates of a promotion, one by one: what opens each, and what it says when it is closed."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from streaming.versions.promotion_gates import (
    PromotionCase,
    alerts_gate,
    closed_gates,
    endpoint_gate,
    place_gate,
    precision_gate,
    prompt_gate,
    replay_gate,
)
from streaming.versions.stages import Stage, VersionStage
from tests.unit.scoring_samples import agent_spec


def staged(version: str, stage: Stage, **changes: Any) -> VersionStage:
    spec = agent_spec(version=version, **changes)
    return VersionStage(version, spec.digest, stage, spec, datetime(2026, 5, 1, tzinfo=UTC), "anna", "new")


ASKED = {"least_labels": 10, "alerts_tolerance": 0.25}
ACTIVE = staged("1.0.0", "active", promotion=ASKED)
SLOW = staged("1.0.0", "active", promotion={**ASKED, "maturity": "10d"})
REPLAY: dict[str, Any] = {
    "active_digest": ACTIVE.digest,
    "matured": {"published": {"judged": 20, "frauds": 10}, "candidate": {"judged": 10, "frauds": 5}},
    "alerts_per_day": {"published": 80.0, "candidate": 100.0},
}
EVALUATED = {"prompt": "triage/3", "prompt_digest": "d", "model": "local", "passed": True}
GOOD = PromotionCase(staged("1.1.0", "sandbox"), ACTIVE, None, REPLAY, [], "d")


def with_replay(**changes: Any) -> PromotionCase:
    return replace(GOOD, replay={**deepcopy(REPLAY), **changes})


def matured(judged: int, frauds: int) -> dict[str, Any]:
    return {**REPLAY["matured"], "candidate": {"judged": judged, "frauds": frauds}}


def with_llm(*runs: dict[str, Any], **llm: Any) -> PromotionCase:
    return replace(GOOD, candidate=staged("1.1.0", "shadow", llm=llm), evaluations=runs)


def test_with_all_evidence_every_gate_is_open() -> None:
    assert closed_gates(GOOD) == []


def test_without_a_replay_the_gates_that_rest_on_it_are_closed() -> None:
    told = closed_gates(replace(GOOD, replay=None))
    assert [each.partition(":")[0] for each in told] == ["replay", "precision", "alerts"]


def test_what_was_asked_before_the_registry_or_of_other_contents_is_said_not_to_count() -> None:
    assert "before the agent had a registry" in str(replay_gate(replace(GOOD, replay=None)))
    other = replace(GOOD, replay=None, replayed_otherwise=True)
    assert "only of other contents than those registered" in str(replay_gate(other))


def test_a_replay_against_an_earlier_active_version_does_not_count() -> None:
    assert "before 1.0.0 became active" in str(replay_gate(with_replay(active_digest="other")))


@pytest.mark.parametrize(("judged", "frauds", "closed"), [(10, 5, False), (10, 4, True), (9, 9, True)])
def test_precision_must_not_be_below_the_published_one_on_enough_labels(
    judged: int, frauds: int, closed: bool
) -> None:
    assert (precision_gate(with_replay(matured=matured(judged, frauds))) is not None) is closed


def test_too_few_labels_on_the_published_side_close_the_gate_too() -> None:
    few = {**matured(100, 100), "published": {"judged": 9, "frauds": 0}}
    assert "9 alerts of one side" in str(precision_gate(with_replay(matured=few)))


def test_a_gate_that_waits_for_labels_says_when_they_count() -> None:
    case = replace(with_replay(matured=matured(9, 9), oldest_alert="2026-05-01"), active=SLOW)
    assert precision_gate(case) == (
        "precision: 9 alerts of one side with a matured label, 10 needed (`promotion.least_labels`); labels "
        "count once their transaction is 10d old (`promotion.maturity`), and the oldest do from 2026-05-11"
    )
    before = replace(with_replay(matured=matured(9, 9)), active=SLOW)
    assert str(precision_gate(before)).endswith("(`promotion.maturity`)")


def test_a_candidate_does_not_choose_how_many_labels_it_needs() -> None:
    lax = staged("1.1.0", "sandbox", promotion={"least_labels": 1})
    assert precision_gate(replace(with_replay(matured=matured(5, 5)), candidate=lax)) is not None


@pytest.mark.parametrize(("budget", "rate", "closed"), [(80, 100, False), (80, 100.1, True), (50, 63, True)])
def test_alerts_stay_within_the_budget_and_its_tolerance(budget: float, rate: float, closed: bool) -> None:
    case = with_replay(alerts_per_day={"published": 1_000.0, "candidate": rate})
    case = replace(case, candidate=staged("1.1.0", "sandbox", alerts_per_day=budget))
    assert (alerts_gate(case) is not None) is closed


@pytest.mark.parametrize(("rate", "closed"), [(100, False), (101, True)])
def test_without_a_budget_what_was_published_is_the_budget(rate: float, closed: bool) -> None:
    case = with_replay(alerts_per_day={"published": 80.0, "candidate": rate})
    assert (alerts_gate(case) is not None) is closed


def test_another_prompt_needs_an_evaluation_that_passed() -> None:
    prompt = {"prompt": {"id": "triage", "version": 3}}
    assert "has no evaluation" in str(prompt_gate(with_llm(**prompt)))
    assert prompt_gate(with_llm(EVALUATED, **prompt)) is None
    assert "not passed" in str(prompt_gate(with_llm(EVALUATED, {**EVALUATED, "passed": False}, **prompt)))


@pytest.mark.parametrize(
    "other", [{"prompt": "triage/2"}, {"prompt_digest": "e"}, {"model": "none"}, {"model": "another"}]
)
def test_an_evaluation_of_something_else_does_not_count(other: dict[str, Any]) -> None:
    llm = {"prompt": {"id": "triage", "version": 3}, "model": "local"}
    assert prompt_gate(with_llm({**EVALUATED, **other}, **llm)) is not None


def test_another_model_needs_an_evaluation_and_no_model_needs_none() -> None:
    assert "model large-one differs" in str(prompt_gate(with_llm(model="large-one")))
    assert prompt_gate(with_llm(provider="none")) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"policy": "other.json"}, "policy"),
        ({"llm": {"api_key_env": "AWS_SECRET_ACCESS_KEY"}}, "llm.api_key_env"),
        ({"llm": {"base_url": "https://elsewhere.example.org/v1"}}, "llm.base_url"),
        ({"llm": {"model": "another"}}, "llm.model"),
        ({"llm": {"api_version": "2024-10-21"}}, "llm.api_version"),
        ({"llm": {"fallbacks": [{"model": "another"}]}}, "llm.fallbacks"),
        ({"policy": "other.json", "llm": {"provider": "none"}}, "policy"),
    ],
)
def test_what_leaves_to_whom_and_with_which_key_changes_by_consent_alone(
    changes: dict[str, Any], named: str
) -> None:
    case = replace(GOOD, candidate=staged("1.1.0", "sandbox", **changes))
    assert f"endpoint: {named} differ" in str(endpoint_gate(case))
    assert any("--allow-endpoint-change" in reason for reason in closed_gates(case))
    assert endpoint_gate(replace(case, endpoint_change="agreed with the desk")) is None


def test_switching_the_model_off_needs_no_consent_and_switching_it_on_does() -> None:
    off = staged("1.1.0", "sandbox", llm={"provider": "none"})
    assert endpoint_gate(replace(GOOD, candidate=off)) is None
    active = replace(off, stage="active")
    assert "llm.provider" in str(endpoint_gate(replace(GOOD, active=active)))


def test_one_version_at_a_time_stands_in_shadow() -> None:
    other = staged("1.2.0", "shadow")
    assert "version 1.2.0 is in shadow" in str(place_gate(replace(GOOD, beside=other)))
    last = replace(GOOD, candidate=staged("1.1.0", "canary"), beside=ACTIVE)
    assert place_gate(last) is None
