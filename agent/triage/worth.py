"""What classifications are worth once labels are known: right, honest in severity, useful in order.

A classification calls an alert fraud unless it is `likely_legitimate`; `needs_review` decides nothing. Its
severity states a chance of fraud: the middle of its quarter, from low to critical.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from schemas.alert import Category
from schemas.rules import SEVERITIES, Severity

_LEGITIMATE, _UNDECIDED = "likely_legitimate", "needs_review"
_BUDGET_SHARE = 0.5


class JudgedAlert(NamedTuple):
    """An alert's classification beside its label; `score` is in (0, 1)."""

    category: Category
    severity: Severity
    score: float
    fraud: bool


@dataclass(frozen=True)
class SeverityShare:
    """Alerts of one severity: how many, which share of frauds it states, and which there is."""

    severity: Severity
    alerts: int
    stated: float
    found: float


@dataclass(frozen=True)
class Worth:
    """What the classifications of some labelled alerts are worth.

    Attributes:
        alerts: how many there are.
        decided: how many are classified other than `needs_review`.
        agreeing: share of the decided that say of fraud what the label says, None where none is decided.
        reliability: by severity, those that were given.
        calibration_error: mean distance of stated and found shares of frauds, weighed by alerts, 0 to 1.
        budget: alerts that people have time for: half of them.
        precision_by_score: share of frauds among the `budget` alerts of the highest scores.
        precision_by_classification: the same where what is likely legitimate goes last, and severity goes
            before score.
    """

    alerts: int
    decided: int
    agreeing: float | None
    reliability: list[SeverityShare]
    calibration_error: float
    budget: int
    precision_by_score: float
    precision_by_classification: float


def worth_of(judged: Sequence[JudgedAlert]) -> Worth:
    """Compare classifications with labels.

    Args:
        judged: one or more.
    """
    decided = [each for each in judged if each.category != _UNDECIDED]
    right = sum((each.category != _LEGITIMATE) == each.fraud for each in decided)
    reliability = [each for each in (_share_of(judged, name) for name in SEVERITIES) if each.alerts]
    apart = sum(each.alerts * abs(each.stated - each.found) for each in reliability)
    budget = max(int(_BUDGET_SHARE * len(judged)), 1)
    return Worth(
        alerts=len(judged),
        decided=len(decided),
        agreeing=right / len(decided) if decided else None,
        reliability=reliability,
        calibration_error=apart / len(judged),
        budget=budget,
        precision_by_score=_precision(judged, budget, lambda each: (each.score,)),
        precision_by_classification=_precision(judged, budget, _urgency),
    )


def stated_share(severity: Severity) -> float:
    """Return the share of frauds that a severity states: the middle of its quarter of 0 to 1."""
    return (SEVERITIES.index(severity) + 0.5) / len(SEVERITIES)


def _urgency(each: JudgedAlert) -> tuple[float, ...]:
    return (each.category != _LEGITIMATE, SEVERITIES.index(each.severity), each.score)


def _share_of(judged: Sequence[JudgedAlert], severity: Severity) -> SeverityShare:
    frauds = [each.fraud for each in judged if each.severity == severity]
    return SeverityShare(severity, len(frauds), stated_share(severity), sum(frauds) / max(len(frauds), 1))


def _precision(
    judged: Sequence[JudgedAlert], budget: int, urgency: Callable[[JudgedAlert], tuple[float, ...]]
) -> float:
    first = sorted(judged, key=urgency, reverse=True)[:budget]
    return sum(each.fraud for each in first) / len(first)
