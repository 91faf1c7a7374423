"""Evaluation over files: the live path, labels only when due, and no constant of any data set."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from streaming.detection.scoring import Scorer
from streaming.learning.evaluation import evaluate
from streaming.learning.labelled_files import Labelled, read_labelled
from streaming.learning.labelled_run import NEVER, History, run_history
from tests.unit.scoring_samples import agent_spec, stream

START = datetime(2025, 1, 1, tzinfo=UTC)
CONTRACT = parse_document(
    {
        "name": "sample",
        "transaction_id": {"field": "id"},
        "event_time": {"field": "at"},
        "amount": {"field": "amount"},
        "currency": {"constant": "EUR"},
        "entities": {"customer": {"field": "customer"}, "terminal": {"field": "terminal"}},
        "label": {"field": "fraud", "kind": "kind"},
    },
    EventContract,
    where="sample",
)


def payments(days: int = 42, a_day: int = 120, seed: int = 5) -> pa.Table:
    """Payments of 40 customers at 30 terminals; terminal 3 falls after two weeks, some amounts are huge."""
    random = np.random.default_rng(seed)
    rows = days * a_day
    seconds = np.sort(random.integers(0, days * 86_400, rows))
    terminals = random.integers(0, 30, rows)
    amounts = np.exp(random.normal(3.0, 0.5, rows))
    huge = random.random(rows) < 0.003
    taken = (terminals == 3) & (seconds > 14 * 86_400)
    return pa.table(
        {
            "id": [f"t{row}" for row in range(rows)],
            "at": [(START + timedelta(seconds=int(each))).isoformat() for each in seconds],
            "amount": np.where(huge, amounts * 20, amounts),
            "customer": [f"c{each}" for each in random.integers(0, 40, rows)],
            "terminal": [f"s{each}" for each in terminals],
            "fraud": (huge | taken).astype(np.int64),
            "kind": np.where(huge, 1, np.where(taken, 2, 0)),
        }
    )


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    path = tmp_path_factory.mktemp("files") / "payments.parquet"
    pq.write_table(payments(), path)
    return read_labelled([path], CONTRACT)


@pytest.fixture(scope="module")
def trained(labelled: Labelled) -> dict[str, Any]:
    return found(labelled, "trained")


def found(labelled: Labelled, mode: Any) -> dict[str, Any]:
    weeks = [date(2025, 1, 29), date(2025, 2, 5)]
    spec = agent_spec(profiles={"horizons": ["1h", "1d", "7d"]})
    return evaluate(
        labelled, spec, CONTRACT, mode, label_delay=timedelta(days=3), test_starts=weeks, alerts_per_day=10
    ).summary()


def test_labels_help_where_only_labels_can(labelled: Labelled, trained: dict[str, Any]) -> None:
    unlabelled, delayed = (found(labelled, mode) for mode in ("unlabelled", "delayed"))
    assert unlabelled["scenario_auc"]["1"] > 0.98
    assert 0.2 < unlabelled["scenario_auc"]["2"] < 0.8
    assert delayed["scenario_auc"]["2"] > 0.95
    assert trained["auc"] > 0.95
    assert len(trained["weeks"]) == 2
    assert delayed["recall"] > unlabelled["recall"]


def test_the_same_file_gives_the_same_figures(labelled: Labelled, trained: dict[str, Any]) -> None:
    assert found(labelled, "trained") == trained


def test_files_are_put_in_event_order_with_their_labels(tmp_path: Path) -> None:
    whole = payments(days=3, a_day=20)
    paths = [tmp_path / "b.parquet", tmp_path / "a.csv"]
    pq.write_table(whole.slice(30), paths[0])
    pa.csv.write_csv(whole.slice(0, 30), paths[1])
    read = read_labelled(paths, CONTRACT)
    assert read.frauds.tolist() == [bool(each) for each in whole["fraud"].to_pylist()]
    assert read.transactions["amount"].to_pylist() == whole["amount"].to_pylist()
    assert read.kinds is not None
    assert read.kinds.tolist() == whole["kind"].to_pylist()


def test_a_contract_without_a_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no label"):
        read_labelled([tmp_path / "any.parquet"], CONTRACT.model_copy(update={"label": None}))


def scores_of(table: pa.Table) -> np.ndarray:
    rows = table.num_rows
    history = History(table, np.zeros(rows, bool), np.full(rows, NEVER))
    return run_history(Scorer(agent_spec(), ("customer", "terminal")), history).scores


@pytest.mark.parametrize("factor", [0.01, 1 / 1024, 3.7, 1024.0])
def test_no_unit_of_amounts_no_name_and_no_date_means_anything(factor: float) -> None:
    original = stream(5000)
    week = pa.scalar(timedelta(weeks=13))
    changed = original.set_column(
        original.column_names.index("amount"), "amount", pa.compute.multiply(original["amount"], factor)
    )
    changed = changed.set_column(
        changed.column_names.index("event_time"), "event_time", pa.compute.add(changed["event_time"], week)
    )
    for name in ("customer", "terminal"):
        renamed = pa.array([f"other-{each[::-1]}" for each in changed[name].to_pylist()])
        changed = changed.set_column(changed.column_names.index(name), name, renamed)
    before, after = scores_of(original), scores_of(changed)
    assert spearmanr(before, after).statistic > 0.99999
    assert np.abs(before - after).max() < 1e-6
