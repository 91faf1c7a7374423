"""A short budget goes to the most expected loss, uncertainty and novelty first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.triage.grouping import FlaggedRow, Group, group_rows
from agent.triage.scheduling import Familiarity, by_priority, uncertainty
from schemas.alert import Reason
from tests.unit.agent.triage.test_grouping import row

CERTAIN = (Reason("amount.customer", 5.0, ""),)
OPEN_QUESTION = (Reason("amount.customer", 5.0, ""), Reason("rate.terminal", 5.0, ""))


def groups_of(rows: list[FlaggedRow]) -> list[Group]:
    return group_rows(rows, [()] * len(rows))


def order(rows: list[FlaggedRow], familiarity: Familiarity | None = None) -> list[tuple[int, ...]]:
    return [group.members for group, _ in by_priority(groups_of(rows), rows, familiarity or Familiarity())]


def test_more_money_more_rows_and_rarer_scores_come_first() -> None:
    assert order([row(0, amount=20.0), row(1, amount=2000.0), row(2, amount=200.0)]) == [(1,), (2,), (0,)]
    assert order([row(0, rules=("a",)), row(1), row(2)]) == [(1, 2), (0,)]
    assert order([row(0, rules=("a",)), row(1, score=0.99999)]) == [(1,), (0,)]


def test_what_the_rules_settle_least_comes_first() -> None:
    assert order([row(0, reasons=CERTAIN, rules=("a",)), row(1, reasons=OPEN_QUESTION)]) == [(1,), (0,)]


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [(CERTAIN, 0.1), (OPEN_QUESTION, 1.0), ((), 0.1), ((*CERTAIN, Reason("rate.terminal", -1.0, "")), 0.1)],
)
def test_uncertainty_is_how_evenly_the_evidence_is_spread(
    reasons: tuple[Reason, ...], expected: float
) -> None:
    assert uncertainty(row(reasons=reasons)) == pytest.approx(expected)


def test_a_classification_that_asks_for_review_is_most_uncertain() -> None:
    by_rules = replace(row().by_rules, category="needs_review")
    assert uncertainty(row(reasons=CERTAIN, by_rules=by_rules)) == 1.0


def test_a_pattern_that_was_answered_lately_makes_room() -> None:
    rows = [row(0, amount=200.0), row(1, amount=190.0, rules=("a",))]
    familiarity = Familiarity()
    assert order(rows, familiarity) == [(0,), (1,)]
    familiarity.note([groups_of(rows)[0].pattern])
    assert order(rows, familiarity) == [(1,), (0,)]


def test_currencies_are_told_by_their_own_usual_amounts() -> None:
    cheap = [row(number, currency="JPY", amount=50_000.0) for number in range(3)]
    dear = [row(3 + number, currency="EUR", amount=300.0) for number in range(3)]
    striking = row(6, currency="EUR", amount=9_000.0)
    assert order([*cheap, *dear, striking])[0] == (6,)
