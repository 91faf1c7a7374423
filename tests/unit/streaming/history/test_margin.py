"""A flip is let pass only under the version, and at the score, that the alert itself has."""

from __future__ import annotations

from math import inf
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from streaming.batch.deciders import Decided
from streaming.history.replayed import Slice
from streaming.history.spans import Span


def slice_of(*versions: tuple[float, float]) -> Slice:
    """Return one row, of sequence 7, as versions with these scores and thresholds have judged it."""
    judged = [
        SimpleNamespace(scored=SimpleNamespace(score=np.array([score]), threshold=np.array([threshold])))
        for score, threshold in versions
    ]
    decided: Any = SimpleNamespace(judged=judged)
    return Slice(Span(7, 8), pa.table({}), cast(Decided, decided))


@pytest.mark.parametrize(
    ("versions", "score", "margin"),
    [
        ([(0.5, 0.5)], 0.5, 0.0),
        ([(0.75, 0.5)], 0.75, 0.25),
        ([(0.5, 0.5)], 0.99, inf),
        ([(0.99, 0.5), (0.75, 0.75)], 0.99, 0.49),
        ([(0.99, 0.5), (0.75, 0.75)], 0.75, 0.0),
        ([(0.5, 0.5)], float("nan"), inf),
    ],
)
def test_a_margin_is_that_of_the_alert_s_own_score(
    versions: list[tuple[float, float]], score: float, margin: float
) -> None:
    assert slice_of(*versions).margin(7, score) == pytest.approx(margin)
