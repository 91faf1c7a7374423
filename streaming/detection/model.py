"""The supervised model: gradient-boosted trees over the features of a row as they stood when it was scored.

An artefact is a folder in MLflow's layout: `MLmodel` says what it is, `model.json` holds the trees as data,
and `training.json` what it was trained on. Loading reads data and never runs anything from the folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from pydantic import ConfigDict

from schemas.errors import ConfigurationError
from schemas.loading import Document, load_document
from streaming.arrays.compilation import Flags, Floats
from streaming.detection.features import EVIDENCE, Features, reason_of
from streaming.store.folders import Folders

if TYPE_CHECKING:
    from xgboost import Booster

TREES = 150
_LEAST_WHOLE = 1e-6
_CLASS = "xgboost.core.Booster"
_MODEL, _CARD, _TRAINING = "model.json", "MLmodel", "training.json"
_PARAMETERS = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "max_depth": 4,
    "eta": 0.05,
    "subsample": 0.7,
    "colsample_bytree": 0.4,
    "min_child_weight": 10,
}


class _ModelManifest(Document):
    model_config = ConfigDict(extra="ignore")

    sha256: str
    features: tuple[str, ...]


class _Card(Document):
    """The part of an artefact's description that loading needs; others may write more into it."""

    model_config = ConfigDict(extra="ignore")

    metadata: _ModelManifest


@dataclass(frozen=True)
class SupervisedModel:
    """Trained trees and the names of the features they read, in order."""

    booster: Booster
    feature_names: tuple[str, ...]
    digest: str

    def margins(self, features: Features) -> Floats:
        """Return the log-odds of fraud, float64[n], less those of an average row of the training data."""
        margins = self.booster.inplace_predict(features, predict_type="margin")
        return np.asarray(margins, np.float64) - self._average()

    def contributions(self, features: Features, evidence: Floats, reasons: Sequence[str]) -> Floats:
        """Return what each reason adds to the margin, float64[n, reasons]; a row's parts add up to it.

        These are TreeSHAP values (Lundberg, Erion, Lee, Consistent Individualized Feature Attribution for
        Tree Ensembles, 2018, section 3), added up over the features of a reason. What the detectors' evidence
        as a whole adds is shared out among their reasons as their parts of it.

        Args:
            features: float32[n, features].
            evidence: nats of each reason, float64[n, reasons].
            reasons: name per column of `evidence` and of the result.
        """
        from xgboost import DMatrix  # noqa: PLC0415 -- loaded only where a model is in force

        if len(features) == 0:
            return np.zeros((0, len(reasons)))
        parts = self.booster.predict(DMatrix(features), pred_contribs=True)[:, :-1].astype(np.float64)
        whole = evidence.sum(axis=1, keepdims=True)
        even = np.full_like(evidence, 1.0 / max(len(reasons), 1))
        found = np.zeros_like(evidence)
        for column, name in enumerate(self.feature_names):
            if name == EVIDENCE:
                shares = np.divide(evidence, whole, out=even, where=np.abs(whole) > _LEAST_WHOLE)
                found += parts[:, column : column + 1] * shares
            else:
                found[:, reasons.index(reason_of(name))] += parts[:, column]
        return _adding_up(found, self.margins(features))

    def _average(self) -> float:
        return float(self.booster.attr("average_margin") or 0.0)


def train(
    features: Features, frauds: Flags, feature_names: Sequence[str], *, seed: int = 0, threads: int = 2
) -> SupervisedModel:
    """Fit trees to labelled rows.

    Args:
        features: float32[n, features], as they stood at scoring.
        frauds: bool[n].
        feature_names: name per column.
        seed: of the sampling of rows and columns.
        threads: the result does not depend on it.

    Raises:
        ConfigurationError: there are no frauds, or nothing else.
    """
    import xgboost  # noqa: PLC0415 -- loaded only where a model is trained

    if not frauds.any() or frauds.all():
        raise ConfigurationError(f"{int(frauds.sum())} of {len(frauds)} labelled rows are frauds: need both")
    parameters = {**_PARAMETERS, "seed": seed, "nthread": threads}
    rows = xgboost.DMatrix(features, frauds.astype(np.float32))
    booster = xgboost.train(parameters, rows, TREES)
    average = float(booster.predict(rows.slice([0]), pred_contribs=True)[0, -1])
    booster.set_attr(average_margin=repr(average))
    return SupervisedModel(booster, tuple(feature_names), _digest(_raw(booster)))


def save(model: SupervisedModel, folder: Path, training: Mapping[str, Any]) -> Path:
    """Write the artefact into `folder`, which must be empty or absent, and return it.

    Args:
        training: what it was trained on: data versions, time span, rows, metrics.

    Raises:
        ConfigurationError: the folder holds something.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ConfigurationError("already exists; a version is never overwritten", where=str(folder))
    (folder / _MODEL).write_bytes(_raw(model.booster))
    card = {
        "flavors": {"xgboost": {"data": _MODEL, "model_format": "json", "model_class": _CLASS}},
        "metadata": {"sha256": model.digest, "features": list(model.feature_names)},
    }
    (folder / _CARD).write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
    (folder / _TRAINING).write_text(json.dumps(dict(training), indent=1), encoding="utf-8")
    return folder


def load(folder: Path, sha256: str | None = None) -> SupervisedModel:
    """Read an artefact.

    Args:
        folder: where save() wrote.
        sha256: which model it must hold, None for whichever it does.

    Raises:
        ConfigurationError: it is missing, incomplete, of another kind, or its trees are not those it was
            saved with, or not those wanted.
    """
    from xgboost import Booster  # noqa: PLC0415 -- loaded only where a model is in force
    from xgboost.core import XGBoostError  # noqa: PLC0415 -- as above

    try:
        noted = load_document(folder / _CARD, _Card).metadata
        raw = (folder / _MODEL).read_bytes()
    except (OSError, ConfigurationError) as fault:
        raise ConfigurationError(f"not a model artefact: {fault}", where=str(folder)) from None
    if _digest(raw) != noted.sha256:
        raise ConfigurationError("model.json is not what was saved: its hash differs", where=str(folder))
    if sha256 not in (None, noted.sha256):
        raise ConfigurationError(f"holds model {noted.sha256}, expected {sha256}", where=str(folder))
    try:
        booster = Booster(model_file=bytearray(raw))
    except XGBoostError as fault:
        raise ConfigurationError(f"not a model: {str(fault)[:200]}", where=str(folder)) from None
    return SupervisedModel(booster, noted.features, noted.sha256)


def keep(source: Path, digest: str, folders: Folders) -> None:
    """Copy an artefact into `folders` under its digest, once: it stays whatever becomes of where it was.

    Args:
        source: its folder.
        digest: SHA-256 of its trees.
    """
    if folders.holds(digest):
        return
    with suppress(FileExistsError), folders.writing(digest) as copy:  # somebody else may just have done so
        shutil.copytree(source, copy, dirs_exist_ok=True)


def _adding_up(parts: Floats, wholes: Floats) -> Floats:
    """Put what single precision lost into each row's largest part."""
    largest = np.abs(parts).argmax(axis=1)
    parts[np.arange(len(parts)), largest] += wholes - parts.sum(axis=1)
    return parts


def _raw(booster: Booster) -> bytes:
    return bytes(booster.save_raw("json"))


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
