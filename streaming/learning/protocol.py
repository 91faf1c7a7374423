"""Judges scores by the protocol of the Fraud Detection Handbook, label delay included.

Le Borgne, Siblini, Lebichot and Bontempi, "Reproducible Machine Learning for Credit Card Fraud Detection",
chapter 3 (`get_train_test_set`); of chapter 4 see streaming.labels.judged_rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.errors import ConfigurationError
from streaming.arrays.compilation import Flags, Floats, Ints
from streaming.labels.judged_rows import (
    Entities,
    JudgedRows,
    card_precision_at_k,
    check_frauds,
    check_lengths,
    check_positive,
    codes_of,
    days_apart,
    descending,
)


@dataclass(frozen=True)
class Figures:
    """How well scores rank the rows of one test week, or of several on average.

    Attributes:
        auc: area under the ROC curve.
        ap: average precision.
        cp100: Card Precision@100.
        scenario_auc: ROC AUC of each kind of fraud against all rows that are not fraud.
        frauds: frauds among the rows, in total.
        rows: rows judged, in total.
    """

    auc: float
    ap: float
    cp100: float
    scenario_auc: dict[int, float]
    frauds: int
    rows: int


@dataclass(frozen=True)
class BudgetFigures:
    """What the highest-scoring rows of each day are worth.

    Attributes:
        alerts_per_day: rows flagged a day, on average; below the budget only where a day has fewer rows.
        precision: share of flagged rows that are frauds.
        recall: share of frauds that are flagged.
    """

    alerts_per_day: float
    precision: float
    recall: float


def test_rows(
    labels: Flags,
    days: Ints,
    entities: Entities,
    week_start_day: int,
    delay_days: int = 7,
    train_days: int = 7,
    test_days: int = 7,
) -> Flags:
    """Choose the rows of a test week that the handbook judges.

    Training takes the `train_days` that end `delay_days` before the week. A row is dropped where its entity
    already has a known fraud: one of the training days or, since a label takes `delay_days`, any later one up
    to the row's day - `delay_days` - 1. Older frauds are forgotten, as in the book.

    Args:
        labels: bool[n], True for a fraud.
        days: int64[n], days since 1970-01-01 in UTC.
        entities: the primary entity of each row, [n].
        week_start_day: first day of the week, in the same days.
        delay_days: days from a transaction to its label.
        train_days: days trained on.
        test_days: days judged.

    Returns:
        bool[n], True for rows to judge.

    Raises:
        ConfigurationError: lengths differ, or the week holds no row or no fraud.
    """
    check_lengths(labels=labels, days=days, entities=entities)
    memory_start = week_start_day - delay_days - train_days
    in_week = np.asarray((days >= week_start_day) & (days < week_start_day + test_days))
    known = np.asarray(labels & (days >= memory_start) & (days < week_start_day + test_days - delay_days))
    places = np.flatnonzero(in_week | known)
    first_fraud = _first_fraud_days(entities[places], days[places], known[places])
    kept = np.zeros(len(labels), dtype=np.bool_)
    kept[places] = in_week[places] & (first_fraud >= days[places] - delay_days)
    check_frauds(labels[kept], f"the test week starting {np.datetime64(week_start_day, 'D')}")
    return kept


def figures(rows: JudgedRows) -> Figures:
    """Judge one test week.

    Raises:
        ConfigurationError: there is no row, no fraud, or nothing but frauds.
    """
    return Figures(
        auc=roc_auc(rows.labels, rows.scores),
        ap=average_precision(rows.labels, rows.scores),
        cp100=card_precision_at_k(rows),
        scenario_auc=_scenario_auc(rows),
        frauds=int(np.count_nonzero(rows.labels)),
        rows=len(rows),
    )


def mean_figures(weeks: Sequence[Figures]) -> Figures:
    """Average test weeks, each with the same weight; `frauds` and `rows` are added up.

    A scenario's AUC is averaged over the weeks that hold such frauds.

    Raises:
        ConfigurationError: there is nothing to average.
    """
    if not weeks:
        raise ConfigurationError("no test week to average over")
    kinds = sorted({kind for week in weeks for kind in week.scenario_auc})
    return Figures(
        auc=_mean([week.auc for week in weeks]),
        ap=_mean([week.ap for week in weeks]),
        cp100=_mean([week.cp100 for week in weeks]),
        scenario_auc={
            kind: _mean([week.scenario_auc[kind] for week in weeks if kind in week.scenario_auc])
            for kind in kinds
        },
        frauds=sum(week.frauds for week in weeks),
        rows=sum(week.rows for week in weeks),
    )


def precision_recall_at_budget(rows: JudgedRows, alerts_per_day: int) -> BudgetFigures:
    """Judge the `alerts_per_day` highest-scoring rows of each day.

    Raises:
        ConfigurationError: there is no row or no fraud, or the budget is not positive.
    """
    check_frauds(rows.labels, "what is judged")
    flagged = flag_at_budget(rows, alerts_per_day)
    hits = np.count_nonzero(flagged & rows.labels)
    return BudgetFigures(
        alerts_per_day=float(np.count_nonzero(flagged) / len(np.unique(rows.days))),
        precision=float(hits / np.count_nonzero(flagged)),
        recall=float(hits / np.count_nonzero(rows.labels)),
    )


def flag_at_budget(rows: JudgedRows, alerts_per_day: int) -> Flags:
    """Flag the `alerts_per_day` highest-scoring rows of each day, bool[n]; ties go to the earlier row.

    Raises:
        ConfigurationError: the budget is not positive.
    """
    check_positive(alerts_per_day, "alerts_per_day")
    flagged = np.zeros(len(rows), dtype=np.bool_)
    for places in days_apart(rows.days):
        flagged[places[descending(rows.scores[places])[:alerts_per_day]]] = True
    return flagged


def roc_auc(labels: Flags, scores: Floats) -> float:
    """Return the area under the ROC curve; ties count half.

    Raises:
        ConfigurationError: there is no row, no fraud, or nothing but frauds.
    """
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 -- a live agent must not pay for scikit-learn

    check_frauds(labels, "what is judged")
    if labels.all():
        raise ConfigurationError("every row is a fraud: a ROC AUC needs rows that are not")
    return float(roc_auc_score(labels, scores))


def average_precision(labels: Flags, scores: Floats) -> float:
    """Return the precision at each fraud's rank, averaged over frauds; ties share the lowest rank.

    Raises:
        ConfigurationError: there is no row or no fraud.
    """
    from sklearn.metrics import average_precision_score  # noqa: PLC0415 -- as above

    check_frauds(labels, "what is judged")
    return float(average_precision_score(labels, scores))


def _first_fraud_days(entities: Entities, days: Ints, known: Flags) -> Ints:
    """Return for each row the day of its entity's first fraud among those known, int64[n]."""
    codes = codes_of(entities)
    first = np.full(int(codes.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, codes[known], days[known])
    return np.asarray(first[codes], dtype=np.int64)


def _scenario_auc(rows: JudgedRows) -> dict[int, float]:
    if rows.scenarios is None:
        return {}
    scenarios = rows.scenarios
    kinds = np.unique(scenarios[rows.labels]).tolist()
    parts = {kind: ~rows.labels | (scenarios == kind) for kind in kinds}
    return {kind: roc_auc(rows.labels[part], rows.scores[part]) for kind, part in parts.items()}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
