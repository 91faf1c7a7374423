"""What scores are made of under a spec, and so what rules can read."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from schemas.contract import EventContract
from streaming.detection.features import rule_fields
from streaming.detection.scoring import Scorer

SCORE = "score"


@dataclass(frozen=True)
class ScoreLayout:
    """What scores are made of; `definition` is the hash that tells it from any other.

    Attributes:
        columns: of the transactions, read besides entities, amount, currency and event_time.
        features: names, in the order of ScoredBatch.features.
        reasons: `detector.entity` per column of contributions.
    """

    definition: str
    columns: tuple[str, ...]
    features: tuple[str, ...]
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, scorer: Scorer) -> ScoreLayout:
        """Return that of a scorer."""
        return cls(scorer.definition_hash, scorer.columns, scorer.feature_names, scorer.reason_names)


def rule_schema(contract: EventContract, layout: ScoreLayout) -> pa.Schema:
    """Return what rules can read: the contract's columns, then `score` and the features."""
    decoded = contract.arrow_schema()
    known = [SCORE, *rule_fields(layout.features)]
    return pa.schema(
        [*decoded, *(pa.field(name, pa.float64()) for name in known if name not in decoded.names)]
    )
