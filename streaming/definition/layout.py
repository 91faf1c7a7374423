"""What scores are made of under a spec, and so what rules can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import pyarrow as pa

from schemas.contract import EventContract
from schemas.event_columns import REFERENCE_AMOUNT, Column
from streaming.detection.feature_meanings import meaning
from streaming.detection.features import rule_fields
from streaming.detection.scoring import Scorer

SCORE = "score"
_BESIDE_THE_EVENT: Mapping[str, str] = MappingProxyType(
    {
        "topic": "topic that brought the record",
        "partition": "partition of the topic",
        "offset": "place of the record in its partition",
        "kafka_timestamp": "when the broker took the record, or its sender says that it was sent",
        SCORE: "0 to 1; 0.99 means that one transaction in a hundred scores that high",
    }
)


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


def column_meanings(contract: EventContract, layout: ScoreLayout) -> dict[str, str]:
    """Return what each column of rule_schema means."""
    features = rule_fields(layout.features)
    return {
        **{name: meaning(feature) for name, feature in features.items()},
        **_BESIDE_THE_EVENT,
        **dict.fromkeys(contract.reference_columns, "from a table of references"),
        **(
            {REFERENCE_AMOUNT: f"the amount in {contract.reference_currency}"}
            if contract.reference_currency
            else {}
        ),
        **{each.name: _of_event(each) for each in contract.columns},
    }


def _of_event(column: Column) -> str:
    """Say which role a column has, and which fields of the event it is made of."""
    role = "a further field" if column.role == "extra" else column.role
    return f"{role}, from {' and '.join(column.sources)}" if column.sources else role
