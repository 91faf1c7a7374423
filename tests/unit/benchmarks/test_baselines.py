from __future__ import annotations

import dataclasses
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks import baselines
from benchmarks.baselines import CEILING, HandbookWeek
from benchmarks.ceiling import label_free_ceiling
from schemas.errors import ConfigurationError
from streaming.labels.judged_rows import JudgedRows
from streaming.learning.protocol import Figures, figures

FIRST = date(2021, 3, 1)
START = FIRST + timedelta(days=16)
WEEK = HandbookWeek((START - date(1970, 1, 1)).days)
DAYS, ROWS = 23, 4_000
RISK = "TERMINAL_ID_RISK_7DAY_WINDOW"


def made_rows(seed: int = 0) -> pl.DataFrame:
    """Rows in event order: frauds of scenario 1 by amount, of 2 by the terminal's risk, of 3 by the ratio."""
    random = np.random.default_rng(seed)
    scenario = random.choice([0, 1, 2, 3], ROWS, p=[0.94, 0.02, 0.02, 0.02])
    seconds = np.sort(random.integers(0, DAYS * 86_400, ROWS))
    midnight = datetime(FIRST.year, FIRST.month, FIRST.day)
    return pl.DataFrame(
        {
            "TRANSACTION_ID": np.arange(ROWS),
            "TX_DATETIME": [midnight + timedelta(seconds=second) for second in seconds.tolist()],
            "CUSTOMER_ID": random.integers(0, 900, ROWS),
            "TERMINAL_ID": random.integers(0, 50, ROWS),
            "TX_AMOUNT": random.uniform(5, 150, ROWS) + 200 * (scenario == 1),
            "TX_FRAUD": (scenario > 0).astype(np.int8),
            "TX_FRAUD_SCENARIO": scenario.astype(np.int8),
            "CUSTOMER_ID_AVG_AMOUNT_7DAY_WINDOW": random.uniform(50, 60, ROWS) - 40 * (scenario == 3),
            RISK: 0.1 * random.random(ROWS) + 0.5 * (scenario == 2),
        }
    )


