"""Rows with their labels, in event order, and how many frauds the most suspicious cards of a day hold.

Card Precision@k is of the Fraud Detection Handbook: Le Borgne, Siblini, Lebichot and Bontempi, "Reproducible
Machine Learning for Credit Card Fraud Detection", chapter 4 (`card_precision_top_k`). Entities are the book's
cards: whatever the contract calls the payer.
"""

from __future__ import annotations

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
        check_lengths(**given)
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


def card_precision_at_k(rows: JudgedRows, k: int = CARDS_PER_DAY) -> float:
    """Return the share of real frauds among the `k` most suspicious entities of a day, mean over days.

    An entity ranks by its highest score of the day and counts as a hit if any of its rows of that day is a
    fraud; a hit drops out of later days. Between equal scores the row that came first goes first.

    Raises:
        ConfigurationError: there is no row or no fraud, or `k` is not positive.
    """
    check_frauds(rows.labels, "what is judged")
    check_positive(k, "k")
    cards = codes_of(rows.entities)
    found = np.zeros(int(cards.max()) + 1, dtype=np.bool_)
    hits = [_hits(rows, cards, places, found, k) for places in days_apart(rows.days)]
    return float(np.mean(hits)) / k


def _hits(rows: JudgedRows, cards: Places, places: Places, found: Flags, k: int) -> int:
    """Count the frauds among the day's top `k` cards and mark them in `found`, bool[cards]."""
    places = places[~found[cards[places]]]
    ranked = cards[places[descending(rows.scores[places])]]
    names, rank = np.unique(ranked, return_index=True)
    top = names[np.argsort(rank)[:k]]
    hit = np.intersect1d(top, cards[places[rows.labels[places]]])
    found[hit] = True
    return len(hit)


def descending(scores: Floats) -> Places:
    """Return the places of scores, the highest first; of equal ones the earlier first."""
    return np.argsort(-scores, kind="stable")


def days_apart(days: Ints) -> list[Places]:
    """Return the places of each day's rows, days and rows in order."""
    order = np.argsort(days, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(days[order])) + 1)


def codes_of(entities: Entities) -> Places:
    """Return a number from 0 on for each row, [n], equal for equal entities.

    Raises:
        ConfigurationError: some are text and some are integers.
    """
    try:
        return np.unique(entities, return_inverse=True)[1]
    except TypeError as fault:
        raise ConfigurationError(f"entities must be all text or all integers: {fault}") from fault


def check_positive(value: int, name: str) -> None:
    """Check that a count is at least 1.

    Raises:
        ConfigurationError: it is not.
    """
    if value < 1:
        raise ConfigurationError(f"expected at least 1, found {value}", key=name)


def check_frauds(labels: Flags, where: str) -> None:
    """Check that there are rows, and frauds among them.

    Raises:
        ConfigurationError: there are none.
    """
    if not len(labels):
        raise ConfigurationError("no rows to judge", where=where)
    if not labels.any():
        raise ConfigurationError(f"no fraud among {count_of(len(labels), 'row')}", where=where)


def check_lengths(**columns: npt.NDArray[Any]) -> None:
    """Check that columns have the same length.

    Raises:
        ConfigurationError: they differ.
    """
    if len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise ConfigurationError(f"columns differ in length: {lengths}")
