"""Classifications beside labels: what agrees, what severities state, and whether frauds come first."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.triage.worth import JudgedAlert, stated_share, worth_of
from schemas.alert import Category
from schemas.rules import SEVERITIES

judged = st.builds(
    JudgedAlert,
    st.sampled_from(get_args(Category)),
    st.sampled_from(SEVERITIES),
    st.floats(0.01, 0.99),
    st.booleans(),
)


@given(st.lists(judged, min_size=1, max_size=40))
def test_shares_are_shares_and_every_alert_counts_once(alerts: list[JudgedAlert]) -> None:
    worth = worth_of(alerts)
    assert sum(each.alerts for each in worth.reliability) == worth.alerts == len(alerts)
    found = sum(each.alerts * each.found for each in worth.reliability)
    assert found == pytest.approx(sum(each.fraud for each in alerts))
    shares = (worth.calibration_error, worth.precision_by_score, worth.precision_by_classification)
    assert all(0 <= each <= 1 for each in shares)
    assert (worth.agreeing is None) == (worth.decided == 0)


@given(st.lists(judged, min_size=2, max_size=40))
def test_a_classification_that_knows_the_label_never_comes_after_the_score(alerts: list[JudgedAlert]) -> None:
    knowing = [
        each._replace(
            category="unusual_spend" if each.fraud else "likely_legitimate",
            severity="critical" if each.fraud else "low",
        )
        for each in alerts
    ]
    worth = worth_of(knowing)
    assert worth.agreeing == 1.0
    assert worth.precision_by_classification >= worth.precision_by_score
    assert worth.calibration_error == pytest.approx(0.125)


def test_one_that_says_the_same_of_all_leaves_the_order_of_scores() -> None:
    alerts = [JudgedAlert("needs_review", "high", score / 10, score > 5) for score in range(1, 10)]
    worth = worth_of(alerts)
    assert (worth.decided, worth.agreeing, worth.budget) == (0, None, 4)
    assert worth.precision_by_classification == worth.precision_by_score == 1.0


def test_severities_state_the_middles_of_four_quarters() -> None:
    assert [stated_share(each) for each in SEVERITIES] == [0.125, 0.375, 0.625, 0.875]
    honest = [JudgedAlert("unusual_spend", "high", 0.99, number < 5) for number in range(8)]
    assert worth_of(honest).calibration_error == 0.0