FRAME = made_rows()
JUDGED = WEEK.judged(FRAME)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The made rows as two files of transactions and one of features in another order."""
    transactions, features = tmp_path_factory.mktemp("transactions"), tmp_path_factory.mktemp("features")
    given = FRAME.select(baselines._GIVEN).with_columns(more=pl.lit("of no use"))
    given.tail(ROWS - 1_500).write_parquet(transactions / "a.parquet")
    given.head(1_500).write_parquet(transactions / "b.parquet")
    computed = FRAME.select("TRANSACTION_ID", "CUSTOMER_ID_AVG_AMOUNT_7DAY_WINDOW", RISK)
    computed.reverse().write_parquet(features / "all.parquet")
    return transactions, features


def judged(scores: baselines.Floats) -> Figures:
    return figures(baselines.judged_rows(FRAME.filter(JUDGED), scores))


def with_labels_flipped(first_day: int, end_day: int) -> pl.DataFrame:
    """Flip labels from `first_day` to before `end_day`, of customers that are not judged in any case."""
    day = pl.col("TX_DATETIME").dt.date().to_physical()
    judged_customers = FRAME.filter(JUDGED)["CUSTOMER_ID"].unique().to_list()
    free = (day >= WEEK.start_day) | ~pl.col("CUSTOMER_ID").is_in(judged_customers)
    flipped = (day.is_between(first_day, end_day, closed="left") & free) ^ pl.col("TX_FRAUD").cast(pl.Boolean)
    frame = FRAME.with_columns(TX_FRAUD=flipped.cast(pl.Int8))
    assert frame["TX_FRAUD"].to_list() != FRAME["TX_FRAUD"].to_list()
    return frame


def test_files_are_joined_by_transaction_in_event_order(folders: tuple[Path, Path]) -> None:
    assert baselines.load_rows(*folders).equals(FRAME)


def test_transactions_without_features_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pl.read_parquet(folders[1]).head(ROWS - 3).write_parquet(tmp_path / "some.parquet")
    with pytest.raises(ConfigurationError, match="3 of 4000 transactions lack features"):
        baselines.load_rows(folders[0], tmp_path)


def test_folders_must_hold_the_handbooks_columns(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no Parquet files"):
        baselines.load_rows(tmp_path, folders[1])
    with pytest.raises(ConfigurationError, match="columns lack: TX_DATETIME, CUSTOMER_ID"):
        baselines.load_rows(folders[1], folders[1])


def test_training_takes_the_days_that_end_a_delay_before_the_week() -> None:
    days = WEEK.training(FRAME)["TX_DATETIME"].dt.date()
    assert (days.min(), days.max()) == (START - timedelta(days=14), START - timedelta(days=8))


def test_only_rows_of_the_test_week_are_judged() -> None:
    days = FRAME.filter(JUDGED)["TX_DATETIME"].dt.date()
    assert (days.min(), days.max()) == (START, START + timedelta(days=6))
    assert len(days) < FRAME.filter(pl.col("TX_DATETIME").dt.date() >= START).height


@pytest.mark.parametrize("name", baselines.competitors(jobs=1))
def test_every_competitor_scores_each_judged_row_the_same_every_time(name: str) -> None:
    scored = baselines.competitors(jobs=1)[name]
    scores = scored(FRAME, WEEK)
    assert scores.dtype == np.float64
    assert len(scores) == JUDGED.sum()
    assert np.isfinite(scores).all()
    assert scores.tolist() == scored(FRAME, WEEK).tolist()


def test_amounts_find_the_first_scenario_alone() -> None:
    for scored in (baselines.amount, baselines.large_amount):
        found = judged(scored(FRAME, WEEK)).scenario_auc
        assert found[1] > 0.9
        assert found[2] == pytest.approx(0.5, abs=0.1)
    assert set(baselines.large_amount(FRAME, WEEK).tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("scored", [baselines.random_forest, baselines.boosted_trees])
def test_trained_models_find_what_training_labels_show(scored: baselines.Competitor) -> None:
    assert judged(scored(FRAME, WEEK)).auc > 0.95


@pytest.mark.parametrize("scored", [baselines.random_forest, baselines.boosted_trees])
@pytest.mark.parametrize(("first", "end", "same"), [(0, 7, True), (-7, 0, True), (-14, -7, False)])
def test_trained_models_see_the_labels_of_the_training_week_alone(
    scored: baselines.Competitor, first: int, end: int, same: bool
) -> None:
    other = with_labels_flipped(WEEK.start_day + first, WEEK.start_day + end)
    scores = dict(zip(other.filter(WEEK.judged(other))["TRANSACTION_ID"], scored(other, WEEK), strict=True))
    before = scored(FRAME, WEEK).tolist()
    assert ([scores[row] for row in FRAME.filter(JUDGED)["TRANSACTION_ID"]] == before) is same


@pytest.mark.parametrize("name", ["isolation forest", "half-space trees"])
def test_label_free_detectors_do_not_read_the_terminals_risk(name: str) -> None:
    other = FRAME.with_columns(pl.col(RISK).reverse())
    named = baselines.competitors(jobs=1)
    free, full = named[f"{name}, label-free"], named[name]
    assert free(FRAME, WEEK).tolist() == free(other, WEEK).tolist()
    assert full(FRAME, WEEK).tolist() != full(other, WEEK).tolist()


def test_isolation_forest_finds_outliers() -> None:
    assert judged(baselines.isolation_forest(FRAME, WEEK, jobs=1)).auc > 0.8


def test_half_space_trees_score_a_row_before_they_learn_it() -> None:
    last_day = pl.col("TX_DATETIME").dt.date() == START + timedelta(days=6)
    other = FRAME.with_columns(TX_AMOUNT=pl.when(last_day).then(5_000.0).otherwise("TX_AMOUNT"))
    earlier = FRAME.filter(JUDGED).select(~last_day).to_series().to_numpy()
    before, after = baselines.half_space_trees(FRAME, WEEK), baselines.half_space_trees(other, WEEK)
    assert before[earlier].tolist() == after[earlier].tolist()
    assert before[~earlier].tolist() != after[~earlier].tolist()


def test_report_has_a_line_for_the_ceiling_and_every_competitor(folders: tuple[Path, Path]) -> None:
    lines = baselines.baseline_figures(*folders, [START], jobs=1)
    assert list(lines) == [CEILING, *baselines.competitors()]
    assert lines["amount"] == [judged(baselines.amount(FRAME, WEEK))]
    assert lines[CEILING][0].scenario_auc == pytest.approx({1: 1.0, 2: 0.5, 3: 1.0})
    assert lines["random forest"][0].auc > lines[CEILING][0].auc


def made_points() -> pl.DataFrame:
    random = np.random.default_rng(1)
    points = random.normal(size=(500, 3))
    points[:5] += 8.0
    return pl.DataFrame(points, schema=["x0", "x1", "x2"]).with_columns(
        y=(pl.int_range(500) < 5).cast(pl.Int8)
    )


def made_transfers() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Degrees 3, 1, 2, 0 of accounts 7, 8, 9, 10; 7 and 8 are frauds."""
    nodes = pl.DataFrame({"nodeid": [7, 8, 9, 10], "isFraud": [1, 1, 0, 0]})
    return nodes, pl.DataFrame({"sourceNodeId": [7, 7, 9], "targetNodeId": [8, 9, 7]})


