"""Groups flagged rows by pattern, and tells a model about a group only what the policy allows.

One request answers for a whole group, so a burst of a thousand like alerts costs one call. What is sent
holds neither batch ids nor wall-clock: the same rows make the same request on a retry, and the ledger knows
it again.
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agent.labels import Label, clip, highest
from schemas.alert import Reason
from schemas.policy import Policy
from schemas.spec import Severity

_PATTERN_REASONS = 1
_SHOWN_REASONS = 2
_EXEMPLARS = 3
_TEXT_CHARACTERS = 80
_WORD_CHARACTERS = 40
_BAND_EDGES = tuple(float(10**power) for power in range(12))
_MOST_WEIGHT = 6.0


@dataclass(frozen=True, slots=True)
class FlaggedRow:
    """A transaction that becomes an alert.

    Attributes:
        entities: entity name to id.
        score: calibrated, 0-1.
        reasons: named `detector.entity`.
        rules: names of the rules hit.
        label: what the alert says unless a model answers; its `minimum_severity` binds the model too.
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
    label: Label
    untrusted: Mapping[str, str] = field(default_factory=dict)

    @property
    def minimum_severity(self) -> Severity:
        """The severity no model may go below."""
        return self.label.minimum_severity


@dataclass(frozen=True, slots=True)
class Pattern:
    """What the rows of a group have in common; `amount_band` counts powers of ten."""

    reasons: tuple[str, ...]
    rules: tuple[str, ...]
    currency: str
    amount_band: int


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one pattern: `members` are positions in the batch, `exemplars` its highest scores first."""

    pattern: Pattern
    members: tuple[int, ...]
    exemplars: tuple[FlaggedRow, ...]
    weight: float


def pattern_of(row: FlaggedRow) -> Pattern:
    """Return the pattern `row` belongs to."""
    return Pattern(
        reasons=tuple(reason.name for reason in _top_reasons(row)[:_PATTERN_REASONS]),
        rules=tuple(sorted(row.rules)),
        currency=row.currency,
        amount_band=bisect_right(_BAND_EDGES, row.amount),
    )


def _top_reasons(row: FlaggedRow) -> list[Reason]:
    raising = [reason for reason in row.reasons if reason.contribution > 0]
    return sorted(raising, key=lambda reason: (-reason.contribution, reason.name))[:_SHOWN_REASONS]


def group_rows(rows: Sequence[FlaggedRow]) -> list[Group]:
    """Group `rows` by pattern, the weightiest group first.

    A group weighs the sum of -log10(1 - score) of its rows, each at most 6: many rows count, and rare ones.
    """
    members: dict[Pattern, list[int]] = {}
    for position, row in enumerate(rows):
        members.setdefault(pattern_of(row), []).append(position)
    groups = [_group(pattern, positions, rows) for pattern, positions in members.items()]
    return sorted(groups, key=lambda group: (-group.weight, group.members))


def _group(pattern: Pattern, positions: list[int], rows: Sequence[FlaggedRow]) -> Group:
    ranked = sorted((rows[position] for position in positions), key=lambda row: (-row.score, row.alert_id))
    weight = math.fsum(_weight(row.score) for row in ranked)
    return Group(pattern, tuple(positions), tuple(ranked[:_EXEMPLARS]), weight)


def _weight(score: float) -> float:
    return min(-math.log10(max(1.0 - score, 1e-9)), _MOST_WEIGHT)


def facts_of(group: Group, policy: Policy) -> dict[str, Any]:
    """Return what a model is told about `group`: fields the policy allows, texts cleaned and shortened.

    Reasons and explanations are those of the highest score; the label is the one the rules would give it.
    """
    first = group.exemplars[0]
    shared = {
        "reasons": {_word(reason.name): round(reason.contribution, 1) for reason in _top_reasons(first)},
        "explanations": [cleaned(reason.text) for reason in _top_reasons(first)],
        "rules": [_word(name) for name in group.pattern.rules],
        "currency": _word(group.pattern.currency),
    }
    return {
        "alerts": len(group.members),
        "label": first.label.classification,
        "severity": highest(row.label.severity for row in group.exemplars),
        **{name: value for name, value in shared.items() if value and policy.allows(name)},
        "examples": [_example(row, policy) for row in group.exemplars],
    }


def _example(row: FlaggedRow, policy: Policy) -> dict[str, Any]:
    values = {
        "amount": float(f"{row.amount:.5g}"),
        "score": round(row.score, 5),
        "event_time": row.event_time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "entities": _permitted("entities", row.entities, _WORD_CHARACTERS, policy),
        "texts": _permitted("texts", row.untrusted, _TEXT_CHARACTERS, policy),
    }
    return {name: value for name, value in values.items() if policy.allows(name) or isinstance(value, dict)}


def _permitted(
    kind: str, values: Mapping[str, str], characters: int, policy: Policy
) -> dict[str, str] | None:
    allowed = {
        name: cleaned(value, characters) for name, value in values.items() if policy.allows(f"{kind}.{name}")
    }
    return allowed or None


def _word(text: str) -> str:
    return cleaned(text, _WORD_CHARACTERS)


def cleaned(text: str, characters: int = _TEXT_CHARACTERS) -> str:
    """Return `text` on one line, without control, format or surrogate characters, and shortened."""
    visible = (" " if each.isspace() else each for each in text[: 8 * characters])
    kept = "".join(each for each in visible if not unicodedata.category(each).startswith("C"))
    return clip(" ".join(kept.split()), characters)


def canonical_json(facts: Mapping[str, Any]) -> str:
    """Write facts as JSON that no text in them can leave: angle brackets escaped, so no delimiter fits."""
    text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


def content_key(prompt_id: str, prompt_version: int, model: str, canonical_input: str) -> str:
    """Return the SHA-256, hex, under which a request's answer is kept."""
    content = "\n".join((prompt_id, str(prompt_version), json.dumps(model), canonical_input))
    return hashlib.sha256(content.encode()).hexdigest()
