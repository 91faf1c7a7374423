"""What no score reaches that has seen no labels: the figures that competitors are measured against."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from schemas.errors import ConfigurationError
from streaming.labels.judged_rows import JudgedRows
from streaming.learning import protocol
from streaming.learning.protocol import Figures

_CEILING_SEEDS = 5


def label_free_ceiling(rows: JudgedRows, blind_scenario: int, seeds: int = _CEILING_SEEDS) -> Figures:
    """Return what scores reach that find every fraud but one kind, and that kind by chance alone.

    Frauds of `blind_scenario` look like any other transaction until labels arrive, so a label-free score
    clearly above this has seen labels. Each random order is used together with its mirror image, which makes
    the AUC of the blind scenario exactly 1/2.

    Args:
        rows: the test week; its scores are not read.
        blind_scenario: the kind of fraud that rows alone do not show.
        seeds: random orders averaged over, seeded 0, 1, 2 and so on.

    Raises:
        ConfigurationError: scenarios are unknown, or the week cannot be judged.
    """
    if rows.scenarios is None:
        raise ConfigurationError("a label-free ceiling needs the scenario of each fraud")
    if seeds < 1:
        raise ConfigurationError(f"expected at least 1, found {seeds}", key="seeds")
    seen = 2.0 * (rows.labels & (rows.scenarios != blind_scenario))
    orders = [np.random.default_rng(seed).random(len(rows)) for seed in range(seeds)]
    means = protocol.mean_figures(
        [protocol.figures(rows.scored(seen + side * order)) for order in orders for side in (1, -1)]
    )
    return replace(means, frauds=int(np.count_nonzero(rows.labels)), rows=len(rows))
