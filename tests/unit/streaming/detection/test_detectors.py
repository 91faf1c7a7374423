from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.arrays.compilation import Floats
from streaming.detection.detectors import (
    NOVELTY,
    RATE,
    DetectorInput,
    evidence,
    log_ratios,
    population_log_ratios,
    surprises,
)

HOUR, DAY = 3600.0, 86_400.0
PROPERTY = settings(deadline=None, derandomize=True, max_examples=200)


def detector_input(**changes: Any) -> DetectorInput:
    """One row of an entity with 30 transactions of 20 each, one a day; the population is alike."""
    values: dict[str, Any] = {
        "log_amounts": [3.0],
        "horizons": [HOUR, DAY, 30 * DAY],
        "counts": [[0.0, 1.0, 30.0]],
        "amounts": [[0.0, 20.0, 600.0]],
        "exposures": [300 * DAY],
        "weights": [1e5],
        "means": [3.0],
        "variances": [1.0],
        "within": [0.25],
        "rates": [1 / DAY],
        "first_seen": [0.01],
    }
    values.update(changes)
    arrays = {name: np.array(value, np.float64) for name, value in values.items()}
    peers = np.full(len(arrays["log_amounts"]), np.nan)
    return DetectorInput(first_sequence=0, block_rows=1024, peers=peers, **arrays)


def nats(**changes: Any) -> dict[str, float]:
    found: Floats = surprises(detector_input(**changes))
    return dict(zip((RATE, NOVELTY), found[0].tolist(), strict=True))


def test_a_usual_amount_is_the_entity_s_own_with_much_history() -> None:
    ratio = log_ratios(detector_input(log_amounts=[math.log(200.0)]))[0]
    assert math.exp(ratio) == pytest.approx(10.0, rel=0.01)


def test_new_entity_is_judged_by_the_population() -> None:
    new = {"counts": [[0.0, 0.0, 0.0]], "amounts": [[0.0, 0.0, 0.0]], "exposures": [-1.0]}
    assert log_ratios(detector_input(log_amounts=[5.0], **new))[0] == pytest.approx(2.0)
    assert population_log_ratios(detector_input(log_amounts=[5.0]))[0] == pytest.approx(2.0)


def test_nothing_is_compared_without_amount_entity_or_population() -> None:
    for changes in ({"log_amounts": [math.nan]}, {"exposures": [math.nan]}, {"weights": [0.0]}):
        assert math.isnan(log_ratios(detector_input(**changes))[0])
    assert math.isnan(population_log_ratios(detector_input(weights=[0.0]))[0])


def test_cold_start_and_row_without_entity_do_not_surprise() -> None:
    assert nats(weights=[0.0], rates=[0.0], exposures=[-1.0]) == {"rate": 0.0, "novelty": 0.0}
    assert nats(exposures=[math.nan]) == {"rate": 0.0, "novelty": 0.0}


def test_rate_is_the_chernoff_bound_less_the_choice_of_horizons() -> None:
    # 3 in the last hour, 27 in the month before, and 2 in the prior's 2 days.
    seen = nats(counts=[[3.0, 3.0, 30.0]])["rate"]
    behind = 2 + 30 - 3
    expected = behind / ((2 + 30) * DAY - HOUR) * HOUR
    bound = 3 * math.log(3 / expected) - (3 + behind) * math.log((3 + behind) / (expected + behind))
    assert seen == pytest.approx(bound - math.log(2), rel=1e-3)


def test_rate_bound_tends_to_the_poisson_one() -> None:
    # With a rate that is known well, n ln(n / lambda) - n + lambda.
    many = 3e7
    seen = nats(counts=[[0.0, many / 30 + 4000, many]], rates=[many / 30 / DAY])["rate"]
    expected = many / 30
    count = expected + 4000
    bound = count * math.log(count / expected) - count + expected
    assert seen == pytest.approx(bound - math.log(2), rel=0.1)


