"""The features of a row as they stood when it was scored: what a supervised model learns from.

They are the numbers the detectors use, so that training and scoring cannot differ, and nothing in them is
known later than the row itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.durations import duration_text
from streaming.arrays.compilation import Floats, Ints
from streaming.detection.detectors import DetectorInput
from streaming.detection.stateful import DetectorResult
from streaming.detection.tails import Counts
from streaming.profiles.directions import entity_of
from streaming.profiles.entity_half import EntityHalf
from streaming.profiles.population import PopulationPass

Features = npt.NDArray[np.float32]
Rows = Ints | slice
ALL_ROWS = slice(None)

_LEAST = 1e-9
_AS_FIELD = str.maketrans(".+-", "___")
_LARGEST = np.finfo(np.float32).max
_HOUR_US, _DAY_US = 3_600_000_000, 86_400_000_000
_PER_ROW = (
    "log_ratio", "amount_nats", "rate_nats", "log_deviation", "age", "gap", "memory", "risk",
)  # fmt: skip
_DETECTOR_OF = {
    "count": "rate",
    "rate_nats": "rate",
    "mean_amount": "amount",
    "log_ratio": "amount",
    "amount_nats": "amount",
    "log_deviation": "amount",
    "log_amount": "amount",
    "age": "novelty",
    "gap": "rate",
    "memory": "recurrence",
    "risk": "risk",
    "frauds": "risk",
    "judged": "risk",
    "counterparties": "counterparties",
    "known": "counterparties",
    "returned": "counterparties",
    "distance": "travel",
    "speed": "travel",
    "habit_nats": "habit",
    "window_count": "rate",
    "window_mean_amount": "amount",
    "delayed_count": "rate",
    "fraud_share": "risk",
    "hour": "habit",
    "weekday": "habit",
}
_WHOLE_OF = {"log_amount": "population", "hour": "week", "weekday": "week"}
_OF_LABELS = ("risk", "frauds", "judged", "delayed_count", "fraud_share")
EVIDENCE = "evidence"
_OF_SURPRISES = ("amount_nats", "rate_nats", "habit_nats", "memory", EVIDENCE)
# Levels that differ from entity to entity, or grow with the stream: their ratios and counts say it better.
_LEVELS = ("mean_amount", "window_mean_amount", "age", "gap")
PAIR = "pair"
CALENDAR = ("hour", "weekday", "log_amount")
# The days since 1970 began on a Thursday, 3 when Monday is 0.
_FIRST_WEEKDAY = 3


@dataclass(frozen=True)
class EntityBatch:
    """One kind of entities in one batch.

    Attributes:
        half, whole: what the profiles have made of it, entity by entity and of the kind as a whole.
        seen: the same as the detectors read it.
        ratios: float64[n], ln(amount / usual).
        amounts: float64[n], nats of the amount.
        others: float64[n, 2], nats of rate and novelty.
        memory: float64[n], see entity_kernels.recall.
        counts: what the amounts add to their tails.
    """

    half: EntityHalf
    whole: PopulationPass
    seen: DetectorInput
    ratios: Floats
    amounts: Floats
    others: Floats
    memory: Floats
    counts: Counts

    @property
    def steps(self) -> tuple[EntityHalf, PopulationPass]:
        """Both steps that the profiles have made."""
        return self.half, self.whole

    @property
    def labels(self) -> Floats:
        """float64[n, 1 + 2 memories], see entity_kernels.judge."""
        return self.half.judged


def kind_feature_names(entity: str, horizons: Sequence[float], memories: Sequence[float]) -> tuple[str, ...]:
    """Return the names of what is known of one kind of entities, in the order of kind_features.

    Args:
        horizons: of the profile, in seconds.
        memories: of the labels, in seconds.
    """
    return (
        *(f"{name}.{entity}.{_span(span)}" for name in ("count", "mean_amount") for span in horizons),
        *(f"{name}.{entity}" for name in _PER_ROW),
        *(f"{name}.{entity}.{_span(span)}" for name in ("frauds", "judged") for span in memories),
    )


def encounter_feature_names(entities: Sequence[str], horizons: Sequence[float]) -> tuple[str, ...]:
    """Return the names of what is known of two accounts, in the order of their features."""
    fans = (f"counterparties.{entity}.{_span(span)}" for entity in entities for span in horizons)
    return (*fans, f"known.{PAIR}", f"returned.{PAIR}")


def window_feature_names(entity: str, horizons: Sequence[float], *, delayed: bool) -> tuple[str, ...]:
    """Return the names of what exact windows hold, in the order of their features; horizons in seconds."""
    whats = ("window_count", "window_mean_amount", *(("delayed_count", "fraud_share") if delayed else ()))
    return tuple(f"{what}.{entity}.{_span(span)}" for what in whats for span in horizons)


def _span(seconds: float) -> str:
    return duration_text(seconds).replace(" ", "_")


def kind_features(view: EntityBatch, rows: Rows = ALL_ROWS) -> list[Floats]:
    """Return one column, float64[m], per name of kind_feature_names; of all rows or of some."""
    features = view.half.features
    seen = features.counts[rows]
    means = np.where(seen > _LEAST, features.amounts[rows] / np.maximum(seen, _LEAST), np.nan)
    return [
        *seen.T,
        *means.T,
        view.ratios[rows],
        view.amounts[rows],
        view.others[rows, 0],
        _log_deviations(view, rows),
        features.exposures[rows],
        features.gaps[rows],
        view.memory[rows],
        *view.labels[rows].T,
    ]


def _log_deviations(view: EntityBatch, rows: Rows) -> Floats:
    """Standardised distance of the log-amount from the entity's own mean; NaN below two transactions."""
    features = view.half.features
    counts = features.counts[rows, -1]
    history = np.maximum(counts, _LEAST)
    mean = features.sums[rows] / history
    spread = np.sqrt(np.maximum(features.squares[rows] / history - mean**2, _LEAST))
    return np.where(counts > 1.0, (view.seen.log_amounts[rows] - mean) / spread, np.nan)


