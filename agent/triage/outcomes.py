"""What triage makes of flagged rows: a classification each, by the model's answer or by rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent.audit.events import ModelCall, PolicyRuling
from agent.triage.containment import Faults
from agent.triage.grouping import FlaggedRow
from agent.triage.ledger import RecordedAnswer
from agent.triage.packing import Case
from agent.triage.pseudonyms import resolved
from agent.triage.rule_classifier import clip, highest
from schemas.alert import Category, ClassificationSource, FallbackReason
from schemas.rules import Severity


@dataclass(frozen=True, slots=True)
class Classification:
    """What an alert is called, by whom, and if by rules why not by the model.

    Tokens are what the call that answered took for the row's whole group. `evidence` is what the model relied
    on, each as feature=value.
    """

    category: Category
    severity: Severity
    rationale: str
    source: ClassificationSource
    fallback_reason: FallbackReason | None
    model: str | None
    prompt_id: str | None
    prompt_version: int | None
    input_tokens: int = 0
    output_tokens: int = 0
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class TriageResult:
    """Classifications in the order of the rows, and what they took.

    Attributes:
        calls: questions sent now; answers found on record cost none.
        cost: USD.
        seconds: wall time, the ledger's writes included.
        made: what became of each question put to the model.
        ruling: what the policy decided, None when nothing was to be asked.
        faults: what kept groups from being asked about or answered although nothing outside was amiss, as
            type and place.
    """

    classifications: tuple[Classification, ...]
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    groups: int = 0
    seconds: float = 0.0
    made: tuple[ModelCall, ...] = ()
    ruling: PolicyRuling | None = None
    faults: tuple[str, ...] = ()

    def columns(self) -> dict[str, list[Any]]:
        """Return the alert fields the classifications fill, by name, one value per row."""
        return {
            "classification": [each.category for each in self.classifications],
            "severity": [each.severity for each in self.classifications],
            "rationale": [each.rationale for each in self.classifications],
            "classification_source": [each.source for each in self.classifications],
            "fallback_reason": [each.fallback_reason for each in self.classifications],
            "model": [each.model for each in self.classifications],
            "prompt_id": [each.prompt_id for each in self.classifications],
            "prompt_version": [each.prompt_version for each in self.classifications],
            "evidence": [list(each.evidence) for each in self.classifications],
        }


def spread(
    rows: Sequence[FlaggedRow],
    cases: Sequence[Case],
    answers: Mapping[str, RecordedAnswer | FallbackReason],
    otherwise: FallbackReason,
    faults: Faults,
) -> tuple[Classification, ...]:
    """Give each row the answer to its case, or the classification by rules where there is none.

    Args:
        answers: by the cases' keys.
        otherwise: why the model did not answer a case that `answers` does not name.
        faults: takes those of single rows; a row of no case has met one before.
    """
    given = [_by_rules(row, "internal_error") for row in rows]
    for case in cases:
        answer = answers.get(case.key, otherwise)
        for at in case.group.members:
            given[at] = faults.contain(partial(_classification, rows[at], answer, case), given[at])
    return tuple(given)


def _classification(row: FlaggedRow, answer: RecordedAnswer | FallbackReason, case: Case) -> Classification:
    return by_model(row, answer, case) if isinstance(answer, RecordedAnswer) else _by_rules(row, answer)


def all_by_rules(rows: Sequence[FlaggedRow], reason: FallbackReason) -> TriageResult:
    """Give every row the classification by rules, and say why."""
    return TriageResult(tuple(_by_rules(row, reason) for row in rows))


def _by_rules(row: FlaggedRow, reason: FallbackReason) -> Classification:
    given = row.by_rules
    return Classification(given.category, given.severity, given.rationale, "rules", reason, None, None, None)


def by_model(row: FlaggedRow, answer: RecordedAnswer, case: Case) -> Classification:
    """Give a row the answer to its case, no less severe than score and rules call for.

    An answer without words leaves the rationale to the rules.
    """
    originals = case.disclosed.originals
    return Classification(
        category=answer.classification,
        severity=highest((answer.severity, row.by_rules.severity)),
        rationale=clip(resolved(answer.rationale, originals)) or row.by_rules.rationale,
        source="llm",
        fallback_reason=None,
        model=answer.model,
        prompt_id=answer.prompt_id,
        prompt_version=answer.prompt_version,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        evidence=tuple(resolved(each, originals) for each in answer.evidence),
    )
