"""How well a prompt and its model label triage cases, beside the rules.

A case is a flagged payment with the label that the definitions give it and whether it was a fraud. Like
payments share an answer, as they do in a batch, unless each is asked about alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, model_validator

from agent.model.prompt_files import PROMPTS
from agent.triage.grouping import FlaggedRow
from agent.triage.rule_classifier import RuleClassifier
from agent.triage.triage import TriageResult
from agent.triage.worth import JudgedAlert, Worth, worth_of
from schemas.alert import Category, Reason
from schemas.errors import ConfigurationError, nearest
from schemas.loading import Document, load_document
from schemas.rules import SEVERITIES, Rule, Severity

_MOMENT = datetime(2026, 1, 5, 12, tzinfo=UTC)
_ADDED = ("calls", "input_tokens", "output_tokens", "cost", "groups", "seconds")


class CaseReason(Document):
    """One reason of a case, as an alert has it."""

    name: str
    contribution: float
    text: str


class TriageCase(Document):
    """One labelled case; `why` says what the label rests on.

    Where only the label is known, and not what kind of unusual it is, there is no classification.
    """

    name: str
    amount: float
    score: float = Field(gt=0, lt=1)
    reasons: tuple[CaseReason, ...] = ()
    rules: tuple[str, ...] = ()
    classification: Category | None = None
    severity: Severity | None = None
    fraud: bool
    why: str = ""


class TriageCases(Document):
    """A file of cases, with the rules they name and what the rules reached on them."""

    rules: tuple[Rule, ...] = ()
    labeller_accuracy: float = Field(ge=0, le=1)
    cases: tuple[TriageCase, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_its_rules(self) -> TriageCases:
        known = [rule.name for rule in self.rules]
        for case in self.cases:
            for name in case.rules:
                if name not in known:
                    raise ValueError(
                        f"case {case.name!r} names no rule of the file: {name!r}; {nearest(name, known)}"
                    )
        return self


@dataclass(frozen=True)
class PromptFigures:
    """What came of a run.

    Attributes:
        prompt: `id/version`; `rules` for the rules.
        cases: how many; `accuracy` is over those that have a classification.
        questions: groups of like cases that were asked about; those of one share an answer.
        accuracy: share of cases with the right classification.
        severity_accuracy: share of cases with the right severity.
        answered: share of cases that a model answered.
        fraud_shares: severity given → share of frauds among its cases; calibrated severities rise with it.
        severity_auc: chance that a fraud was given a higher severity than another case, ties counted half.
        worth: what the classifications are worth beside the labels of all cases.
        cost: USD.
        seconds: wall time per call, 0 without one.
    """

    prompt: str
    model: str
    cases: int
    questions: int
    accuracy: float
    severity_accuracy: float
    answered: float
    fraud_shares: Mapping[str, float]
    severity_auc: float
    worth: Worth
    input_tokens: int
    output_tokens: int
    cost: float
    seconds: float


def load_cases(prompt: str, path: Path | None = None) -> TriageCases:
    """Read a file of cases; by default the one that is shipped with the prompt.

    Raises:
        ConfigurationError: there is none, or it does not fit.
    """
    path = path or PROMPTS / prompt / "cases.yaml"
    if not path.exists():
        raise ConfigurationError("no such file of triage cases", where=str(path))
    return load_document(path, TriageCases)


def rows_of(cases: TriageCases) -> list[FlaggedRow]:
    """Return the cases as rows for triage, labelled by the rules."""
    labeller = RuleClassifier(cases.rules)
    return [_row(number, case, labeller) for number, case in enumerate(cases.cases)]


def evaluate_prompt(
    cases: TriageCases,
    classify: Callable[[Sequence[FlaggedRow]], TriageResult],
    prompt: str,
    model: str,
) -> PromptFigures:
    """Have the cases classified and judge the classifications.

    Args:
        classify: all rows at once, as a batch.
        prompt, model: what to call the run.
    """
    result = classify(rows_of(cases))
    given = [each.severity for each in result.classifications]
    pairs = list(zip(cases.cases, result.classifications, strict=True))
    judged = [JudgedAlert(said.category, said.severity, case.score, case.fraud) for case, said in pairs]
    return PromptFigures(
        prompt=prompt,
        model=model,
        cases=len(pairs),
        questions=result.groups,
        accuracy=_share(
            [case.classification == said.category for case, said in pairs if case.classification is not None]
        ),
        severity_accuracy=_share(
            [case.severity == said.severity for case, said in pairs if case.severity is not None]
        ),
        answered=_share([each.source == "llm" for each in result.classifications]),
        fraud_shares=_fraud_shares(cases, given),
        severity_auc=_severity_auc(cases, given),
        worth=worth_of(judged),
        input_tokens=result.input_tokens,
        output_tokens=result.output_tokens,
        cost=result.cost,
        seconds=result.seconds / result.calls if result.calls else 0.0,
    )


def each_alone(
    classify: Callable[[Sequence[FlaggedRow]], TriageResult], on_progress: Callable[[int], None]
) -> Callable[[Sequence[FlaggedRow]], TriageResult]:
    """Return what has rows classified one at a time, so that no two share an answer.

    Args:
        classify: all rows at once, as a batch.
        on_progress: called with the rows done so far.
    """

    def one_by_one(rows: Sequence[FlaggedRow]) -> TriageResult:
        results = []
        for number, row in enumerate(rows, 1):
            results.append(classify([row]))
            on_progress(number)
        sums = {name: sum(getattr(each, name) for each in results) for name in _ADDED}
        return TriageResult(tuple(said for each in results for said in each.classifications), **sums)

    return one_by_one


def _row(number: int, case: TriageCase, labeller: RuleClassifier) -> FlaggedRow:
    reasons = tuple(Reason(each.name, each.contribution, each.text) for each in case.reasons)
    return FlaggedRow(
        alert_id=f"case-{number}",
        transaction_id=f"case-{number}",
        amount=case.amount,
        currency="EUR",
        entities={"customer": f"customer-{number}", "terminal": f"terminal-{number}"},
        event_time=_MOMENT,
        score=case.score,
        reasons=reasons,
        rules=case.rules,
        by_rules=labeller.classify(case.score, reasons, case.rules),
    )


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / max(len(flags), 1)


def _fraud_shares(cases: TriageCases, given: Sequence[Severity]) -> dict[str, float]:
    found: dict[str, float] = {}
    for severity in SEVERITIES:
        frauds = [case.fraud for case, each in zip(cases.cases, given, strict=True) if each == severity]
        if frauds:
            found[severity] = _share(frauds)
    return found


def _severity_auc(cases: TriageCases, given: Sequence[Severity]) -> float:
    ranks = [SEVERITIES.index(severity) for severity in given]
    frauds = [rank for rank, case in zip(ranks, cases.cases, strict=True) if case.fraud]
    others = [rank for rank, case in zip(ranks, cases.cases, strict=True) if not case.fraud]
    wins = sum((fraud > other) + 0.5 * (fraud == other) for fraud in frauds for other in others)
    return wins / (len(frauds) * len(others)) if frauds and others else 0.5
