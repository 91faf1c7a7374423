"""What another machine's arithmetic may change is let pass, and nothing else is."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.alert import ALERT_KIND, absence_kind
from streaming.history.comparison import Difference, differences_between
from streaming.history.tolerance import (
    SCORES_WITHIN,
    LastBits,
    Leeway,
    log_odds_within,
    texts_alike,
)

EXACT_BELOW = 100
FAR = 1.0
LEAST_WAY = 1e-3  # where reasons all but cancel out, a last bit of the score moves each of them far

scores = st.floats(1e-6, 1.0 - 1e-6)
parts = st.lists(st.floats(-20.0, 20.0), min_size=1, max_size=5)


def alert(score: float, contributions: list[float], sequence: int = EXACT_BELOW) -> dict[str, Any]:
    log_odds = math.log(score / (1.0 - score))
    names = [f"detector.entity{number}" for number in range(len(contributions))]
    reasons: list[dict[str, Any]] = [
        {"name": name, "contribution": part, "text": f"{abs(part):.1f} times the usual"}
        for name, part in zip(names, contributions, strict=True)
    ]
    return {
        "alert_id": f"a{sequence}",
        "transaction_id": f"t{sequence}",
        "sequence": sequence,
        "kind": ALERT_KIND,
        "passed_by": None,
        "amount": 12.5,
        "score": score,
        "log_odds": log_odds,
        "base": log_odds - sum(contributions),
        "own_evidence": sum(contributions),
        "reasons": reasons,
        "rules": [],
        "classification": "unusual_spend",
        "severity": "high",
        "rationale": "; ".join(each["text"] for each in reasons),
        "classification_source": "rules",
    }


alerts = st.builds(alert, scores, parts)


def differences(
    before: list[dict[str, Any]], after: list[dict[str, Any]], margin: float = FAR
) -> tuple[list[Difference], LastBits]:
    met = LastBits()
    leeway = Leeway(met, EXACT_BELOW, lambda *_: margin)
    tables = [pa.Table.from_pylist(side or [alert(0.5, [1.0])]) for side in (before, after)]
    published, replayed = (
        table if side else table.slice(0, 0) for table, side in zip(tables, (before, after), strict=True)
    )
    return list(differences_between(published, replayed, frozenset(), leeway)), met


def scored_as(one: dict[str, Any], score: float) -> dict[str, Any]:
    """Return what an alert holds whose score is another, and all that follows from it."""
    other = deepcopy(one)
    log_odds = math.log(score / (1.0 - score))
    way = one["log_odds"] - one["base"]
    share = (log_odds - one["base"]) / way if way else 1.0
    for reason in other["reasons"]:
        reason["contribution"] *= share
        reason["text"] = f"{abs(reason['contribution']):.1f} times the usual"
    rationale = "; ".join(reason["text"] for reason in other["reasons"])
    return {**other, "score": score, "log_odds": log_odds, "rationale": rationale}


@given(alerts, st.floats(-0.9, 0.9))
def test_a_score_within_the_tolerance_and_all_that_follows_from_it_are_let_pass(
    one: dict[str, Any], share: float
) -> None:
    assume(abs(one["log_odds"] - one["base"]) > LEAST_WAY)
    other = scored_as(one, one["score"] + share * SCORES_WITHIN)
    found, met = differences([one], [other])
    assert found == []
    assert met.flipped == []
    assert met.largest.get("score", 0.0) == abs(one["score"] - other["score"])
    assert (met.alerts == 1) == (one != other)


@given(alerts, st.floats(1.1, 1e9), st.sampled_from([-1.0, 1.0]))
def test_a_score_beyond_the_tolerance_is_a_difference(one: dict[str, Any], times: float, sign: float) -> None:
    score = one["score"] + sign * times * SCORES_WITHIN
    assume(0.0 < score < 1.0)
    (found,), met = differences([one], [scored_as(one, score)])
    assert found.what == "changed"
    assert "score" in found.fields
    assert met.alerts in (0, 1)


@given(alerts, st.sampled_from(["log_odds", "base"]), st.floats(1.5, 1e6), st.sampled_from([-1.0, 1.0]))
def test_log_odds_are_off_by_no_more_than_the_score_may_be(
    one: dict[str, Any], name: str, times: float, sign: float
) -> None:
    changed = one[name] + sign * times * log_odds_within(one[name])
    (found,), _ = differences([one], [{**one, name: changed}])
    assert set(found.fields) == {name}


@given(
    alerts,
    st.sampled_from(["amount", "classification", "severity", "rules", "transaction_id", "kind"]),
)
def test_nothing_but_scores_and_what_follows_is_let_pass(one: dict[str, Any], name: str) -> None:
    other = deepcopy(one)
    other[name] = {"amount": math.nextafter(12.5, 13.0), "rules": ["large"]}.get(name, f"{one[name]}x")
    found, met = differences([one], [other])
    assert found
    assert met.alerts == 0


@given(st.builds(alert, scores, parts, st.integers(0, EXACT_BELOW - 1)))
def test_what_this_machine_has_computed_is_compared_to_the_bit(one: dict[str, Any]) -> None:
    other = {**one, "score": math.nextafter(one["score"], 1.0)}
    (found,), met = differences([one], [other], margin=0.0)
    assert set(found.fields) == {"score"}
    (missing,), _ = differences([one], [], margin=0.0)
    assert missing.what == "missing"
    assert (met.alerts, met.largest, met.flipped) == (0, {}, [])


@given(alerts, st.booleans(), st.floats(0.0, 3.0))
def test_an_alert_on_one_side_alone_is_no_difference_where_its_score_lies_at_its_threshold(
    one: dict[str, Any], published: bool, times: float
) -> None:
    sides: tuple[list[Any], list[Any]] = ([one], []) if published else ([], [one])
    found, met = differences(*sides, margin=times * SCORES_WITHIN)
    assert (found == []) == (times <= 1.0)
    assert met.flipped == ([one["alert_id"]] if times <= 1.0 else [])


@pytest.mark.parametrize("changes", [{"rules": ["large"]}, {"kind": absence_kind("silent")}])
def test_an_alert_that_a_rule_raises_does_not_hang_on_its_score(changes: dict[str, Any]) -> None:
    (found,), met = differences([{**alert(0.5, [1.0]), **changes}], [], margin=0.0)
    assert (found.what, met.flipped) == ("missing", [])


def test_an_absence_is_as_new_as_the_row_that_made_it_certain() -> None:
    old = {**alert(0.5, [1.0], sequence=3), "kind": absence_kind("silent"), "passed_by": EXACT_BELOW}
    found, met = differences([old], [{**old, "score": math.nextafter(0.5, 1.0)}])
    assert (found, met.alerts) == ([], 1)


def test_reasons_of_equal_weight_may_change_places() -> None:
    one = alert(0.9, [2.0, 2.0])
    other = {**one, "reasons": one["reasons"][::-1]}
    assert differences([one], [other])[0] == []
    assert differences([one], [{**one, "reasons": one["reasons"][:1]}])[0] != []


def test_reasons_of_other_weights_keep_their_places() -> None:
    one = alert(0.9, [2.0, 1.0])
    (found,), _ = differences([one], [{**one, "reasons": one["reasons"][::-1]}])
    assert set(found.fields) == {"reasons"}


def test_where_contributions_cancel_out_another_part_is_a_difference() -> None:
    one, other = (alert(0.1, [part, -5.0 + 1e-9]) for part in (5.0, 4.0))
    other |= {name: one[name] for name in ("base", "own_evidence", "rationale")}
    other["reasons"][0]["text"] = one["reasons"][0]["text"]
    found, _ = differences([one], [other])
    assert [each.fields for each in found] != []


@pytest.mark.parametrize("name", ["score", "log_odds", "base", "own_evidence"])
@pytest.mark.parametrize("published", [True, False])
def test_what_is_no_number_lies_within_no_tolerance(name: str, published: bool) -> None:
    one = alert(0.9, [2.0, 1.0])
    other = {**one, name: math.nan}
    (found,), _ = differences(*(([other], [one]) if published else ([one], [other])))
    assert name in found.fields
    (missing,), met = differences([one], [], margin=math.nan)
    assert (missing.what, met.flipped) == ("missing", [])


@pytest.mark.parametrize("score", [math.nan, 3.0])
def test_a_contribution_that_is_no_number_is_a_difference(score: float) -> None:
    one = alert(0.9, [2.0, 1.0])
    reasons = [{**one["reasons"][0], "contribution": score}, one["reasons"][1]]
    (found,), _ = differences([one], [{**one, "reasons": reasons}])
    assert set(found.fields) == {"reasons"}


@given(st.floats(-1e-12, 1e-12).filter(bool))
def test_a_reason_that_all_but_vanishes_may_be_none(part: float) -> None:
    one = alert(0.9, [2.0, part])
    other = {**one, "reasons": one["reasons"][:1]}
    for before, after in ((one, other), (other, one)):
        found, met = differences([before], [after])
        assert found == []
        assert met.largest == {"reasons": abs(part)}


numbers = st.floats(1e-3, 1e9)
SHOWN = ("{:.1f} times", "one in {:,.0f}", "{:g} seconds", "{:.2e}")


@given(numbers, st.floats(-1e-12, 1e-12), st.sampled_from(SHOWN))
def test_a_number_that_rounds_the_other_way_is_the_same(number: float, off: float, shown: str) -> None:
    assert texts_alike(shown.format(number), shown.format(number * (1.0 + off)))


@given(st.text(max_size=20), st.text(max_size=20))
def test_texts_of_other_words_are_not_alike(one: str, other: str) -> None:
    assert texts_alike(one, one)
    if not any(each.isdigit() for each in one + other):
        assert texts_alike(one, other) == (one == other)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("5.2 times the usual", "5.3 times the usual", True),
        ("5.2 times the usual", "5.4 times the usual", False),
        ("9.9 times", "10.0 times", True),
        ("one in 1,200", "one in 1,300", True),
        ("one in 990", "one in 1,000", True),
        ("one in 1,200", "one in 1,400", False),
        ("3 km", "3 h", False),
        ("2 of 3", "2", False),
        ("99,000 km", "100,000 km", True),
        ("1 payment of", "2 payment of", True),
        ("10 payments", "11 payments", True),
        ("10 payments", "20 payments", False),
        ("one in 1,000", "one in 2,000", False),
        ("Monday 10:00 UTC", "Monday 20:00 UTC", False),
    ],
)
def test_numbers_may_be_off_by_one_in_the_last_place(one: str, other: str, alike: bool) -> None:
    assert texts_alike(one, other) == texts_alike(other, one) == alike


@pytest.mark.parametrize("currency", ["EUR", "9e9999999", "1e99999999999", "9e999999", "1e-9999999"])
def test_texts_with_numbers_beyond_all_measure_are_compared(currency: str) -> None:
    text = f"412.00 {currency} is 9.1x this customer's usual 45.20 {currency}"
    assert texts_alike(text, text)
    assert texts_alike(text, text.replace("9.1x", "9.2x"))
    assert not texts_alike(text, text.replace("9.1x", "9.4x"))
    assert not texts_alike(text, text.replace(currency, f"8{currency}"))