@given(st.floats(0, 1000), st.floats(0, 100))
@PROPERTY
def test_rate_surprise_grows_with_the_count(count: float, more: float) -> None:
    counts = [[count, 1000.0, 3000.0]], [[count + more, 1000.0, 3000.0]]
    less, greater = (nats(counts=given, rates=[100 / DAY])["rate"] for given in counts)
    assert less <= greater + 1e-9


def test_an_ordinary_pace_does_not_surprise() -> None:
    assert nats()["rate"] == 0.0


def test_chernoff_bound_holds_for_decayed_counts_of_a_poisson_stream() -> None:
    # Share of moments at which the bound says p or less must not exceed p.
    random = np.random.default_rng(5)
    gaps = random.exponential(HOUR / 3, 200_000)
    count, short = 0.0, []
    for gap in gaps:
        count *= math.exp(-gap / HOUR)
        short.append(count)
        count += 1.0
    rows = len(short)
    seen = detector_input(
        log_amounts=[0.0] * rows,
        horizons=[HOUR, 1e9],
        counts=np.column_stack([short, np.full(rows, 3e9 / HOUR)]),
        amounts=np.zeros((rows, 2)),
        exposures=[1e12] * rows,
        rates=[3 / HOUR],
    )._replace(block_rows=rows)
    found = surprises(seen)[1000:, 0]
    for level in (1.0, 2.0, 4.0):
        assert (found >= level).mean() <= math.exp(-level)
    assert (found > 1.0).any()


def test_novelty_is_the_surprise_of_a_new_entity() -> None:
    assert nats(exposures=[-1.0])["novelty"] == pytest.approx(math.log(100))
    assert nats()["novelty"] == 0.0


EXTREMES = st.fixed_dictionaries(
    {
        "log_amount": st.floats(-710, 710),
        "count": st.floats(0, 1e9),
        "recent": st.floats(0, 1e9),
        "paid": st.floats(0, 1e300),
        "exposure": st.floats(0, 1e14),
        "rate": st.floats(1e-15, 1e6),
        "variance": st.floats(1e-4, 1e5),
    }
)


@given(EXTREMES)
@PROPERTY
def test_surprises_are_finite_and_not_negative(row: dict[str, float]) -> None:
    changes = {
        "log_amounts": [row["log_amount"]],
        "counts": [[row["recent"], row["recent"] / 2, row["count"]]],
        "amounts": [[0.0, 0.0, row["paid"]]],
        "exposures": [row["exposure"]],
        "rates": [row["rate"]],
        "variances": [row["variance"]],
        "within": [max(row["variance"] / 7, 1e-4)],
    }
    assert all(math.isfinite(value) and value >= 0.0 for value in nats(**changes).values())
    assert math.isfinite(log_ratios(detector_input(**changes))[0])


def test_each_row_uses_its_own_blocks_population() -> None:
    seen = detector_input(
        log_amounts=[5.0, 5.0],
        counts=[[0.0, 0.0, 0.0]] * 2,
        amounts=[[0.0, 0.0, 0.0]] * 2,
        exposures=[-1.0, -1.0],
        weights=[10.0, 10.0],
        means=[3.0, 5.0],
        variances=[1.0, 1.0],
        within=[0.25, 0.25],
        rates=[1.0, 1.0],
        first_seen=[0.5, 0.25],
    )._replace(first_sequence=3, block_rows=4)
    assert log_ratios(seen).tolist() == pytest.approx([2.0, 0.0])
    assert surprises(seen)[:, 1].tolist() == pytest.approx([math.log(2), math.log(4)])


def test_evidence_names_the_numbers_behind_the_surprises() -> None:
    numbers = evidence(detector_input(counts=[[5.0, 5.0, 30.0]]), np.array([0]))[0]
    assert numbers.usual == pytest.approx(20.0, rel=0.01)
    assert (numbers.events, numbers.horizon) == (30.0, HOUR)
    assert numbers.recent == pytest.approx(5.0)
    assert numbers.expected == pytest.approx(27 / (32 * 24), rel=0.01)
    assert numbers.one_in == pytest.approx(100)
