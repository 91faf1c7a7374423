"""What others reach on the same rows: the competitors of the evaluation report, under the same protocol.

A competitor takes all rows and a test week and scores the rows of that week that the protocol judges. All of
them read the amount and the handbook's 14 features, given as files. Three of those features are delayed
labels in disguise (a terminal's share of frauds), so the detectors that train on no labels also run without
them, as `label-free`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import xgboost
from river.anomaly import HalfSpaceTrees
from river.preprocessing import MinMaxScaler
from sklearn.ensemble import IsolationForest, RandomForestClassifier

from benchmarks.ceiling import label_free_ceiling
from benchmarks.harness import say
from schemas.errors import ConfigurationError
from streaming.labels.judged_rows import JudgedRows
from streaming.learning import protocol
from streaming.learning.protocol import Figures

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

# What the handbook's simulator flags outright (its scenario 1), and the frauds no single row shows.
LARGE_AMOUNT = 220.0
BLIND_SCENARIO = 2
CEILING = "label-free ceiling"
_EPOCH = date(1970, 1, 1)
_JOBS = 2
_POINT_SEEDS = 5
_GIVEN = (
    *("TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT"),
    *("TX_FRAUD", "TX_FRAUD_SCENARIO"),
)


@dataclass(frozen=True)
class HandbookWeek:
    """A test week: it starts on `start_day` (days since 1970-01-01) and trains as the protocol says."""

    start_day: int
    delay_days: int = 7
    train_days: int = 7
    test_days: int = 7

    @property
    def first_train_day(self) -> int:
        """The first of the days trained on; they end `delay_days` before the week."""
        return self.start_day - self.delay_days - self.train_days

    def judged(self, frame: pl.DataFrame) -> Flags:
        """Choose the rows that the protocol judges, bool[n]."""
        rows = judged_rows(frame)
        sizes = (self.delay_days, self.train_days, self.test_days)
        return protocol.test_rows(rows.labels, rows.days, rows.entities, self.start_day, *sizes)

    def training(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the rows trained on."""
        return _between(frame, self.first_train_day, self.first_train_day + self.train_days)


Competitor = Callable[[pl.DataFrame, HandbookWeek], Floats]


@dataclass(frozen=True)
class PointFigures:
    """ROC AUC and average precision of scores given to points that have no time and no entity."""

    auc: float
    ap: float


def load_rows(transactions: Path, features: Path) -> pl.DataFrame:
    """Read all Parquet files of both folders, joined by TRANSACTION_ID, in event order.

    Raises:
        ConfigurationError: a folder has no Parquet files, a column lacks, or a row has no features.
    """
    given, computed = _read_folder(transactions, _GIVEN), _read_folder(features, ("TRANSACTION_ID",))
    rows = given.select(_GIVEN).join(computed, on="TRANSACTION_ID", how="inner", validate="1:1")
    if rows.height != given.height:
        lacking = given.height - rows.height
        raise ConfigurationError(
            f"{lacking} of {given.height} transactions lack features", where=str(features)
        )
    return rows.sort("TX_DATETIME", "TRANSACTION_ID")


def judged_rows(frame: pl.DataFrame, scores: Floats | None = None) -> JudgedRows:
    """Return the frame's rows as the protocol takes them, under `scores`, float64[n], or all zero."""
    return JudgedRows(
        scores=np.zeros(frame.height) if scores is None else scores,
        labels=frame["TX_FRAUD"].cast(pl.Boolean).to_numpy(),
        days=frame.select(_day().cast(pl.Int64)).to_series().to_numpy(),
        entities=frame["CUSTOMER_ID"].to_numpy(),
        scenarios=frame["TX_FRAUD_SCENARIO"].cast(pl.Int64).to_numpy(),
    )


def amount(frame: pl.DataFrame, week: HandbookWeek) -> Floats:
    """Score a transaction by its amount."""
    return frame["TX_AMOUNT"].to_numpy()[week.judged(frame)]


