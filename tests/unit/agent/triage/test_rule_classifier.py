"""The deterministic label follows from reasons, rules and score alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.triage.rule_classifier import RATIONALE_CHARACTERS, RuleClassifier, clip, highest, severity_of
from schemas.alert import CATEGORIES, Reason
from schemas.rules import Rule

RULES = [
    Rule(name="large_amount", when="amount > 10000", severity="high", reason="amount above 10000"),
    Rule(name="odd_hour", when="hour < 5", severity="medium", reason="between midnight and five"),
]
CLASSIFIER = RuleClassifier(RULES)


def reasons(**contributions: float) -> tuple[Reason, ...]:
    return tuple(
        Reason(name.replace("_", "."), value, f"{name} is {value}") for name, value in contributions.items()
    )


@pytest.mark.parametrize(
    ("contributions", "classification"),
    [
        ({"amount_customer": 4.0}, "unusual_spend"),
        ({"rate_terminal": 4.0}, "velocity_abuse"),
        ({"novelty_customer": 4.0}, "new_entity_risk"),
        ({"amount_customer": 4.0, "rate_customer": 3.0}, "account_takeover"),
        ({"amount_customer": 4.0, "rate_terminal": 3.0}, "unusual_spend"),
        ({"amount_customer": 4.0, "rate_customer": 0.5}, "unusual_spend"),
        ({"novelty_card": 2.0, "rate_card": 3.0}, "card_testing"),
        ({"amount_customer": -4.0}, "needs_review"),
        ({"velocity_customer": 4.0}, "needs_review"),
        ({}, "needs_review"),
    ],
)
def test_the_strongest_reasons_name_the_typology(
    contributions: dict[str, float], classification: str
) -> None:
    assert CLASSIFIER.classify(0.995, reasons(**contributions)).category == classification


def test_a_rule_alone_is_a_limit_breach_and_a_rare_score_outweighs_it() -> None:
    strong = reasons(amount_customer=4.0)
    assert CLASSIFIER.classify(0.2, strong, ("large_amount",)).category == "limit_breach"
    assert CLASSIFIER.classify(0.995, strong, ("large_amount",)).category == "unusual_spend"
    assert CLASSIFIER.classify(0.995, (), ("large_amount",)).category == "limit_breach"


@pytest.mark.parametrize(
    ("score", "severity"),
    [
        (0.0, "low"),
        (0.98999, "low"),
        (0.99, "medium"),
        (0.999, "high"),
        (0.99989, "high"),
        (0.9999, "critical"),
        (1.0, "critical"),
    ],
)
def test_severity_follows_how_rare_the_score_is(score: float, severity: str) -> None:
    assert severity_of(score) == severity


def test_rules_set_a_floor_and_never_lower_a_severity() -> None:
    low = CLASSIFIER.classify(0.1, (), ("odd_hour", "large_amount"))
    rare = CLASSIFIER.classify(0.99995, (), ("odd_hour",))
    assert (low.severity, rare.severity) == ("high", "critical")
    assert highest([]) == "low"


def test_a_rule_that_is_no_longer_in_the_spec_still_labels() -> None:
    label = CLASSIFIER.classify(0.1, (), ("gone",))
    assert (label.category, label.severity) == ("limit_breach", "low")


def test_the_rationale_quotes_rules_first_and_weak_reasons_not_at_all() -> None:
    label = CLASSIFIER.classify(0.995, reasons(amount_customer=4.0, rate_terminal=0.1), ("large_amount",))
    assert label.rationale == "amount above 10000; amount_customer is 4.0"
    assert CLASSIFIER.classify(0.995, (Reason("rate.card", 1.0, ""),)).rationale == "rate.card"


@given(st.text(), st.integers(2, 50))
def test_clipped_text_never_exceeds_its_bound(text: str, characters: int) -> None:
    assert len(clip(text, characters)) <= characters
    assert clip(text, max(len(text), 2)) == text


names = st.sampled_from(["amount.a", "rate.a", "novelty.a", "rate.b", "other"])
contribution = st.floats(-50, 50)


@given(
    st.floats(0, 1),
    st.lists(st.builds(Reason, names, contribution, st.text()), max_size=6),
    st.lists(st.sampled_from(["large_amount", "odd_hour", "gone"]), unique=True),
)
def test_every_row_gets_a_complete_label(score: float, given_reasons: list[Reason], rules: list[str]) -> None:
    label = CLASSIFIER.classify(score, given_reasons, rules)
    assert label.category in CATEGORIES
    least = [severity_of(score), *(rule.severity for rule in RULES if rule.name in rules)]
    assert label.severity == highest(least)
    assert 0 < len(label.rationale) <= RATIONALE_CHARACTERS
    assert label == CLASSIFIER.classify(score, given_reasons, rules)
