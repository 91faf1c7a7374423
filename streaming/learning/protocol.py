"""Judges scores by the protocol of the Fraud Detection Handbook, label delay included.

Le Borgne, Siblini, Lebichot and Bontempi, "Reproducible Machine Learning for Credit Card Fraud Detection",
chapters 3 (`get_train_test_set`) and 4 (`card_precision_top_k`). Entities are the book's cards: whatever the
contract calls the payer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.counts import count_of
from schemas.errors import ConfigurationError
from streaming.arrays.compilation import Flags, Floats, Ints

Entities = npt.NDArray[Any]
Places = npt.NDArray[np.intp]

CARDS_PER_DAY = 100


@dataclass(frozen=True, eq=False)
class JudgedRows:
    """Rows with what was said about them and what turned out to be true, in event order.

    Attributes:
        scores: float64[n], finite; higher means more suspicious. Only their order counts here.
        labels: bool[n], True for a fraud.
        days: int64[n], days since 1970-01-01 in UTC.
        entities: the primary entity of each row, [n], text or integers.
        scenarios: int64[n], the kind of fraud (read on frauds only), or None when unknown.

    Raises:
        ConfigurationError: lengths differ, or a score is not a finite number.
    """

    scores: Floats
    labels: Flags
    days: Ints
    entities: Entities
    scenarios: Ints | None = None

    def __post_init__(self) -> None:
        """Refuse rows that no figure can be trusted on."""
        given = {name: column for name, column in vars(self).items() if column is not None}
        _same_length(**given)
        unusable = int(np.count_nonzero(~np.isfinite(self.scores)))
        if unusable:
            raise ConfigurationError(f"{unusable} of {len(self.scores)} scores are not finite numbers")

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.scores)

    def only(self, kept: Flags) -> JudgedRows:
        """Return the rows where `kept`, bool[n], holds."""
        kinds = None if self.scenarios is None else self.scenarios[kept]
        return JudgedRows(self.scores[kept], self.labels[kept], self.days[kept], self.entities[kept], kinds)

    def scored(self, scores: Floats) -> JudgedRows:
        """Return the same rows under other scores, float64[n]."""
        return JudgedRows(scores, self.labels, self.days, self.entities, self.scenarios)


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
    _same_length(labels=labels, days=days, entities=entities)
    memory_start = week_start_day - delay_days - train_days
    in_week = np.asarray((days >= week_start_day) & (days < week_start_day + test_days))
    known = np.asarray(labels & (days >= memory_start) & (days < week_start_day + test_days - delay_days))
    places = np.flatnonzero(in_week | known)
    first_fraud = _first_fraud_days(entities[places], days[places], known[places])
    kept = np.zeros(len(labels), dtype=np.bool_)
    kept[places] = in_week[places] & (first_fraud >= days[places] - delay_days)
    _need_frauds(labels[kept], f"the test week starting {np.datetime64(week_start_day, 'D')}")
    return kept


def card_precision_at_k(rows: JudgedRows, k: int = CARDS_PER_DAY) -> float:
    """Return the share of real frauds among the `k` most suspicious entities of a day, mean over days.

    An entity ranks by its highest score of the day and counts as a hit if any of its rows of that day is a
    fraud; a hit drops out of later days. Between equal scores the row that came first goes first.

    Raises:
        ConfigurationError: there is no row or no fraud, or `k` is not positive.
    """
    _need_frauds(rows.labels, "what is judged")
    _need_positive(k, "k")
    cards = _codes(rows.entities)
    found = np.zeros(int(cards.max()) + 1, dtype=np.bool_)
    hits = [_hits(rows, cards, places, found, k) for places in _days_apart(rows.days)]
    return float(np.mean(hits)) / k


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
    _need_frauds(rows.labels, "what is judged")
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
    _need_positive(alerts_per_day, "alerts_per_day")
    flagged = np.zeros(len(rows), dtype=np.bool_)
    for places in _days_apart(rows.days):
        flagged[places[_descending(rows.scores[places])[:alerts_per_day]]] = True
    return flagged


def roc_auc(labels: Flags, scores: Floats) -> float:
    """Return the area under the ROC curve; ties count half.

    Raises:
        ConfigurationError: there is no row, no fraud, or nothing but frauds.
    """
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 -- a live agent must not pay for scikit-learn

    _need_frauds(labels, "what is judged")
    if labels.all():
        raise ConfigurationError("every row is a fraud: a ROC AUC needs rows that are not")
    return float(roc_auc_score(labels, scores))


def average_precision(labels: Flags, scores: Floats) -> float:
    """Return the precision at each fraud's rank, averaged over frauds; ties share the lowest rank.

    Raises:
        ConfigurationError: there is no row or no fraud.
    """
    from sklearn.metrics import average_precision_score  # noqa: PLC0415 -- as above

    _need_frauds(labels, "what is judged")
    return float(average_precision_score(labels, scores))


def _first_fraud_days(entities: Entities, days: Ints, known: Flags) -> Ints:
    """Return for each row the day of its entity's first fraud among those known, int64[n]."""
    codes = _codes(entities)
    first = np.full(int(codes.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, codes[known], days[known])
    return np.asarray(first[codes], dtype=np.int64)


def _hits(rows: JudgedRows, cards: Places, places: Places, found: Flags, k: int) -> int:
    """Count the frauds among the day's top `k` cards and mark them in `found`, bool[cards]."""
    places = places[~found[cards[places]]]
    ranked = cards[places[_descending(rows.scores[places])]]
    names, rank = np.unique(ranked, return_index=True)
    top = names[np.argsort(rank)[:k]]
    hit = np.intersect1d(top, cards[places[rows.labels[places]]])
    found[hit] = True
    return len(hit)


def _descending(scores: Floats) -> Places:
    return np.argsort(-scores, kind="stable")


def _days_apart(days: Ints) -> list[Places]:
    """Return the places of each day's rows, days and rows in order."""
    order = np.argsort(days, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(days[order])) + 1)


def _codes(entities: Entities) -> Places:
    try:
        return np.unique(entities, return_inverse=True)[1]
    except TypeError as fault:
        raise ConfigurationError(f"entities must be all text or all integers: {fault}") from fault


def _scenario_auc(rows: JudgedRows) -> dict[int, float]:
    if rows.scenarios is None:
        return {}
    scenarios = rows.scenarios
    kinds = np.unique(scenarios[rows.labels]).tolist()
    parts = {kind: ~rows.labels | (scenarios == kind) for kind in kinds}
    return {kind: roc_auc(rows.labels[part], rows.scores[part]) for kind, part in parts.items()}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _need_positive(value: int, name: str) -> None:
    if value < 1:
        raise ConfigurationError(f"expected at least 1, found {value}", key=name)


def _need_frauds(labels: Flags, where: str) -> None:
    if not len(labels):
        raise ConfigurationError("no rows to judge", where=where)
    if not labels.any():
        raise ConfigurationError(f"no fraud among {count_of(len(labels), 'row')}", where=where)


def _same_length(**columns: npt.NDArray[Any]) -> None:
    if len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise ConfigurationError(f"columns differ in length: {lengths}")
