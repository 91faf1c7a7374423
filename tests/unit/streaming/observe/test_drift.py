"""Drift is measured by the index of the books, in memory that is bounded, the same in any order and cut."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from streaming.observe.drift import CELLS, Drift, DriftSizes, Window, cells_of, stability_index
from streaming.observe.drift_watch import SCORE, DriftWatch, kept_figures

NUMBERS = st.floats(width=32, allow_nan=False)
NO_HITS = np.zeros(0, np.int64)
SIZES = DriftSizes(skipped=100, reference=1_000, recent=1_000)


@given(arrays.arrays(np.float32, st.integers(2, 60), elements=NUMBERS))
def test_larger_numbers_never_have_an_earlier_cell(values: np.ndarray) -> None:
    cells = cells_of(np.sort(values))
    assert (np.diff(cells) >= 0).all()
    assert cells.min() >= 0
    assert cells.max() < CELLS


def test_what_is_no_number_has_a_cell_of_its_own_and_both_zeros_are_one() -> None:
    nan, high, low, zero, minus = cells_of(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32))
    assert len({nan, high, low, zero}) == 4
    assert zero == minus
    assert cells_of(np.array([-np.nan], np.float32))[0] == nan


def normals(seed: int, count: int, shift: float = 0.0) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(shift, 1.0, (count, 1))).astype(np.float32)


def counted(values: np.ndarray) -> np.ndarray:
    window = Window(values.shape[1], 0)
    window.add(values, NO_HITS, len(values))
    return window.counts


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, 1.0])
def test_the_index_of_shifted_normals_is_near_its_theory(shift: float) -> None:
    """Of two normals of variance 1 the symmetric divergence is the squared shift; ten bins lose a part."""
    (found,) = stability_index(counted(normals(1, 40_000)), counted(normals(2, 40_000, shift)))
    assert 0.8 * shift**2 - 0.002 <= found <= 1.1 * shift**2 + 0.003


def test_the_index_is_the_formula_where_bins_are_plain() -> None:
    """Ten values that each hold a tenth of the reference are ten bins."""
    values = (2.0 ** np.arange(10)).astype(np.float32)
    then = np.repeat(values, 100)[:, None]
    counts = np.array([300, 20, 80, 100, 100, 100, 100, 50, 50, 100])
    now = np.repeat(values, counts)[:, None]
    (found,) = stability_index(counted(then), counted(now))
    expected = [(100 + 0.5) / (1_000 + 5)] * 10
    actual = [(count + 0.5) / (1_000 + 5) for count in counts]
    formula = sum((a - e) * math.log(a / e) for a, e in zip(actual, expected, strict=True))
    assert found == pytest.approx(formula, rel=1e-12)


@given(
    st.lists(st.integers(0, 50), min_size=4, max_size=4), st.lists(st.integers(0, 50), min_size=4, max_size=4)
)
def test_the_index_is_never_negative_and_zero_of_the_same(then: list[int], now: list[int]) -> None:
    rows = np.zeros((2, 1, CELLS), np.int64)
    for row, counts in zip(rows, (then, now), strict=True):
        row[0, 2100 : 2100 + 4 * 300 : 300] = counts
    assert stability_index(rows[0], rows[1])[0] >= 0.0
    assert stability_index(rows[0], rows[0])[0] == pytest.approx(0.0, abs=1e-12)


@given(st.permutations(range(300)), st.lists(st.integers(1, 299), unique=True, max_size=6))
def test_windows_are_the_same_in_any_order_and_however_they_are_cut(
    order: list[int], cuts: list[int]
) -> None:
    values = np.hstack([normals(3, 300), -normals(4, 300)])
    whole, parts = Window(2, 1), Window(2, 1)
    whole.add(values, np.array([7]), 300)
    for part in np.split(values[order], sorted(cuts)):
        parts.add(part, np.zeros(1, np.int64), len(part))
    assert (whole.counts == parts.counts).all()
    assert whole.events == parts.events == 300


def test_nothing_is_said_before_both_windows_are_known_and_drift_is_seen_afterwards() -> None:
    drift = Drift(["amount"], ["large"], SIZES)
    seen = []
    for number in range(30):
        shift = 0.0 if number < 20 else 1.0
        drift.add(normals(number, 100, shift), np.array([1 + 9 * (number >= 20)]), 1_000)
        found = stability_index(drift.reference.counts, drift.recent.counts)[0]
        seen.append(found if drift.is_known else None)
    assert seen[:15] == [None] * 15
    assert all(each is not None and each < 0.1 for each in seen[16:20])
    assert (seen[-1] or 0.0) > 0.5
    assert drift.reference.events == 1_000
    assert 500 <= drift.recent.events <= 1_000
    assert drift.recent.hits[0] / drift.recent.seen == pytest.approx(0.01)
    assert drift.reference.hits[0] / drift.reference.seen == pytest.approx(0.001)


def test_memory_does_not_grow() -> None:
    drift = Drift(["a", "b"], [], SIZES)
    for number in range(100):
        drift.add(np.hstack([normals(number, 100)] * 2), NO_HITS, 100)
    held = sum(window.counts.nbytes for window in drift.windows.values())
    assert held == 3 * 2 * CELLS * 8


def test_what_is_kept_is_measured_by_others_as_by_whoever_keeps_it(tmp_path: Path) -> None:
    file, drift = tmp_path / "drift" / "a.npz", Drift(["amount", SCORE], ["large"], SIZES)
    watch = DriftWatch(file, SIZES)
    watch._drift, watch._about = drift, json.dumps(["definition", drift.names, drift.rules])
    assert kept_figures(file, SIZES) is None
    for number in range(30):
        shift = 0.0 if number < 20 else 1.0
        values = np.hstack([normals(number, 100, shift), normals(number + 50, 100)])
        drift.add(values, np.array([1]), 100)
        if number in (0, 29):
            watch.keep()
            assert kept_figures(file, SIZES) == watch.figures()
    found = kept_figures(file, SIZES)
    assert found is not None
    assert found.features["amount"] > 0.5 > (found.score or 0.0)
    file.write_bytes(b"torn")
    assert kept_figures(file, SIZES) is None
