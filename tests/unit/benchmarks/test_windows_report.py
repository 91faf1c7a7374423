"""The report that streams a history and compares its features with those of pandas, as the book does it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from benchmarks.windows import measure, tied_rows

START = pd.Timestamp("2018-04-01")


def history(rows: int = 1_500) -> pd.DataFrame:
    random = np.random.default_rng(11)
    seconds = np.sort(random.choice(60 * 86_400, rows, replace=False))
    return pd.DataFrame(
        {
            "TRANSACTION_ID": np.arange(rows),
            "TX_DATETIME": (START + pd.to_timedelta(seconds, unit="s")).astype("datetime64[us]"),
            "CUSTOMER_ID": random.integers(0, 12, rows),
            "TERMINAL_ID": random.integers(0, 15, rows),
            "TX_AMOUNT": np.round(random.lognormal(3.0, 1.0, rows), 2),
            "TX_FRAUD": (random.random(rows) < 0.1).astype(np.int8),
            "TX_FRAUD_SCENARIO": np.zeros(rows, np.int8),
        }
    )


def book_features(rows: pd.DataFrame) -> pd.DataFrame:
    found = pd.DataFrame({"TRANSACTION_ID": rows["TRANSACTION_ID"]})
    found["TX_DURING_WEEKEND"] = (rows["TX_DATETIME"].dt.weekday >= 5).astype(int)
    found["TX_DURING_NIGHT"] = (rows["TX_DATETIME"].dt.hour <= 6).astype(int)
    for entity in ("CUSTOMER_ID", "TERMINAL_ID"):
        for _, group in rows.groupby(entity):
            timed = group.set_index("TX_DATETIME")
            for days in (1, 7, 30):
                span = f"{days}D"
                if entity == "CUSTOMER_ID":
                    rolled = timed["TX_AMOUNT"].rolling(span)
                    values = {"NB_TX": rolled.count(), "AVG_AMOUNT": rolled.mean()}
                else:
                    late, whole = (timed["TX_FRAUD"].rolling(f"{each}D") for each in (7, 7 + days))
                    counted = whole.count() - late.count()
                    share = (whole.sum() - late.sum()) / counted.where(counted > 0)
                    values = {"NB_TX": counted, "RISK": share.fillna(0.0)}
                for name, value in values.items():
                    found.loc[group.index, f"{entity}_{name}_{days}DAY_WINDOW"] = value.to_numpy()
    return found


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    rows, made = history(), (tmp_path / "transactions", tmp_path / "features")
    for folder, frame in zip(made, (rows, book_features(rows)), strict=True):
        folder.mkdir()
        frame.to_parquet(folder / "rows.parquet", index=False)
    return made


@pytest.mark.long
def test_streamed_features_are_those_of_the_book(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure(*folders, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["rows_compared"], told["rows_differing_by_id"]) == (1_500, 0)
    assert len([name for name in told if name.startswith("difference.")]) == 14


def test_a_feature_that_differs_is_told(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path, name = folders[1] / "rows.parquet", "TERMINAL_ID_RISK_7DAY_WINDOW"
    wrong = pl.read_parquet(path).with_columns(
        pl.when(pl.col("TRANSACTION_ID") == 700).then(pl.col(name) + 1e-3).otherwise(pl.col(name)).alias(name)
    )
    wrong.write_parquet(path)
    assert not measure(*folders, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["rows_differing_by_id"] == 1
    assert [each for each in told if each.startswith("difference.") and told[each] > 1e-6] == [
        f"difference.{name}"
    ]


def test_payments_of_one_second_are_taken_in_the_order_in_which_they_were_counted(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = history()
    same = rows.index[rows["CUSTOMER_ID"] == 3][20:22]
    rows.loc[same[1], "TX_DATETIME"] = rows.loc[same[0], "TX_DATETIME"]
    order = [*range(same[0]), same[1], *(each for each in range(same[0], len(rows)) if each != same[1])]
    other_way = rows.loc[order].reset_index(drop=True)
    rows.to_parquet(folders[0] / "rows.parquet", index=False)
    book_features(other_way).to_parquet(folders[1] / "rows.parquet", index=False)
    assert measure(*folders, as_json=True)
    assert json.loads(capsys.readouterr().out)["rows_differing_by_id"] == 2
    assert tied_rows(pl.from_pandas(rows)) == 2
