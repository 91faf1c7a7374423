"""Groups flagged rows by pattern, so that one answer serves all rows of a pattern.

Rows that carry different texts of outsiders are never of one pattern: what such a text makes a model say
reaches only rows with that very text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from agent.triage.rule_classifier import RuleClassification
from schemas.alert import Reason

Texts = tuple[tuple[str, str], ...]

_PATTERN_REASONS = 1
_SHOWN_REASONS = 2
_EXEMPLARS = 3
_BAND_EDGES = tuple(float(10**power) for power in range(12))
_PLAIN_CURRENCY = re.compile(r"[A-Za-z]{3,5}")


@dataclass(frozen=True, slots=True)
class FlaggedRow:
    """A transaction that becomes an alert.

    Attributes:
        entities: entity name to id.
        score: calibrated, 0-1.
        reasons: named `detector.entity`.
        rules: names of the rules hit.
        by_rules: what the alert says unless a model answers; a model may raise its severity, never lower it.
        untrusted: the event's free texts by field name, as received.
    """

    alert_id: str
    transaction_id: str
    amount: float
    currency: str
    entities: Mapping[str, str]
    event_time: datetime
    score: float
    reasons: tuple[Reason, ...]
    rules: tuple[str, ...]
    by_rules: RuleClassification
    untrusted: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroupPattern:
    """What the rows of a group have in common.

    Attributes:
        currency: empty for one that is no currency code, which an outsider may have made up.
        amount_band: counts powers of ten.
        texts: of outsiders, by field, as they would be sent; empty when none would.
    """

    reasons: tuple[str, ...]
    rules: tuple[str, ...]
    currency: str
    amount_band: int
    texts: Texts


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one pattern: `members` are positions in the batch, `exemplars` its highest scores first."""

    pattern: GroupPattern
    members: tuple[int, ...]
    exemplars: tuple[FlaggedRow, ...]


def pattern_of(row: FlaggedRow, texts: Texts) -> GroupPattern:
    """Return the pattern of a row whose `texts` would be sent."""
    return GroupPattern(
        reasons=tuple(reason.name for reason in top_reasons(row)[:_PATTERN_REASONS]),
        rules=tuple(sorted(row.rules)),
        currency=row.currency if _PLAIN_CURRENCY.fullmatch(row.currency) else "",
        amount_band=bisect_right(_BAND_EDGES, row.amount),
        texts=texts,
    )


def top_reasons(row: FlaggedRow) -> list[Reason]:
    """Return the few reasons that raise the score most, the strongest first."""
    raising = [reason for reason in row.reasons if reason.contribution > 0]
    return sorted(raising, key=lambda reason: (-reason.contribution, reason.name))[:_SHOWN_REASONS]


def group_rows(rows: Sequence[FlaggedRow], texts: Sequence[Texts | None]) -> list[Group]:
    """Group `rows` by pattern, in the order of their first rows.

    Args:
        texts: as for pattern_of, one per row; None leaves a row out.
    """
    members: dict[GroupPattern, list[int]] = {}
    for position, (row, said) in enumerate(zip(rows, texts, strict=True)):
        if said is not None:
            members.setdefault(pattern_of(row, said), []).append(position)
    return [_group(pattern, positions, rows) for pattern, positions in members.items()]


def _group(pattern: GroupPattern, positions: list[int], rows: Sequence[FlaggedRow]) -> Group:
    ranked = sorted((rows[position] for position in positions), key=lambda row: (-row.score, row.alert_id))
    return Group(pattern, tuple(positions), tuple(ranked[:_EXEMPLARS]))
