"""Labelled triage cases: what the rules and a scripted model reach on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from agent.triage.grouping import FlaggedRow
from agent.triage.prompt_evaluation import TriageCases, each_alone, evaluate_prompt, load_cases, rows_of
from agent.triage.triage import Classification, TriageResult
from schemas.alert import CATEGORIES, Category
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from schemas.rules import SEVERITIES, Severity
from streaming.cli.root import app

CASES = load_cases("triage")


def classification(classification: Category, severity: Severity) -> Classification:
    return Classification(classification, severity, "because", "llm", None, "scripted", "triage", 1)


def test_the_shipped_cases_cover_every_classification_and_severity() -> None:
    assert {case.classification for case in CASES.cases} == set(CATEGORIES)
    assert {case.severity for case in CASES.cases} == set(SEVERITIES)
    assert len({case.name for case in CASES.cases}) == len(CASES.cases) >= 40
    assert 0.3 < sum(case.fraud for case in CASES.cases) / len(CASES.cases) < 0.7


def test_the_recorded_figure_is_what_the_labeller_reaches() -> None:
    result = CliRunner().invoke(app, ["prompts", "eval", "--llm", "none", "--generated", "0", "--json"])
    told = json.loads(result.stdout)
    assert result.exit_code == 0
    assert told["accuracy"] == told["labeller_accuracy"] == CASES.labeller_accuracy
    assert (told["prompt"], told["answered"], told["cost"]) == ("rules", 0.0, 0.0)


def test_classifications_are_judged_against_the_cases() -> None:
    right = [classification(case.classification, case.severity) for case in CASES.cases]
    perfect = evaluate_prompt(
        CASES, lambda _: TriageResult(tuple(right), calls=4, seconds=2.0), "triage/1", "m"
    )
    assert (perfect.accuracy, perfect.severity_accuracy, perfect.answered, perfect.seconds) == (1, 1, 1, 0.5)
    same = [classification("needs_review", "low") for _ in CASES.cases]
    blind = evaluate_prompt(CASES, lambda _: TriageResult(tuple(same)), "triage/1", "m")
    reviewed = sum(case.classification == "needs_review" for case in CASES.cases)
    assert blind.accuracy == reviewed / len(CASES.cases)
    assert blind.severity_auc == 0.5
    assert blind.fraud_shares == {"low": sum(case.fraud for case in CASES.cases) / len(CASES.cases)}


def test_severities_that_tell_frauds_from_others_reach_an_auc_of_one() -> None:
    given = [classification("needs_review", "critical" if case.fraud else "low") for case in CASES.cases]
    figures = evaluate_prompt(CASES, lambda _: TriageResult(tuple(given)), "triage/1", "m")
    assert figures.severity_auc == 1.0
    assert figures.fraud_shares == {"low": 0.0, "critical": 1.0}


def test_rows_carry_the_rules_their_severity_comes_from() -> None:
    by_name = {case.name: row for case, row in zip(CASES.cases, rows_of(CASES), strict=True)}
    assert by_name["limit, score of nothing"].by_rules.severity == "high"


def test_a_prompt_worse_than_the_rules_fails(tmp_path: Path) -> None:
    content = CASES.model_dump(mode="json") | {"labeller_accuracy": 0.99}
    path = tmp_path / "cases.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    result = CliRunner().invoke(app, ["prompts", "eval", "--llm", "none", "--cases", str(path), "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["passed"] is False


def test_broken_cases_are_refused_with_their_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file of triage cases"):
        load_cases("triage", tmp_path / "none.yaml")
    content = CASES.model_dump(mode="json")
    content["cases"][0]["clasification"] = "unusual_spend"
    with pytest.raises(ConfigurationError, match="did you mean 'classification'"):
        parse_document(content, TriageCases, where="cases.yaml")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"amount": float("nan")}, "amount"),
        ({"amount": float("-inf")}, "amount"),
        (
            {"reasons": [{"name": "amount.customer", "contribution": float("inf"), "text": "x"}]},
            "contribution",
        ),
        ({"rules": ["larg"]}, "names no rule of the file: 'larg'"),
    ],
)
def test_a_case_that_means_nothing_is_refused(changes: dict[str, Any], said: str) -> None:
    content = CASES.model_dump(mode="json")
    content["cases"][0] |= changes
    with pytest.raises(ConfigurationError, match=said):
        parse_document(content, TriageCases, where="cases.yaml")


def test_asked_about_alone_no_case_shares_an_answer_and_what_it_took_adds_up() -> None:
    asked: list[int] = []

    def classify(rows: Sequence[FlaggedRow]) -> TriageResult:
        asked.append(len(rows))
        severity: Severity = "high" if rows[0].amount > 1_000 else "low"
        said = tuple(classification("unusual_spend", severity) for _ in rows)
        return TriageResult(said, calls=1, input_tokens=7, output_tokens=3, groups=1, seconds=2.0)

    done: list[int] = []
    count = len(CASES.cases)
    figures = evaluate_prompt(CASES, each_alone(classify, done.append), "triage/1", "m")
    assert asked == [1] * count
    assert done == list(range(1, count + 1))
    assert (figures.questions, figures.input_tokens, figures.output_tokens) == (count, 7 * count, 3 * count)
    assert figures.seconds == 2.0
    shares = {each.severity: each.alerts for each in figures.worth.reliability}
    assert shares["high"] == sum(case.amount > 1_000 for case in CASES.cases)


def test_a_case_with_a_label_alone_counts_for_the_label_alone() -> None:
    bare = CASES.cases[0].model_copy(update={"classification": None, "severity": None, "fraud": False})
    cases = CASES.model_copy(update={"cases": (*CASES.cases, bare)})
    right = [
        classification(case.classification or "unusual_spend", case.severity or "low") for case in cases.cases
    ]
    figures = evaluate_prompt(cases, lambda _: TriageResult(tuple(right)), "triage/1", "m")
    assert (figures.accuracy, figures.severity_accuracy, figures.worth.alerts) == (1.0, 1.0, len(cases.cases))
