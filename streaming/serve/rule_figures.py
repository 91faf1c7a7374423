"""What rules and the score have raised over a span of days, and what labels say of it: counted at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from pydantic import BaseModel, Field

from schemas.event_columns import REFUND
from schemas.rules import Rule
from streaming.arrays.compilation import Floats, Ints
from streaming.inbox.columns import WordColumn
from streaming.inbox.view import InboxView

LEAST_JUDGED = 10
DAY_US = 86_400_000_000
_EPOCH = date(1970, 1, 1)
_Z = 1.96  # 95 of a hundred such intervals hold the true share
_SHARES = (0.9, 0.75, 0.5, 0.25, 0.1)
_LABELS: Sequence[str] = ("fraud", "genuine")


class LabelledShare(BaseModel):
    """How many of some alerts were right, by the labels that have come."""

    judged: int = Field(description="alerts with a label")
    frauds: int = Field(description="those labelled as fraud")
    precision: float | None = Field(description="their share; null where fewer than 10 have a label")
    low: float | None = Field(description="lower end of its 95 % interval (Wilson); null like it")
    high: float | None = Field(description="upper end")


class RuleFigures(BaseModel):
    """What one rule, or the score, has raised."""

    name: str | None = Field(description="null for the score: alerts that no rule has hit")
    in_force: bool = Field(description="the version in force has this rule")
    severity: str | None
    condition: str | None = Field(description="as the spec has it")
    per_day: list[int] = Field(description="alerts of each day of the span")
    alerts: int
    alone: int = Field(description="alerts that no other rule has hit")
    labels: LabelledShare
    amounts: dict[str, float] = Field(description="currency → amounts of the alerts about payments")
    fraud_amounts: dict[str, float] = Field(description="currency → of those labelled as fraud")
    refunds: dict[str, float] = Field(description="currency → amounts of the alerts about refunds")
    fraud_refunds: dict[str, float] = Field(description="currency → of those labelled as fraud")


class ThresholdStep(BaseModel):
    """What a higher threshold would leave of the alerts that the score alone has raised."""

    threshold: float
    alerts_per_day: float = Field(description="over the days that have payments, as in a what-if")
    alerts: int
    labels: LabelledShare
    frauds_lost: int = Field(description="labelled frauds that it would raise no alert to any more")
    genuine_saved: int = Field(description="alerts labelled as genuine that would not be raised")


@dataclass(frozen=True)
class DaySpan:
    """Days of event time, both ends included."""

    since: date
    until: date

    @property
    def days(self) -> list[date]:
        """Each of them."""
        return [self.since + timedelta(days=each) for each in range((self.until - self.since).days + 1)]

    @property
    def micros(self) -> tuple[int, int]:
        """First microsecond since 1970 UTC, and the one after the last."""
        return (self.since - _EPOCH).days * DAY_US, ((self.until - _EPOCH).days + 1) * DAY_US


class RuleTally:
    """The alerts of a span, counted by rules, day, currency, label and direction in one pass.

    Args:
        view: the alerts.
        span: over event time.
    """

    def __init__(self, view: InboxView, span: DaySpan) -> None:
        self._view, self._span = view, span
        times, (begin, end) = view.numbers["time"], span.micros
        self.rows: Ints = np.flatnonzero((times >= begin) & (times < end))
        self._rules, self._currencies = view.words["rule"], view.words["currency"]
        self._codes = self._rules.codes[self.rows].astype(np.int64)
        days = (times[self.rows] - begin) // DAY_US
        self._per_day = _counted(self._codes, days, len(self._rules.words), len(span.days))
        labels = _label_codes(view.words["label"])[self.rows]
        refunds = view.words["direction"].chosen(lambda word: word == REFUND)[self.rows]
        kinds = (self._currencies.codes[self.rows].astype(np.int64) * 3 + labels) * 2 + refunds
        shape = len(self._rules.words), len(self._currencies.words) * 6
        amounts = view.numbers["amount"][self.rows]
        self._counts = _counted(self._codes, kinds, *shape).reshape(shape[0], -1, 3, 2).sum(axis=3)
        self._amounts = _counted(self._codes, kinds, *shape, amounts).reshape(shape[0], -1, 3, 2)

    def named(self) -> list[str]:
        """Return the rules that have hit any alert of the span, by name."""
        hit = np.flatnonzero(self._per_day.sum(axis=1))
        return sorted({rule for code in hit.tolist() for rule in _split(self._rules.words[code])})

    def of_rule(self, name: str, rule: Rule | None) -> RuleFigures:
        """Return the figures of a rule; `rule` is what the version in force calls so."""
        codes = [at for at, words in enumerate(self._rules.words) if name in _split(words)]
        alone = [at for at in codes if self._rules.words[at] == name]
        return self._figures(codes, alone, name, rule)

    def of_score(self) -> RuleFigures:
        """Return the figures of alerts that no rule has hit."""
        codes = [at for at, words in enumerate(self._rules.words) if not words]
        return self._figures(codes, codes, None, None)

    def steps(self, days: int) -> list[ThresholdStep]:
        """Return what higher thresholds would leave of the alerts by the score alone, the lowest first.

        Args:
            days: by which alerts a day are counted: those with payments, one at least.
        """
        none = [at for at, words in enumerate(self._rules.words) if not words]
        rows = self.rows[np.isin(self._codes, none)]
        scores = self._view.numbers["score"][rows]
        labels = _label_codes(self._view.words["label"])[rows]
        order = np.argsort(-scores, kind="stable")
        return _steps(scores[order], labels[order], max(days, 1))

    def _figures(
        self, codes: Sequence[int], alone: Sequence[int], name: str | None, rule: Rule | None
    ) -> RuleFigures:
        counts, amounts = self._counts[codes].sum(axis=0), self._amounts[codes].sum(axis=0)
        frauds, genuine = (int(each) for each in counts.sum(axis=0)[:2])
        return RuleFigures(
            name=name,
            in_force=name is None or rule is not None,
            severity=None if rule is None else rule.severity,
            condition=None if rule is None else _condition_of(rule),
            per_day=self._per_day[codes].sum(axis=0).astype(int).tolist(),
            alerts=int(counts.sum()),
            alone=int(self._counts[alone].sum()),
            labels=labelled_share(frauds + genuine, frauds),
            amounts=self._by_currency(amounts[:, :, 0].sum(axis=1)),
            fraud_amounts=self._by_currency(amounts[:, 0, 0]),
            refunds=self._by_currency(amounts[:, :, 1].sum(axis=1)),
            fraud_refunds=self._by_currency(amounts[:, 0, 1]),
        )

    def _by_currency(self, sums: Floats) -> dict[str, float]:
        named = zip(self._currencies.words, sums.tolist(), strict=True)
        return {word: round(each, 2) for word, each in named if word is not None and each}


def labelled_share(judged: int, frauds: int) -> LabelledShare:
    """Return a share with its interval; none of so few that it would say nothing."""
    if judged < LEAST_JUDGED:
        return LabelledShare(judged=judged, frauds=frauds, precision=None, low=None, high=None)
    share, bent = frauds / judged, _Z**2 / judged
    middle = (share + bent / 2) / (1 + bent)
    half = _Z * math.sqrt(share * (1 - share) / judged + bent / (4 * judged)) / (1 + bent)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return LabelledShare(
        judged=judged, frauds=frauds, precision=round(share, 4), low=round(low, 4), high=round(high, 4)
    )


def _condition_of(rule: Rule) -> str:
    """Return what a rule looks for, in a line."""
    pattern = rule.pattern
    said = "; ".join(f"{name.rpartition('.')[2]} {text}" for name, text in rule.conditions.items())
    return said if pattern is None else f"{said}; by {pattern.entity}"


def _counted(
    codes: Ints, kinds: Ints, most_codes: int, most_kinds: int, weights: Floats | None = None
) -> Floats:
    found = np.bincount(codes * most_kinds + kinds, weights, most_codes * most_kinds)
    return found.reshape(most_codes, most_kinds).astype(np.float64)


def _label_codes(column: WordColumn) -> Ints:
    """Return 0 for fraud, 1 for genuine and 2 for no label, int64[n]."""
    of_word = [_LABELS.index(word) if word in _LABELS else len(_LABELS) for word in column.words]
    return np.array(of_word, np.int64)[column.codes]


def _split(words: str | None) -> list[str]:
    return (words or "").split()


def _steps(scores: Floats, labels: Ints, days: int) -> list[ThresholdStep]:
    """`scores` descend; the step that loses no labelled fraud is always among them."""
    frauds, genuine = np.cumsum(labels == 0), np.cumsum(labels == 1)
    steps = []
    for kept in _kept(len(scores), np.flatnonzero(labels == 0)):
        threshold = float(scores[kept - 1])
        through = int(np.searchsorted(-scores, -threshold, "right"))
        caught, wrong = int(frauds[through - 1]), int(genuine[through - 1])
        step = ThresholdStep(
            threshold=threshold,
            alerts_per_day=round(through / days, 2),
            alerts=through,
            labels=labelled_share(caught + wrong, caught),
            frauds_lost=int(frauds[-1]) - caught,
            genuine_saved=int(genuine[-1]) - wrong,
        )
        steps.append(step)
    return list({each.alerts: each for each in steps if each.alerts < len(scores)}.values())


def _kept(rows: int, frauds: Ints) -> Iterable[int]:
    shares: Mapping[int, None] = dict.fromkeys(max(1, round(rows * share)) for share in _SHARES if rows)
    lowest = [int(frauds[-1]) + 1] if len(frauds) else []
    return sorted({*shares, *lowest}, reverse=True)


def span_of(last: date, days: int) -> DaySpan:
    """Return so many days, of which one is the last."""
    return DaySpan(last - timedelta(days=days - 1), last)
