"""The classification by rules, for when no model answers: from reasons, rules and score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType

from schemas.alert import Category, Reason
from schemas.rules import SEVERITIES, Rule, Severity

RATIONALE_CHARACTERS = 120
_RANK: Mapping[Severity, int] = {severity: rank for rank, severity in enumerate(SEVERITIES)}
_SEVERITY_FROM_SCORE: tuple[tuple[float, Severity], ...] = (
    (0.9999, "critical"),
    (0.999, "high"),
    (0.99, "medium"),
)
_NOTICEABLE_SCORE = 0.99
_SUPPORTING_SHARE = 0.25
_CONTRIBUTION = attrgetter("contribution")

_FROM_DETECTORS: tuple[tuple[frozenset[str], Category], ...] = (
    (frozenset({"travel"}), "account_takeover"),
    (frozenset({"novelty", "rate"}), "card_testing"),
    (frozenset({"amount", "rate"}), "account_takeover"),
    (frozenset({"rate"}), "velocity_abuse"),
    (frozenset({"novelty"}), "new_entity_risk"),
    (frozenset({"amount"}), "unusual_spend"),
    (frozenset({"recurrence"}), "account_takeover"),
    (frozenset({"risk"}), "needs_review"),
)


@dataclass(frozen=True, slots=True)
class RuleClassification:
    """A classification without a model."""

    category: Category
    severity: Severity
    rationale: str


def highest(severities: Iterable[Severity]) -> Severity:
    """Return the most urgent of `severities`, `low` when there are none."""
    return max(severities, key=_RANK.__getitem__, default="low")


def severity_of(score: float) -> Severity:
    """Return the severity of a calibrated score by how rare it is: 1 in 10,000, 1,000 and 100."""
    for least, severity in _SEVERITY_FROM_SCORE:
        if score >= least:
            return severity
    return "low"


def clip(text: str, characters: int = RATIONALE_CHARACTERS) -> str:
    """Shorten `text` to at most `characters`, marking the cut with an ellipsis."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


class RuleClassifier:
    """Classifies flagged rows under one set of rules.

    Args:
        rules: the spec's rules; a rule hit lends its severity and its reason.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = {rule.name: rule for rule in rules}

    def classify(
        self,
        score: float,
        reasons: Sequence[Reason],
        rules: Sequence[str] = (),
        sentences: Mapping[str, str] = MappingProxyType({}),
    ) -> RuleClassification:
        """Classify one row.

        Args:
            score: calibrated score in 0-1.
            reasons: named `detector.entity`, in any order; only those that raise the score count.
            rules: names of the rules hit; an unknown one counts as `low`.
            sentences: rule → what it says of this row, where that is more than its reason.
        """
        material = _material(reasons)
        known = [self._rules[name] for name in rules if name in self._rules]
        minimum = highest(rule.severity for rule in known) if known else "low"
        texts = [sentences.get(rule.name, rule.reason) for rule in known] + [
            each.text or each.name for each in material
        ]
        return RuleClassification(
            category=_category(score, material, bool(rules)),
            severity=max(severity_of(score), minimum, key=_RANK.__getitem__),
            rationale=clip("; ".join(dict.fromkeys(texts)) or "flagged without a single strong reason"),
        )


def _material(reasons: Sequence[Reason]) -> list[Reason]:
    raising = sorted(reasons, key=_CONTRIBUTION, reverse=True)
    least = raising[0].contribution * _SUPPORTING_SHARE if raising else 0.0
    return [each for each in raising if each.contribution > 0 and each.contribution >= least]


def _category(score: float, material: Sequence[Reason], rule_hit: bool) -> Category:
    if rule_hit and (score < _NOTICEABLE_SCORE or not material):
        return "limit_breach"
    typology = _typology(tuple(each.name for each in material))
    return "limit_breach" if rule_hit and typology == "needs_review" else typology


@lru_cache(maxsize=4096)
def _typology(names: tuple[str, ...]) -> Category:
    parts = [name.partition(".") for name in names]
    together = {detector for detector, _, entity in parts if entity == parts[0][2]}
    for detectors, classification in _FROM_DETECTORS:
        if parts and parts[0][0] in detectors and detectors <= together:
            return classification
    return "needs_review"
