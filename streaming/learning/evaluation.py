"""`flagstream evaluate`: streams labelled files through the live scorer and judges what it says.

Modes: `unlabelled` never shows it a label; `delayed` tells each label after the label delay; `trained` also
fits the supervised model for each test week on what was known when the week began.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from schemas.instants import MICRO
from schemas.spec import AgentSpec
from streaming.arrays.compilation import Flags, Floats, Ints
from streaming.batch.references import References
from streaming.detection.features import Features
from streaming.detection.model import train
from streaming.detection.scoring import Scorer
from streaming.events.decode import decode
from streaming.events.file_events import file_events
from streaming.events.record_table import record_table
from streaming.learning import protocol
from streaming.learning.evaluation_plots import observed_shares
from streaming.learning.labelled_run import NEVER, History, run_history
from streaming.learning.protocol import BudgetFigures, Figures, JudgedRows

Mode = Literal["unlabelled", "delayed", "trained"]
MODES: tuple[Mode, ...] = ("unlabelled", "delayed", "trained")

_DAY_US = 86_400_000_000
_WEEK_DAYS = 7
_TAILS = (0.1, 0.05, 0.01, 0.005)
_FAR = datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Labelled:
    """A labelled file in event order.

    Attributes:
        transactions: what Scorer.score wants.
        frauds: bool[n].
        kinds: int64[n], the kind of fraud, or None when the file does not say.
    """

    transactions: pa.Table
    frauds: Flags
    kinds: Ints | None


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


def read_labelled(paths: Sequence[Path], contract: EventContract) -> Labelled:
    """Read files as the live path would: to JSON events, decoded under the contract, in event order.

    Raises:
        ConfigurationError: the contract names no label, or a file cannot be read under it.
    """
    if contract.label is None:
        raise ConfigurationError(
            "names no label to evaluate against", where=f"contract {contract.name}", key="label"
        )
    parts = [_read(path, contract, contract.label.field, contract.label.kind) for path in paths]
    numbered, order = _numbered([part.transactions for part in parts])
    kinds = [part.kinds for part in parts if part.kinds is not None]
    return Labelled(
        numbered,
        np.concatenate([part.frauds for part in parts])[order],
        np.concatenate(kinds)[order] if kinds else None,
    )


def read_transactions(paths: Sequence[Path], contract: EventContract) -> pa.Table:
    """Read files without labels as read_labelled does; returns what Scorer.score wants.

    Raises:
        ConfigurationError: a file cannot be read under the contract.
    """
    return _numbered([_read_events(path, contract) for path in paths])[0]


def evaluate(
    labelled: Labelled,
    spec: AgentSpec,
    contract: EventContract,
    mode: Mode,
    *,
    label_delay: timedelta,
    test_starts: Sequence[date],
    alerts_per_day: int = protocol.CARDS_PER_DAY,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Stream the rows in event order and judge the test weeks by the handbook's protocol.

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
    chosen = [_chosen(rows, start, label_delay) for start in test_starts]
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
    known = np.full(len(times), NEVER) if delay is None else times + delay // MICRO
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


def _numbered(tables: Sequence[pa.Table]) -> tuple[pa.Table, Ints]:
    table = pa.concat_tables(tables)
    order = np.argsort(table["event_time"].cast(pa.int64()).to_numpy(), kind="stable")
    ranks = pa.array(np.arange(len(order)))
    return table.take(pa.array(order)).append_column("sequence", ranks), order


def _read_events(path: Path, contract: EventContract) -> pa.Table:
    tables, first, references = list[pa.Table](), 0, References(contract)
    for keys, values in file_events(path, contract):
        tables.append(references.join(_decoded(keys, values, first, contract)))
        first += len(values)
    own = ["event_time", "amount", "currency", *contract.entity_names, *contract.extra]
    wanted = [*own, *contract.reference_columns, "offset"]
    return pa.concat_tables(tables).select(wanted)


def _read(path: Path, contract: EventContract, field: str, kind: str | None) -> Labelled:
    table = _read_events(path, contract)
    places = table["offset"].to_numpy()
    truth = _columns(path, [field, *([kind] if kind else [])])
    frauds = truth[field].cast(pl.Int64).to_numpy()[places] != 0
    kinds = truth[kind].cast(pl.Int64).to_numpy()[places] if kind else None
    return Labelled(table.drop_columns(["offset"]), frauds, kinds)


def _decoded(keys: list[bytes | None], values: list[bytes], first: int, contract: EventContract) -> pa.Table:
    records = record_table(keys, values, topic="file", first=first, sent_at=_FAR)
    return decode(records, contract, _FAR, from_file=True).valid


def _columns(path: Path, names: list[str]) -> pl.DataFrame:
    readers: dict[str, Callable[[Path], pl.LazyFrame]] = {
        ".parquet": pl.scan_parquet,
        ".csv": pl.scan_csv,
        ".jsonl": pl.scan_ndjson,
        ".ndjson": pl.scan_ndjson,
    }
    try:
        return readers[path.suffix](path).select(names).collect()
    except pl.exceptions.PolarsError as fault:
        problem = f"its labels cannot be read: {str(fault)[:200]}"
        raise ConfigurationError(problem, where=str(path)) from None


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