def test_degree_counts_transfers_sent_and_received() -> None:
    assert baselines.amlsim_degree_auc(*made_transfers()) == 0.75


def test_far_points_are_found(tmp_path: Path) -> None:
    made_points().write_parquet(tmp_path / "points.parquet")
    found = baselines.adbench_figures(tmp_path / "points.parquet", seeds=2, jobs=1)
    assert found.auc > 0.99
    assert found.ap > 0.9


def random_rows() -> JudgedRows:
    random = np.random.default_rng(0)
    labels = random.random(4_000) < 0.05
    return JudgedRows(
        scores=random.random(4_000) + 0.3 * labels,
        labels=labels,
        days=np.sort(random.integers(17_716, 17_723, 4_000)),
        entities=random.integers(0, 500, 4_000),
        scenarios=np.where(labels, random.integers(1, 4, 4_000), 0),
    )


def test_ceiling_is_perfect_but_for_the_blind_scenario() -> None:
    rows = random_rows()
    assert rows.scenarios is not None
    blind_share = (rows.scenarios[rows.labels] == 2).mean()
    ceiling = label_free_ceiling(rows, 2)
    assert ceiling.scenario_auc == pytest.approx({1: 1.0, 2: 0.5, 3: 1.0}, abs=1e-12)
    assert ceiling.auc == pytest.approx(1 - blind_share / 2, abs=1e-12)
    assert 1 - blind_share < ceiling.ap < 1
    assert (ceiling.frauds, ceiling.rows) == (rows.labels.sum(), len(rows))


def test_ceiling_does_not_read_scores_and_is_the_same_every_time() -> None:
    rows = random_rows()
    assert label_free_ceiling(rows, 2) == label_free_ceiling(rows.scored(-rows.scores), 2)


def test_ceiling_with_nothing_blind_is_a_perfect_score() -> None:
    rows = random_rows()
    perfect = figures(rows.scored(rows.labels.astype(np.float64)))
    ceiling = label_free_ceiling(rows, 9)
    assert (ceiling.auc, ceiling.ap, ceiling.cp100) == pytest.approx((1.0, 1.0, perfect.cp100))


def test_ceiling_needs_scenarios_and_seeds() -> None:
    with pytest.raises(ConfigurationError, match="scenario"):
        label_free_ceiling(dataclasses.replace(random_rows(), scenarios=None), 2)
    with pytest.raises(ConfigurationError, match="seeds: expected at least 1"):
        label_free_ceiling(random_rows(), 2, seeds=0)
