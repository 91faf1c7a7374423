"""`flagstream evaluate`: streams labelled files through the live scorer and judges what it says.

Modes: `unlabelled` never shows it a label; `delayed` tells each label after the label delay; `trained` also
fits the supervised model for each test week on what was known when the week began.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from schemas.contract import EventContract
from schemas.instants import MICRO
from schemas.spec import AgentSpec
from streaming.arrays.compilation import Flags, Floats
from streaming.detection.features import Features
from streaming.detection.model import train
from streaming.detection.scoring import Scorer
from streaming.labels.judged_rows import CARDS_PER_DAY, JudgedRows
from streaming.learning import protocol
from streaming.learning.evaluation_plots import observed_shares
from streaming.learning.labelled_files import Labelled
from streaming.learning.labelled_run import NEVER, History, run_history
from streaming.learning.protocol import BudgetFigures, Figures

Mode = Literal["unlabelled", "delayed", "trained"]
MODES: tuple[Mode, ...] = ("unlabelled", "delayed", "trained")

_DAY_US = 86_400_000_000
_WEEK_DAYS = 7
_TAILS = (0.1, 0.05, 0.01, 0.005)


@dataclass(frozen=True)
class WeekResult:
    """A test week and how its rows were ranked.

    Attributes:
        tail_ratios: stated tail frequency → observed share of the rows over it; 1 is exact. Empty where
            scores state none, as those of a model trained for the week.
    """

    start: date
    figures: Figures
    budget: BudgetFigures
    tail_ratios: Mapping[str, float]

    def summary(self) -> dict[str, Any]:
        """Return the week's figures, JSON-serialisable."""
        ratios = {"tail_ratios": dict(self.tail_ratios)} if self.tail_ratios else {}
        return {"start": str(self.start), **_plain(self.figures), **asdict(self.budget), **ratios}


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found; `judged` holds all test rows with their scores."""

    mode: Mode
    weeks: tuple[WeekResult, ...]
    judged: JudgedRows

    def summary(self) -> dict[str, Any]:
        """Return the means over the weeks, then each week, JSON-serialisable."""
        means = protocol.mean_figures([week.figures for week in self.weeks])
        return {
            "mode": self.mode,
            **_plain(means),
            "alerts_per_day": _mean([week.budget.alerts_per_day for week in self.weeks]),
            "precision": _mean([week.budget.precision for week in self.weeks]),
            "recall": _mean([week.budget.recall for week in self.weeks]),
            "weeks": [week.summary() for week in self.weeks],
        }


def evaluate(
    labelled: Labelled,
    spec: AgentSpec,
    contract: EventContract,
    mode: Mode,
    *,
    label_delay: timedelta,
    test_starts: Sequence[date],
    alerts_per_day: int = CARDS_PER_DAY,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Stream the rows in event order and judge the test weeks by the handbook's protocol.

    Rows without a label are streamed like all others, and are left out of every figure.

    Args:
        labelled: what read_labelled returned.
        spec: profiles, detectors and horizons.
        contract: names the entities; its primary one is the handbook's card.
        mode: see the module.
        label_delay: from a transaction to its label.
        test_starts: first days of the test weeks.
        alerts_per_day: the budget that precision and recall are ratios for.
        on_progress: called with the rows done so far.

    Raises:
        ConfigurationError: a week holds no row or no fraud, or nothing to train on comes before it.
    """
    history = _history(labelled, None if mode == "unlabelled" else label_delay)
    scorer = Scorer.under(spec.anew(), contract)
    keep = np.full(len(labelled.frauds), mode == "trained")
    run = run_history(scorer, history, keep=keep, on_progress=on_progress)
    rows = _judged(labelled, contract, run.scores)
    chosen = [_chosen(rows, start, label_delay) & labelled.known for start in test_starts]
    scores = run.scores
    if mode == "trained":
        horizon = spec.profiles.horizons[-1] // MICRO
        trainer = _Trainer(history, run.features, scorer.feature_names, horizon)
        scores = scores.copy()
        for start, kept in zip(test_starts, chosen, strict=True):
            scores[kept] = trainer.scores(start, kept)
    judged = [rows.scored(scores).only(kept) for kept in chosen]
    weeks = [
        WeekResult(
            start,
            protocol.figures(each),
            protocol.precision_recall_at_budget(each, alerts_per_day),
            {} if mode == "trained" else _tail_ratios(rows, start),
        )
        for start, each in zip(test_starts, judged, strict=True)
    ]
    return Evaluation(mode, tuple(weeks), rows.scored(scores).only(np.logical_or.reduce(chosen)))


class _Trainer:
    """Fits the model anew for each test week, on the rows whose labels were known when it began."""

    def __init__(self, history: History, features: Features, names: Sequence[str], warm_up: int) -> None:
        self._history, self._features, self._names = history, features, names
        self._settled = history.times >= history.times[0] + warm_up

    def scores(self, start: date, kept: Flags) -> Floats:
        began = _day(start) * _DAY_US
        known = self._settled & (self._history.known_at <= began)
        model = train(self._features[known], self._history.frauds[known], self._names)
        # The same order as the calibrated score's, within 0 and 1 as plots need it.
        return np.asarray(1.0 / (1.0 + np.exp(-model.margins(self._features[kept]))))


def _history(labelled: Labelled, delay: timedelta | None) -> History:
    times = labelled.transactions["event_time"].cast(pa.int64()).to_numpy()
    due = times + delay // MICRO if delay is not None else np.full(len(times), NEVER)
    known = np.where(labelled.known, due, NEVER)
    return History(labelled.transactions, labelled.frauds, known)


def _judged(labelled: Labelled, contract: EventContract, scores: Floats) -> JudgedRows:
    days = labelled.transactions["event_time"].cast(pa.int64()).to_numpy() // _DAY_US
    cards = labelled.transactions[contract.primary_entity].combine_chunks().dictionary_encode()
    return JudgedRows(scores, labelled.frauds, days, cards.indices.to_numpy(), labelled.kinds)


def _chosen(rows: JudgedRows, start: date, delay: timedelta) -> Flags:
    return protocol.test_rows(rows.labels, rows.days, rows.entities, _day(start), delay.days)


def _tail_ratios(rows: JudgedRows, start: date) -> dict[str, float]:
    week = (rows.days >= _day(start)) & (rows.days < _day(start) + _WEEK_DAYS)
    observed = observed_shares(rows.scores[week], np.array(_TAILS))
    return {f"{tail:g}": float(share / tail) for tail, share in zip(_TAILS, observed, strict=True)}


def _day(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def _plain(figures: Figures) -> dict[str, Any]:
    scenarios = {str(kind): round(auc, 4) for kind, auc in figures.scenario_auc.items()}
    return {
        "auc": round(figures.auc, 4),
        "ap": round(figures.ap, 4),
        "cp100": round(figures.cp100, 4),
        "scenario_auc": scenarios,
        "frauds": figures.frauds,
        "rows": figures.rows,
    }


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)
