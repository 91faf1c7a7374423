"""Which field tells refunds from payments, and by which of its values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streaming.drafting.field_facts import FieldFacts, words_in
from streaming.drafting.guess import Guess, named_score

_DIRECTIONS = {
    "direction": 3.0,
    "transaction_type": 2.8,
    "tx_type": 2.8,
    "payment_type": 2.6,
    "event_type": 2.4,
    "operation": 2.2,
    "type": 2.0,
    "kind": 2.0,
    "category": 1.2,
    "status": 1.0,
}
_REFUNDS = frozenset(
    {
        *("refund", "refunds", "refunded", "reversal", "reversed", "chargeback", "return", "returned"),
        *("erstattung", "rueckerstattung", "gutschrift", "storno", "remboursement", "reembolso", "rimborso"),
    }
)
_SAYS_SO = frozenset({"refund", "refunded", "reversal", "reversed", "chargeback"})
_TRUE = frozenset({"true", "yes", "y", "1", "t"})
_MOST_VALUES = 40


def guess_direction(fields: Sequence[FieldFacts]) -> Guess | None:
    """Return the likeliest field that tells refunds, None where no value of any is a word for one."""
    found = [(score, facts, values) for facts in fields for score, values in _readings(facts)]
    if not found:
        return None
    _, facts, values = max(found, key=lambda each: each[0])
    refunds = sum(facts.counts[value] for value in facts.counts if _text(value) in values)
    why = f"{refunds / len(facts.values):.1%} of the records are refunds by it; where it is missing, payments"
    return Guess("direction", {"field": facts.path, "refund": values}, facts.share, why, (facts.path,))


def _readings(facts: FieldFacts) -> list[tuple[float, list[str]]]:
    if (
        not facts.held
        or len(facts.counts) > _MOST_VALUES
        or not facts.kinds <= {"string", "boolean", "integer"}
    ):
        return []
    texts = sorted({_text(value) for value in facts.counts})
    if set(facts.words) & _SAYS_SO and len(texts) == len(("yes", "no")):
        values, score = [each for each in texts if each.lower() in _TRUE], 4.0
    else:
        values, score = (
            [each for each in texts if set(words_in(each)) & _REFUNDS],
            named_score(facts, _DIRECTIONS),
        )
    return [(score + facts.share, values)] if 0 < len(values) < len(texts) and score else []


def _text(value: Any) -> str:
    """Return a value as `direction.refund` names it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
