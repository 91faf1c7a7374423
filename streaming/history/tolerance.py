"""How far alerts may lie apart that were computed by machines of two fingerprints, and how far they do.

Machines of two fingerprints (streaming.arrays.fingerprint) give scores that differ in their last bits. Of
1,000,000 payments under every detector but a trained model, scored with and without FMA, 37,338 scores
differ, by at most 5.2e-14; 190 times that is let pass. What else an alert holds follows from its score, so
its tolerance is derived:

* log-odds are ln(s / (1 - s)), so a score that is off by t leaves them off by t / (s (1 - s)); the base is
  the log-odds of another score;
* contributions share out the way from the base to the log-odds, so each is off by as much of itself as the
  way is, and by no less than both ends are; by a thousandth of itself at most, where contributions cancel
  out and the way is next to nothing; one that is 0 on one side is no reason there;
* own evidence is a sum of nats: at most 2.3e-13 of itself apart there;
* reasons stand in the order of their contributions, so those as near to each other may change places;
* texts round numbers, so a number in them may be off by one in the last place that is shown.

A score that lies within the tolerance of its threshold may be flagged by one machine and not by the other.
What is no number lies within no tolerance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import Any

from schemas.alert import ALERT_KIND

SCORES_WITHIN = 1e-11
_EVIDENCE_WITHIN = 1e-10
_MOST_OF_A_CONTRIBUTION = 1e-3
_FURTHEST = 15.0  # log-odds of scores, which are kept off 0 and 1
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d{1,3}(?!\d))?")
_LOG_ODDS, _BASE, _OWN_EVIDENCE, _REASONS, _RATIONALE = (
    "log_odds", "base", "own_evidence", "reasons", "rationale",
)  # fmt: skip

Alert = Mapping[str, Any]


@dataclass
class LastBits:
    """What of a tolerance was needed.

    Attributes:
        alerts: how many differ, and by no more than the tolerance.
        largest: the largest difference met by field, of reasons that of their contributions.
        flipped: alerts that are on one side alone, as their scores lie at their thresholds.
    """

    alerts: int = 0
    largest: dict[str, float] = field(default_factory=dict)
    flipped: list[str] = field(default_factory=list)

    def note(self, name: str, distance: float) -> None:
        """Remember a difference that was met."""
        self.largest[name] = max(distance, self.largest.get(name, 0.0))


@dataclass(frozen=True)
class Tolerated:
    """What a replay let pass, as it is reported.

    Attributes:
        batches: that were compared within the tolerance.
        alerts: see LastBits, as for `largest` and `flipped`.
        scores_within: how far scores may lie apart; what that means for the rest is in the module.
    """

    batches: int
    alerts: int
    largest: Mapping[str, float]
    flipped: tuple[str, ...]
    scores_within: float = SCORES_WITHIN

    @classmethod
    def of(cls, batches: int, met: LastBits) -> Tolerated:
        """Sum up what was met in a number of batches."""
        return cls(batches, met.alerts, dict(met.largest), tuple(met.flipped))

    @property
    def was_needed(self) -> bool:
        """Whether anything differs at all."""
        return bool(self.alerts or self.flipped)


@dataclass(frozen=True)
class Leeway:
    """Lets pass what the machine alone may change in the alerts of some rows.

    Args:
        met: remembers what was let pass.
        first: alerts that rows from this `sequence` on have raised are compared so, earlier ones exactly.
        margin: how far the score of the row with a `sequence` lies from its threshold; infinite where the
            row's score is another than the alert's, which is given, too.
    """

    met: LastBits
    first: int
    margin: Callable[[int, float], float]

    def flips(self, alert: Alert) -> bool:
        """Whether an alert may be on one side alone: its score decides, and lies at its threshold."""
        by_score = alert["kind"] == ALERT_KIND and not alert["rules"]
        if not by_score or not self._covers(alert):
            return False
        if not self.margin(alert["sequence"], alert["score"]) <= SCORES_WITHIN:  # of NaN neither holds
            return False
        self.met.flipped.append(alert["alert_id"])
        return True

    def beyond(self, before: Alert, after: Alert, changed: Mapping[str, Any]) -> dict[str, Any]:
        """Return what has changed by more than the tolerance.

        Args:
            changed: fields that differ, name → what is to be said of them.
        """
        if not self._covers(before):
            return dict(changed)
        found = {name: said for name, said in changed.items() if not self._lets_pass(name, before, after)}
        self.met.alerts += len(found) < len(changed)
        return found

    def _covers(self, alert: Alert) -> bool:
        raised = alert.get("passed_by")
        return int(alert["sequence"] if raised is None else raised) >= self.first

    def _lets_pass(self, name: str, before: Alert, after: Alert) -> bool:
        if name in _WITHIN:
            distances = [(abs(before[name] - after[name]), _WITHIN[name](before))]
        elif name == _REASONS and reasons_alike(before, after):
            distances = _contributions(before, after)
        else:
            return name == _RATIONALE and texts_alike(before[name], after[name])
        if not all(distance <= allowed for distance, allowed in distances):
            return False
        self.met.note(name, max((distance for distance, _ in distances), default=0.0))
        return True


def log_odds_within(log_odds: float) -> float:
    """Return how far log-odds may be off where the score is by SCORES_WITHIN: d ln(s/(1-s)) = ds/(s(1-s))."""
    return SCORES_WITHIN * 2.0 * (1.0 + math.cosh(min(abs(log_odds), _FURTHEST)))


def contribution_within(alert: Alert, contribution: float) -> float:
    """Return how far one of an alert's contributions may be off; see the module."""
    ends = log_odds_within(alert[_LOG_ODDS]) + log_odds_within(alert[_BASE])
    way = abs(alert[_LOG_ODDS] - alert[_BASE])
    share = ends * abs(contribution) / way if way else ends
    return max(ends, min(share, _MOST_OF_A_CONTRIBUTION * abs(contribution)))