def large_amount(frame: pl.DataFrame, week: HandbookWeek) -> Floats:
    """Score 1 above the amount that the handbook's first scenario is made of, 0 up to it."""
    return (amount(frame, week) > LARGE_AMOUNT).astype(np.float64)


def isolation_forest(
    frame: pl.DataFrame, week: HandbookWeek, *, label_free: bool = False, jobs: int = _JOBS
) -> Floats:
    """Score by scikit-learn's IsolationForest, library defaults, fitted on the training week's rows."""
    names = _inputs(frame, label_free=label_free)
    forest = IsolationForest(random_state=0, n_jobs=jobs).fit(_matrix(week.training(frame), names))
    return -_floats(forest.score_samples(_matrix(frame.filter(week.judged(frame)), names)))


def half_space_trees(frame: pl.DataFrame, week: HandbookWeek, *, label_free: bool = False) -> Floats:
    """Score by River's HalfSpaceTrees, library defaults, features scaled to [0, 1] as they come.

    It learns every row from the training week on, those of the test week after they are scored.
    """
    names = _inputs(frame, label_free=label_free)
    model = MinMaxScaler() | HalfSpaceTrees(seed=0)
    for row in _between(frame, week.first_train_day, week.start_day).select(names).iter_rows(named=True):
        model.learn_one(row)
    judged = pl.Series(week.judged(frame))
    tested = _between(frame.with_columns(judged=judged), week.start_day, week.start_day + week.test_days)
    scores = [_score_then_learn(model, row) for row in tested.select(names).iter_rows(named=True)]
    return _floats(pl.Series(scores, dtype=pl.Float64).filter(tested["judged"]))


def random_forest(frame: pl.DataFrame, week: HandbookWeek, *, trees: int = 100, jobs: int = _JOBS) -> Floats:
    """Score by scikit-learn's random forest, trained as in the book on the training week's 15 features."""
    return _trained(RandomForestClassifier(trees, random_state=0, n_jobs=jobs), frame, week)


def boosted_trees(frame: pl.DataFrame, week: HandbookWeek, *, trees: int = 100, jobs: int = _JOBS) -> Floats:
    """Score by XGBoost, trained as in the book on the training week's 15 features."""
    return _trained(xgboost.XGBClassifier(n_estimators=trees, random_state=0, n_jobs=jobs), frame, week)


def competitors(jobs: int = _JOBS) -> dict[str, Competitor]:
    """Name every competitor, in the order of the report.

    Args:
        jobs: threads where a library offers them.
    """
    return {
        "amount": amount,
        f"amount > {LARGE_AMOUNT:.0f}": large_amount,
        "isolation forest, label-free": partial(isolation_forest, label_free=True, jobs=jobs),
        "isolation forest": partial(isolation_forest, jobs=jobs),
        "half-space trees, label-free": partial(half_space_trees, label_free=True),
        "half-space trees": half_space_trees,
        "random forest": partial(random_forest, jobs=jobs),
        "XGBoost": partial(boosted_trees, jobs=jobs),
    }


def baseline_figures(
    folder_transactions: Path, folder_features: Path, weeks: Sequence[date], *, jobs: int = _JOBS
) -> dict[str, list[Figures]]:
    """Judge the label-free ceiling and every competitor, one `Figures` a week.

    Args:
        folder_transactions: Parquet files of transactions, columns as in the handbook.
        folder_features: Parquet files of its 14 features, by TRANSACTION_ID.
        weeks: first days of the test weeks.
        jobs: threads where a library offers them.

    Raises:
        ConfigurationError: the files do not fit together, or a week cannot be judged.
    """
    frame = load_rows(folder_transactions, folder_features)
    chosen = [HandbookWeek((start - _EPOCH).days) for start in weeks]
    ceilings = [
        label_free_ceiling(judged_rows(frame.filter(week.judged(frame))), BLIND_SCENARIO) for week in chosen
    ]
    judged = {name: _judge(name, scored, frame, chosen) for name, scored in competitors(jobs).items()}
    return {CEILING: ceilings, **judged}


