"""Cases that are made of simulated payments: the same for everybody, frauds of each kind, hard negatives."""

from __future__ import annotations

from collections import Counter

import pytest

from agent.triage.prompt_evaluation import TriageCase, TriageCases, load_cases, rows_of
from streaming.events.simulator import FRAUD_TYPES
from streaming.learning.triage_cases import generated_cases


@pytest.fixture(scope="module")
def cases() -> list[TriageCase]:
    return generated_cases(260)


def kinds(cases: list[TriageCase]) -> Counter[str]:
    return Counter(case.name.rpartition(" ")[0] for case in cases)


def test_half_are_frauds_of_every_kind_and_half_honest_payments_of_high_scores(
    cases: list[TriageCase],
) -> None:
    assert len(cases) == 260
    found = kinds(cases)
    assert found.pop("honest payment") == 130
    assert set(found) == {each.replace("_", " ") for each in FRAUD_TYPES}
    assert min(found.values()) >= 10
    assert all(case.fraud == (not case.name.startswith("honest")) for case in cases)


def test_honest_ones_are_as_striking_as_frauds(cases: list[TriageCase]) -> None:
    honest = sorted(case.score for case in cases if not case.fraud)
    frauds = sorted(case.score for case in cases if case.fraud)
    assert honest[0] >= 0.98
    assert honest[-1] > frauds[len(frauds) // 2], "the hardest outscore half of the frauds"


def test_the_same_count_and_seed_make_the_same_cases_and_another_seed_others(cases: list[TriageCase]) -> None:
    assert generated_cases(260) == cases
    assert generated_cases(260, seed=8) != cases


def test_cases_are_rows_for_triage_beside_those_made_by_hand(cases: list[TriageCase]) -> None:
    shipped = load_cases("triage")
    together = TriageCases(
        rules=shipped.rules, labeller_accuracy=shipped.labeller_accuracy, cases=(*shipped.cases, *cases)
    )
    rows = rows_of(together)
    assert len(rows) == 300
    assert all(row.reasons for row in rows[-260:])
