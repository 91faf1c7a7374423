"""The supervised model: exact parts, artefacts that are data, and nothing known too early."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from schemas.errors import ConfigurationError
from streaming.detection.model import SupervisedModel, load, save, train
from streaming.detection.scoring import Scorer
from streaming.learning.labelled_run import NEVER, History, run_history
from tests.unit.scoring_samples import agent_spec, stream

ENTITIES = ("customer", "terminal")
STREAM = stream(6000)
TIMES = STREAM["event_time"].cast("int64").to_numpy()
FRAUDS = np.array([name in ("t3", "t7") for name in STREAM["terminal"].to_pylist()])
HISTORY = History(STREAM, FRAUDS, TIMES + 3_600_000_000)


@pytest.fixture(scope="module")
def model() -> SupervisedModel:
    scorer = Scorer(agent_spec(), ENTITIES)
    run = run_history(scorer, HISTORY, keep=np.ones(6000, bool))
    return train(run.features, FRAUDS, scorer.feature_names, threads=1)


def test_contributions_of_a_trained_score_add_up_and_name_what_the_features_are_about(
    model: SupervisedModel,
) -> None:
    scorer = Scorer(agent_spec(), ENTITIES, model)
    batch = scorer.score(STREAM.slice(0, 500))
    assert np.abs(batch.base + batch.contributions.sum(axis=1) - batch.log_odds).max() <= 1e-9
    assert {"habit.week", "risk.terminal", "amount.population"} <= set(batch.reason_names)
    texts = [reason.text for reason in batch.reasons(499)]
    assert all(texts)
    assert len(set(texts)) == len(texts)


def test_a_batch_without_a_flagged_row_has_no_contributions(model: SupervisedModel) -> None:
    features = np.zeros((0, len(model.feature_names)), np.float32)
    assert model.contributions(features, np.zeros((0, 2)), ("a", "b")).shape == (0, 2)


def test_an_artefact_survives_its_folder_and_is_never_overwritten(
    model: SupervisedModel, tmp_path: Path
) -> None:
    folder = save(model, tmp_path / "1", {"rows": 6000})
    again = load(folder)
    features = np.zeros((3, len(model.feature_names)), np.float32)
    assert again.margins(features).tolist() == model.margins(features).tolist()
    assert (again.feature_names, again.digest) == (model.feature_names, model.digest)
    assert json.loads((folder / "training.json").read_text()) == {"rows": 6000}
    assert yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["xgboost"]["data"] == "model.json"
    with pytest.raises(ConfigurationError, match="never overwritten"):
        save(model, folder, {})


def test_a_changed_or_broken_artefact_is_refused(model: SupervisedModel, tmp_path: Path) -> None:
    folder = save(model, tmp_path / "1", {})
    trees = folder / "model.json"
    trees.write_bytes(trees.read_bytes()[:-1] + b" ")
    with pytest.raises(ConfigurationError, match="hash differs"):
        load(folder)
    (folder / "MLmodel").write_text("!!python/object/apply:os.system [exit]")
    with pytest.raises(ConfigurationError, match="not a model artefact"):
        load(folder)
    with pytest.raises(ConfigurationError, match="not a model artefact"):
        load(tmp_path / "nowhere")


def test_training_does_not_depend_on_threads_and_wants_both_kinds_of_rows() -> None:
    features = np.random.default_rng(1).normal(size=(500, 4)).astype(np.float32)
    frauds = features[:, 0] > 1
    digests = {train(features, frauds, ("a", "b", "c", "d"), threads=threads).digest for threads in (1, 2)}
    assert len(digests) == 1
    with pytest.raises(ConfigurationError, match="need both"):
        train(features, np.zeros(500, bool), ("a", "b", "c", "d"))


def test_a_model_for_other_profiles_is_refused(model: SupervisedModel) -> None:
    with pytest.raises(ConfigurationError, match="features of other profiles"):
        Scorer(agent_spec(profiles={"entities": ["customer"]}), ENTITIES, model)


def features_before(row: int, frauds: np.ndarray, known_at: np.ndarray) -> np.ndarray:
    rows = len(known_at)
    history, keep = History(STREAM.slice(0, rows), frauds[:rows], known_at), np.arange(rows) < row
    return run_history(Scorer(agent_spec(), ENTITIES), history, keep=keep).features


@pytest.mark.long
def test_features_hold_nothing_that_was_not_known_yet_and_a_planted_leak_shows() -> None:
    row, few = 3000, 600
    honest = np.where(TIMES[row] > TIMES, TIMES + 1_000_000, NEVER)
    other, early = (np.where(TIMES[at] <= TIMES, ~FRAUDS, FRAUDS) for at in (row, few // 2))
    late = TIMES.max() + 1
    same = [features_before(row, frauds, np.maximum(honest, late)) for frauds in (FRAUDS, other)]
    assert np.array_equal(*same, equal_nan=True)
    # The leak: labels on all rows are known from the start, those of later rows included. Few rows show it,
    # each of which is then scored by itself.
    leaked = [features_before(few, frauds, np.full(few, TIMES.min())) for frauds in (FRAUDS, early)]
    assert not np.array_equal(*leaked, equal_nan=True)
