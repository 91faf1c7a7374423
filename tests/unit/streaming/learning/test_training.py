"""Training on a lake: what is learned from, what is known when, and what the artefact says."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake
from pydantic import ValidationError

from schemas.errors import ConfigurationError
from schemas.label import GIVEN
from schemas.spec import AgentSpec
from streaming.delta.lake_reader import AgentLake
from streaming.detection.model import load
from streaming.detection.scoring import Scorer
from streaming.labels.book import LabelBook
from streaming.learning.training import Trained, TrainingOrder, save_next, train_on_lake
from streaming.store.local_folders import LocalFolders
from streaming.store.place import Place
from tests.unit.scoring_samples import agent_spec, stream

ENTITIES = ("customer", "terminal")
ROWS = 3000
STREAM = stream(ROWS)
TIMES = STREAM["event_time"].cast("int64").to_numpy()
FRAUDS = np.array([name in ("t3", "t7") for name in STREAM["terminal"].to_pylist()])
SPEC = agent_spec(profiles={"horizons": ["1m", "5m"], "block_rows": 64}, alerts={"topic": "a"})
MINUTE_US = 60_000_000


def moment(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(micros))


def a_lake(folder: Path, *, pins: list[tuple[int, int, int]], delay_us: int = 30 * MINUTE_US) -> LabelBook:
    """Store the stream, labels on all of it decided `delay_us` later, and batches with these pins."""
    ids = pa.array([f"t{row}" for row in range(ROWS)])
    write_deltalake(folder / "transactions", STREAM.append_column("transaction_id", ids))
    alerts = {"transaction_id": ["none"], "kind": ["transaction"], "own_evidence": [1.0], "revision": [1]}
    write_deltalake(folder / "alerts", pa.table({**alerts, "sequence": [0]}))
    columns = list(zip(*pins, strict=True))
    names = ("first_sequence", "labels_through", "labels_below")
    batches = {name: pa.array(values, pa.int64()) for name, values in zip(names, columns, strict=True)}
    write_deltalake(folder / "batches", pa.table(batches))
    book = LabelBook(Place.local(folder / "labels"), retention=timedelta(days=30))
    given: dict[str, Any] = {
        "transaction_id": ids,
        "is_fraud": pa.array(FRAUDS),
        "kind": pa.nulls(ROWS, pa.string()),
        "decided_at": pa.array(TIMES + delay_us, pa.timestamp("us", "UTC")),
        "decided_by": pa.repeat("desk", ROWS),
        "source_position": pa.array(range(ROWS), pa.int64()),
    }
    book.record(pa.table(given).select(GIVEN.names).cast(GIVEN), source="test")
    return book


def trained(folder: Path, **order: Any) -> Trained:
    return train_on_lake(AgentLake(Place.local(folder), SPEC), ENTITIES, TrainingOrder(**order))


def test_what_was_known_when_rows_were_scored_is_what_the_model_learns_from(tmp_path: Path) -> None:
    a_lake(tmp_path / "blind", pins=[(0, 0, 0)])
    # Every 500 rows the labels of the rows before became known.
    a_lake(tmp_path / "told", pins=[(first, first, first) for first in range(500, ROWS, 500)])
    blind, told = (trained(tmp_path / name).training["held_out"] for name in ("blind", "told"))
    assert told["no_model"]["auc"] > 0.9
    assert blind["no_model"]["auc"] < 0.7
    assert told["model"]["auc"] > blind["model"]["auc"]


@pytest.mark.long
def test_labels_imported_afterwards_count_from_when_they_were_decided(tmp_path: Path) -> None:
    a_lake(tmp_path, pins=[(0, 0, 0)], delay_us=MINUTE_US // 60)
    recorded, decided = (trained(tmp_path, known=known).training for known in ("recorded", "decided"))
    assert decided["held_out"]["no_model"]["auc"] > 0.9
    assert recorded["held_out"]["no_model"]["auc"] < 0.7
    assert recorded["sha256"] != decided["sha256"]


def test_nothing_after_until_is_learned_from(tmp_path: Path) -> None:
    a_lake(tmp_path, pins=[(0, 0, 0)], delay_us=10 * 1_000_000)
    micros = int(TIMES[ROWS // 2])
    found = trained(tmp_path, until=moment(micros)).training
    assert found["sequences"] == [0, ROWS // 2]
    before = TIMES[: ROWS // 2]
    known = (before + 10_000_000 <= micros) & (before >= before.min() + 5 * MINUTE_US)
    assert found["rows"] == known.sum()
    assert found["frauds"] == (FRAUDS[: ROWS // 2] & known).sum()


def test_rows_nobody_labelled_count_as_genuine_once_the_delay_has_passed(tmp_path: Path) -> None:
    a_lake(tmp_path, pins=[(0, 0, 0)], delay_us=10**15)
    until = moment(TIMES[-1] + 1)
    with pytest.raises(ConfigurationError, match="none of 0 labelled rows"):
        trained(tmp_path, until=until)
    with pytest.raises(ConfigurationError, match=r"0 of .* labelled rows are frauds"):
        trained(tmp_path, until=until, label_delay=timedelta(minutes=1))


def test_the_artefact_says_what_it_was_trained_on_and_scores_under_a_spec(tmp_path: Path) -> None:
    a_lake(tmp_path, pins=[(0, 0, 0)])
    found = trained(tmp_path)
    folders = [save_next(found, LocalFolders.of(tmp_path / "models")).path for _ in range(2)]
    assert [folder.name for folder in folders] == ["1", "2"]
    noted = json.loads((folders[0] / "training.json").read_text())
    assert (noted["transactions_version"], noted["labels_version"]) == (0, 1)
    assert noted["sha256"] == found.model.digest == load(folders[1], found.model.digest).digest
    assert trained(tmp_path).model.digest == found.model.digest
    with pytest.raises(ConfigurationError, match="expected 0000"):
        load(folders[0], "0" * 64)
    scorer = Scorer(SPEC, ENTITIES, load(folders[0]))
    batch = scorer.score(STREAM.slice(0, 200))
    assert pc.all(pc.greater(pa.array(batch.score), 0)).as_py()


def test_a_lake_without_transactions_or_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="labels import"):
        trained(tmp_path)
    LabelBook(Place.local(tmp_path / "labels"), retention=timedelta(days=30))
    with pytest.raises(ConfigurationError, match="no transactions"):
        trained(tmp_path)
    with pytest.raises(ConfigurationError, match="did you mean 'recorded'"):
        TrainingOrder(known="record")  # type: ignore[arg-type]  # what a user may type


def test_the_spec_names_a_model_and_no_other_is_taken_for_it() -> None:
    spec = agent_spec(model={"path": "models/1", "sha256": "a" * 64})
    assert isinstance(spec, AgentSpec)
    assert spec.model is not None
    with pytest.raises(ValidationError, match="sha256"):
        agent_spec(model={"path": "models/1", "sha256": "short"})
