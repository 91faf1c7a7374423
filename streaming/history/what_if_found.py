"""What a what-if has found: both sides of it, what changed between them, and of what."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from streaming.history.candidate_answers import Answering
from streaming.history.missed_frauds import MissedFrauds
from streaming.history.moved_alerts import MovedAlerts
from streaming.history.spans import Span

NO_ALERT = "no alert"
Flips = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Side:
    """The alerts of one side over the span.

    Attributes:
        budget: alerts per day that its spec asks for, None where that states a threshold.
        days_over_budget: days of event time with more alerts than that.
        judged: transactions with alerts and a label.
        frauds: those confirmed as fraud.
        precision: `frauds / judged`, None without labels.
        recall: share of the known frauds that were alerted, None without known frauds.
        cp100: Card Precision@100, see `judged_rows.card_precision_at_k`, None without known frauds. What is
            ranked are the primary entities of the side's alerts, by the highest score of each day of event
            time; an alert without a label counts as no fraud, a day without alerts as one without hits.
        answered: alerts with a model's answer.
        by_reason: alerts per strongest reason, or rule for alerts by rule alone.
    """

    alerts: int
    alerts_per_day: float
    budget: float | None
    days_over_budget: int
    judged: int
    frauds: int
    precision: float | None
    recall: float | None
    cp100: float | None
    answered: int
    by_reason: dict[str, int]


@dataclass(frozen=True)
class Matured:
    """Transactions with alerts whose label had time to come: those with one, and the frauds of them."""

    judged: int
    frauds: int


@dataclass(frozen=True)
class Changes:
    """Alerts that differ: there on one side alone, or on both with another classification or severity."""

    added: int = 0
    removed: int = 0
    reclassified: int = 0
    regraded: int = 0

    @property
    def total(self) -> int:
        """Their sum; an alert that changed in both ways counts twice."""
        return self.added + self.removed + self.reclassified + self.regraded


@dataclass(frozen=True)
class WhatIf:
    """What a candidate spec would have decided, beside what was published.

    Attributes:
        days: length of the span in event time.
        labels_through: labels with a lower `label_sequence` were known and count.
        maturity: what the published spec asks of a transaction's age before its label counts for promotion.
        matured: `published` and `candidate`, on transactions of that age.
        known_frauds: transactions of the span with a fraud label.
        changes: over all alerts.
        flips: `severity`, `classification` and `classification_source`, published → candidate → alerts; an
            alert of one side alone stands under `no alert` of the other.
        entities: primary entities with the most changes.
        reasons: changes per strongest reason or rule, of the candidate's alert where there is one.
        per_day: date → (published, candidate).
        unanswered: alerts of the candidate with the classification by rules.
        answering: where the classifications of the candidate's alerts come from, and what new ones took.
        sandbox: folder of the candidate's alerts table.
        moved: the alerts that differ, and their money.
        missed: the known frauds that the candidate does not alert.
        cold_from: `sequence` at which the candidate's profiles began blank, None when they know everything.
    """

    span: Span
    candidate: str
    transactions: int
    days: float
    known_frauds: int
    labels_through: int
    published: Side
    replayed: Side
    added: int
    removed: int
    kept: int
    changes: Changes
    flips: dict[str, Flips]
    entities: dict[str, Changes]
    reasons: dict[str, Changes]
    per_day: dict[str, tuple[int, int]]
    unanswered: int
    answering: Answering
    maturity: timedelta
    matured: dict[str, Matured]
    moved: MovedAlerts
    missed: MissedFrauds
    sandbox: Path
    cold_from: int | None = None

    def facts(self) -> dict[str, Any]:
        """Return it JSON-serialisable with `default=str`."""
        return asdict(self)
