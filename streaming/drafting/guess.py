"""A guess about one key of a contract: what it says, why, and how much of the sample it fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streaming.drafting.field_facts import FieldFacts


@dataclass(frozen=True)
class Guess:
    """What a draft says of one key.

    Attributes:
        key: dotted name in the contract.
        value: what stands there.
        share: of the sample's records that fit it; None where nothing was found and the value stands in.
        why: the reason, for people; it quotes names of fields and never a value.
        fields: what it reads, so that no other guess reads it.
    """

    key: str
    value: Mapping[str, Any]
    share: float | None
    why: str
    fields: tuple[str, ...] = ()


def named_score(facts: FieldFacts, scores: Mapping[str, float]) -> float:
    """Return the best score of a name that a field has, or that is among its words; 0 for none."""
    whole = max((score for name, score in scores.items() if facts.name == name.replace("_", "")), default=0.0)
    words = set(facts.words)
    part = max((score * 0.6 for name, score in scores.items() if set(name.split("_")) <= words), default=0.0)
    return max(whole, part)