def calendar_features(times: Ints, log_amounts: Floats) -> list[Floats]:
    """Return hour of the day, weekday (0 is Monday) in UTC and the log-amount, float64[n] each."""
    hours = (times % _DAY_US) / _HOUR_US
    weekdays = (times // _DAY_US + _FIRST_WEEKDAY) % 7
    return [hours, weekdays.astype(np.float64), log_amounts]


def features_of(
    views: Sequence[EntityBatch],
    evidence: Floats,
    results: Sequence[DetectorResult] = (),
    rows: Rows = ALL_ROWS,
) -> Features:
    """Return all features of a batch's rows, float32[m, features]; NaN stays where nothing is known.

    What is too large for 32 bits is the largest number that is not: models take no infinite ones.

    Args:
        views: at least one.
        evidence: nats, float64[n, reasons]; their sum is the last feature.
        results: of the detectors with a memory of their own.
        rows: which of the batch's; all unless given.
    """
    first = views[0]
    columns = feature_columns(first.half.rows.times, first.seen.log_amounts, views, results, rows)
    with np.errstate(over="ignore"):
        features = np.column_stack([*columns, evidence[rows].sum(axis=1)]).astype(np.float32)
    return np.clip(features, -_LARGEST, _LARGEST, out=features)


def feature_columns(
    times: Ints,
    log_amounts: Floats,
    views: Sequence[EntityBatch],
    results: Sequence[DetectorResult],
    rows: Rows = ALL_ROWS,
) -> list[Floats]:
    """Return one column, float64[m], per feature but the evidence; see features_of."""
    columns = calendar_features(times[rows], log_amounts[rows])
    for view in views:
        columns += kind_features(view, rows)
    for result in results:
        columns += [column[rows] for column in result.features()]
    return columns


def describes_behaviour(feature: str, entities: Sequence[str] = ()) -> bool:
    """Return whether a feature shows behaviour: it is no mere level, and rests on no label and no surprise.

    Args:
        entities: unless empty, features of other kinds of entities do not count.
    """
    what, _, rest = feature.partition(".")
    meant = not entities or not rest or entity_of(rest.partition(".")[0]) in entities
    return meant and what not in (*_OF_LABELS, *_OF_SURPRISES, *_LEVELS)


def rule_fields(feature_names: Sequence[str]) -> dict[str, str]:
    """Return the name by which rules call each feature → the feature.

    They are such as `count_customer_1_hour`, of refunds `count_customer_refunds_1_hour`.
    """
    return {name.translate(_AS_FIELD): name for name in feature_names}


def reason_of(feature: str) -> str:
    """Return the reason, `detector.entity`, that a feature speaks for."""
    what, _, rest = feature.partition(".")
    return f"{_DETECTOR_OF[what]}.{rest.partition('.')[0] or _WHOLE_OF[what]}"