def reasons_alike(before: Alert, after: Alert) -> bool:
    """Whether the reasons that two alerts have in common have texts that are alike, and the same order.

    Those whose contributions are equal within the tolerance may change places.
    """
    ours, theirs = ({each["name"]: each for each in side[_REASONS]} for side in (before, after))
    common = [name for name in theirs if name in ours]
    places = {name: place for place, name in enumerate(ours)}
    swapped = [pair for pair in pairwise(common) if places[pair[0]] > places[pair[1]]]
    parts = [[ours[name]["contribution"] for name in pair] for pair in swapped]
    in_order = all(abs(one - other) <= contribution_within(before, one) for one, other in parts)
    return in_order and all(texts_alike(ours[name]["text"], theirs[name]["text"]) for name in common)


def texts_alike(one: str, other: str) -> bool:
    """Whether two texts are the same but for how numbers in them were rounded."""
    if _NUMBER.split(one) != _NUMBER.split(other):
        return False
    return all(map(_rounded_alike, _NUMBER.findall(one), _NUMBER.findall(other)))


def _rounded_alike(one: str, other: str) -> bool:
    if one == other:
        return True
    numbers = [Decimal(each.replace(",", "")) for each in (one, other)]
    allowed = Decimal(1).scaleb(min(map(_last_place, numbers)))
    if allowed > 1:  # of whole numbers two figures are shown at least: 10 and 20 are not rounded so
        allowed = min(allowed, min(numbers) / 10)
    return abs(numbers[0] - numbers[1]) <= allowed


def _last_place(number: Decimal) -> int:
    """Return the power of ten of the last figure shown; of whole numbers that of the last one but zeros."""
    shown = int(number.as_tuple().exponent)
    return shown if shown < 0 or not number else int(number.normalize().as_tuple().exponent)


def _contributions(before: Alert, after: Alert) -> list[tuple[float, float]]:
    """Return how far each contribution is off, and how far it may be."""
    ours, theirs = (
        {each["name"]: each["contribution"] for each in side[_REASONS]} for side in (before, after)
    )
    pairs = [(ours.get(name, 0.0), theirs.get(name, 0.0)) for name in ours | theirs]
    return [(abs(one - other), contribution_within(before, one)) for one, other in pairs]


_WITHIN: Mapping[str, Callable[[Alert], float]] = {
    "score": lambda _: SCORES_WITHIN,
    _LOG_ODDS: lambda alert: log_odds_within(alert[_LOG_ODDS]),
    _BASE: lambda alert: log_odds_within(alert[_BASE]),
    _OWN_EVIDENCE: lambda alert: _EVIDENCE_WITHIN * max(1.0, abs(alert[_OWN_EVIDENCE])),
}
