"""Which groups a short budget goes to: expected loss by uncertainty by novelty, the highest first.

The product only orders the groups; no classification depends on it but by being asked for or not.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from statistics import median

from agent.triage.grouping import FlaggedRow, Group, GroupPattern

_MOST_RARITY = 6.0
_MOST_TIMES_USUAL = 1e12
_LEAST_UNCERTAINTY = 0.1
_PATTERNS_REMEMBERED = 4096


class Familiarity:
    """How often each pattern was answered before; the patterns seen last are remembered."""

    def __init__(self) -> None:
        self._answered: OrderedDict[GroupPattern, int] = OrderedDict()

    def novelty(self, pattern: GroupPattern) -> float:
        """Return 1 for a new pattern, 1/2 for one that was answered once, 1/3 for twice, and so on."""
        return 1.0 / (1.0 + self._answered.get(pattern, 0))

    def note(self, patterns: Iterable[GroupPattern]) -> None:
        """Take in that these patterns were answered."""
        for pattern in patterns:
            self._answered[pattern] = self._answered.pop(pattern, 0) + 1
        while len(self._answered) > _PATTERNS_REMEMBERED:
            self._answered.popitem(last=False)


def by_priority(
    groups: Sequence[Group], rows: Sequence[FlaggedRow], familiarity: Familiarity
) -> list[tuple[Group, float]]:
    """Return `groups` with their priorities, the highest first; `rows` are the batch's."""
    usual = _usual_amounts(rows)

    def priority(group: Group) -> float:
        loss = math.fsum(_expected_loss(rows[position], usual) for position in group.members)
        return loss * uncertainty(group.exemplars[0]) * familiarity.novelty(group.pattern)

    found = ((group, priority(group)) for group in groups)
    return sorted(found, key=lambda each: (-each[1], each[0].members))


def _usual_amounts(rows: Sequence[FlaggedRow]) -> dict[str, float]:
    """Return each currency's median amount among `rows`: without rates, what makes currencies comparable."""
    amounts: dict[str, list[float]] = {}
    for row in rows:
        amounts.setdefault(row.currency, []).append(row.amount)
    return {currency: median(found) or 1.0 for currency, found in amounts.items()}


def _expected_loss(row: FlaggedRow, usual: dict[str, float]) -> float:
    """Amount, in usual amounts of its currency, times the score's rarity in powers of ten, at most six.

    The former is bounded, so that losses can be added up whatever the amounts.
    """
    rarity = min(-math.log10(max(1.0 - row.score, 1e-9)), _MOST_RARITY)
    return min(row.amount / usual[row.currency], _MOST_TIMES_USUAL) * rarity


def uncertainty(row: FlaggedRow) -> float:
    """Return how uncertain the classification by rules is, 0.1-1: most where evidence comes from many sides.

    The entropy of the contributions that raise the score, as a share of what as many equal ones would have.
    """
    raising = [reason.contribution for reason in row.reasons if reason.contribution > 0]
    if len(raising) <= 1:
        return 1.0 if row.by_rules.category == "needs_review" else _LEAST_UNCERTAINTY
    total = math.fsum(raising)
    shares = [share for each in raising if (share := each / total) > 0]
    entropy = -math.fsum(share * math.log(share) for share in shares)
    return _LEAST_UNCERTAINTY + (1.0 - _LEAST_UNCERTAINTY) * entropy / math.log(len(raising))
