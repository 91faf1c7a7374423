"""The multivariate model on points without time, in file order, each scored before it is learned."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from streaming.detection.forest import Forest
from streaming.detection.forest_sample import Inputs
from streaming.learning import protocol

_SEEDS = 5
_BLOCK_ROWS = 1024
_BLOCK_DECAY = 0.5 ** (_BLOCK_ROWS / 65_536)
_FEATURES, _ROWS = 40, 200_000


@dataclass(frozen=True)
class StreamedFigures:
    """ROC AUC and average precision, means over seeds, and rows per second of one core's time."""

    auc: float
    ap: float
    rows_per_second: float


def streamed_figures(path: Path, seeds: int = _SEEDS) -> StreamedFigures:
    """Judge the online forest on all points of a file; those of the first block, unscored, count as ordinary.

    Args:
        path: Parquet file of float columns and `y`, 1 for an anomaly.
        seeds: forests averaged over, seeded 0, 1, 2 and so on.
    """
    frame = pl.read_parquet(path)
    points = np.ascontiguousarray(frame.drop("y").to_numpy(), np.float32)
    labels = frame["y"].cast(pl.Boolean).to_numpy()
    _forest(points.shape[1], 0).advance(points[: 2 * _BLOCK_ROWS], 0)
    begun = time.process_time()
    scores = [_forest(points.shape[1], seed).advance(points, 0).nats for seed in range(seeds)]
    seconds = time.process_time() - begun
    return StreamedFigures(
        auc=float(np.mean([protocol.roc_auc(labels, one) for one in scores])),
        ap=float(np.mean([protocol.average_precision(labels, one) for one in scores])),
        rows_per_second=seeds * len(points) / seconds,
    )


def rows_per_second(features: int = _FEATURES, rows: int = _ROWS) -> float:
    """Measure the online forest on log-normal noise, in one core's time.

    Args:
        features: as wide as a frame with a few kinds of entities.
        rows: how many.
    """
    noise: Inputs = np.random.default_rng(0).lognormal(size=(rows, features)).astype(np.float32)
    _forest(features, 0).advance(noise[: 2 * _BLOCK_ROWS], 0)
    begun = time.process_time()
    _forest(features, 0).advance(noise, 0)
    return rows / (time.process_time() - begun)


def _forest(features: int, seed: int) -> Forest:
    return Forest(features, _BLOCK_ROWS, _BLOCK_DECAY, seed)