def adbench_figures(path: Path, seeds: int = _POINT_SEEDS, jobs: int = _JOBS) -> PointFigures:
    """Judge scikit-learn's IsolationForest, fitted and tested on all points, on average over seeds.

    Args:
        path: Parquet file of float columns and `y`, 1 for an anomaly.
        seeds: forests averaged over, seeded 0, 1, 2 and so on; with few anomalies, the average precision
            of a single one says little.
        jobs: threads to use.
    """
    frame = pl.read_parquet(path)
    points, labels = frame.drop("y").to_numpy(), frame["y"].cast(pl.Boolean).to_numpy()
    forests = [IsolationForest(random_state=seed, n_jobs=jobs).fit(points) for seed in range(seeds)]
    scores = [-_floats(forest.score_samples(points)) for forest in forests]
    return PointFigures(
        auc=float(np.mean([protocol.roc_auc(labels, one) for one in scores])),
        ap=float(np.mean([protocol.average_precision(labels, one) for one in scores])),
    )


def amlsim_degree_auc(nodes: pl.DataFrame, transactions: pl.DataFrame) -> float:
    """Return the account-level ROC AUC of an account's degree: its transfers, sent and received.

    Args:
        nodes: columns nodeid and isFraud.
        transactions: columns sourceNodeId and targetNodeId, a row per transfer.
    """
    ends = pl.concat([transactions["sourceNodeId"].rename("nodeid"), transactions["targetNodeId"]])
    degrees = ends.value_counts(name="degree")
    accounts = nodes.join(degrees, on="nodeid", how="left").with_columns(pl.col("degree").fill_null(0))
    labels = accounts["isFraud"].cast(pl.Boolean).to_numpy()
    return protocol.roc_auc(labels, accounts["degree"].cast(pl.Float64).to_numpy())


def _judge(
    name: str, competitor: Competitor, frame: pl.DataFrame, weeks: Sequence[HandbookWeek]
) -> list[Figures]:
    begun = time.perf_counter()
    judged = [_figures(competitor, frame, week) for week in weeks]
    say(f"{name}: {time.perf_counter() - begun:.1f} s")
    return judged


def _figures(competitor: Competitor, frame: pl.DataFrame, week: HandbookWeek) -> Figures:
    return protocol.figures(judged_rows(frame.filter(week.judged(frame)), competitor(frame, week)))


def _trained(classifier: Any, frame: pl.DataFrame, week: HandbookWeek) -> Floats:
    names, training = _inputs(frame), week.training(frame)
    classifier.fit(_matrix(training, names), training["TX_FRAUD"].to_numpy())
    # Threads add the trees' votes up in any order, and the last bit decides between cards of equal votes.
    classifier.set_params(n_jobs=1)
    return _floats(classifier.predict_proba(_matrix(frame.filter(week.judged(frame)), names))[:, 1])


def _score_then_learn(model: Any, row: dict[str, float]) -> float:
    score = float(model.score_one(row))
    model.learn_one(row)
    return score


def _inputs(frame: pl.DataFrame, *, label_free: bool = False) -> list[str]:
    computed = [name for name in frame.columns if name not in _GIVEN]
    return ["TX_AMOUNT", *(name for name in computed if not (label_free and "_RISK_" in name))]


def _matrix(frame: pl.DataFrame, names: Sequence[str]) -> Floats:
    return _floats(frame.select(names).to_numpy())


def _floats(values: Any) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _day() -> pl.Expr:
    return pl.col("TX_DATETIME").dt.date().to_physical()


def _between(frame: pl.DataFrame, first_day: int, end_day: int) -> pl.DataFrame:
    return frame.filter(_day().is_between(first_day, end_day, closed="left"))


def _read_folder(folder: Path, needed: Sequence[str]) -> pl.DataFrame:
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise ConfigurationError("no Parquet files", where=str(folder))
    frame = pl.concat([pl.read_parquet(file) for file in files])
    lacking = [name for name in needed if name not in frame.columns]
    if lacking:
        raise ConfigurationError(f"columns lack: {', '.join(lacking)}", where=str(folder))
    return frame
