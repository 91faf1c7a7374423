"""The online forest: what it finds, and that nothing but the rows and their order matters to it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.arrays.compilation import Codes, Floats
from streaming.detection.forest import Forest
from streaming.detection.forest_sample import RESERVOIR, Inputs

BLOCK = 256
DECAY = 0.5 ** (BLOCK / 8192)


class Seen(NamedTuple):
    raw: Floats
    nats: Floats
    leaders: Codes


def stream(rows: int, features: int = 3, seed: int = 0) -> Inputs:
    return np.random.default_rng(seed).normal(size=(rows, features)).astype(np.float32)


def a_forest(features: int = 3, seed: int = 0) -> Forest:
    return Forest(features, BLOCK, DECAY, seed)


def observed(forest: Forest, inputs: Inputs, cuts: Sequence[int] = (), first: int = 0) -> Seen:
    bounds = [0, *sorted(cuts), len(inputs)]
    parts = []
    for start, end in itertools.pairwise(bounds):
        outlook = forest.advance(inputs[start:end], first + start)
        forest.commit(outlook)
        parts.append((outlook.raw, outlook.nats, outlook.leaders))
    return Seen(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def same(left: Seen, right: Seen) -> bool:
    return all(one.tobytes() == other.tobytes() for one, other in zip(left, right, strict=True))


def saved_bytes(forest: Forest) -> dict[str, list[object]]:
    return {name: batch.to_pylist() for name, batch in forest.snapshot().items()}


ROWS = 3 * BLOCK + 100
INPUTS = stream(ROWS)
WHOLE = observed(a_forest(), INPUTS)


@given(st.lists(st.integers(0, ROWS), max_size=8))
@settings(deadline=None, max_examples=40)
def test_any_cutting_gives_the_same_bits(cuts: list[int]) -> None:
    forest = a_forest()
    assert same(observed(forest, INPUTS, cuts), WHOLE)


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_blocks_of_any_length_cut_anywhere(block_rows: int) -> None:
    once, cut = (Forest(2, block_rows, 0.99, 5) for _ in range(2))
    inputs = stream(900, 2)
    assert same(observed(once, inputs), observed(cut, inputs, [1, 256, 257, 700]))
    assert saved_bytes(once) == saved_bytes(cut)


def test_the_first_forest_waits_for_a_sample() -> None:
    assert np.isnan(WHOLE.raw[:BLOCK]).all()
    assert (WHOLE.nats[:BLOCK] == 0.0).all()
    assert np.isfinite(WHOLE.raw[BLOCK:]).all()


@pytest.mark.parametrize("at", [0, 100, BLOCK, 2 * BLOCK + 31])
def test_a_restored_forest_goes_on_as_if_nothing_had_happened(at: int) -> None:
    forest, restored = a_forest(), a_forest()
    observed(forest, INPUTS[:at])
    restored.restore(forest.snapshot())
    assert same(observed(restored, INPUTS[at:], first=at), observed(forest, INPUTS[at:], first=at))
    assert saved_bytes(restored) == saved_bytes(forest)


def test_a_snapshot_is_left_alone() -> None:
    forest = a_forest()
    observed(forest, INPUTS[:BLOCK])
    snapshot = forest.snapshot()
    before = {name: batch.to_pylist() for name, batch in snapshot.items()}
    observed(forest, INPUTS[BLOCK:], first=BLOCK)
    assert {name: batch.to_pylist() for name, batch in snapshot.items()} == before


def test_an_attempt_that_is_not_committed_changes_nothing() -> None:
    forest = a_forest()
    forest.advance(INPUTS, 0)
    assert same(observed(forest, INPUTS), WHOLE)


def test_the_seed_decides() -> None:
    assert not same(observed(a_forest(seed=1), INPUTS), WHOLE)


def test_a_joint_outlier_stands_out_that_no_single_feature_shows() -> None:
    rng = np.random.default_rng(3)
    shared = rng.normal(size=20_000)
    inputs = np.column_stack([shared, shared + 0.05 * rng.normal(size=20_000)]).astype(np.float32)
    planted = np.arange(10_000, 20_000, 500)
    # Each value alone is within one standard deviation of the mean.
    inputs[planted] = [0.9, -0.9]
    nats = observed(a_forest(2), inputs).nats
    assert np.median(nats[planted]) > np.quantile(nats[10_000:], 0.995)


def test_noise_does_not_hide_a_joint_outlier() -> None:
    rng = np.random.default_rng(4)
    rows = 12_000
    high = np.arange(rows) // 72 % 2 == 0
    planted = np.arange(8_000, rows, 97)
    amounts = np.where(high ^ np.isin(np.arange(rows), planted), 7.0, 2.0) + 0.1 * rng.normal(size=rows)
    hours = np.where(high, 3.0, 15.0) + rng.normal(size=rows)
    inputs = np.column_stack([hours, amounts, *rng.normal(size=(6, rows))]).astype(np.float32)
    nats = observed(a_forest(8), inputs).nats
    assert np.median(nats[planted]) > np.quantile(nats[8_000:], 0.95)


def test_the_odd_feature_leads() -> None:
    inputs = stream(4_000, 4)
    inputs[3_500, 2] = 50.0
    seen = observed(a_forest(4), inputs)
    assert seen.leaders[3_500, 0] == 2
    assert seen.nats[3_500] > 5.0
    assert (seen.leaders[seen.nats < 3.0] == -1).all()


def test_stated_rarity_holds_or_is_understated() -> None:
    nats = observed(a_forest(), stream(60_000, seed=9)).nats[20_000:]
    for share in (0.1, 0.01, 0.002):
        assert share / 3.0 < np.mean(nats >= -np.log(share)) < 1.35 * share


def test_it_follows_a_stream_that_moves() -> None:
    inputs = stream(40_000)
    inputs[10_000:] += np.float32(20.0)
    nats = observed(a_forest(), inputs).nats
    assert nats[10_000:10_200].mean() > 5.0
    assert nats[-5_000:].mean() < 1.5


def test_units_do_not_matter() -> None:
    scaled = observed(a_forest(), INPUTS * np.float32([1024.0, 1.0, 2.0**-20]))
    np.testing.assert_allclose(scaled.raw, WHOLE.raw, rtol=1e-9, atol=1e-9)


def test_what_is_not_known_adds_nothing() -> None:
    inputs = stream(2_000, 2)
    inputs[:, 1] = np.nan
    alone, beside = observed(a_forest(1), inputs[:, :1]), observed(a_forest(2), inputs)
    assert not (beside.leaders == 1).any()
    assert np.isfinite(beside.raw[BLOCK:]).all()
    assert np.corrcoef(alone.raw[BLOCK:], beside.raw[BLOCK:])[0, 1] > 0.9
    nothing = observed(a_forest(2), np.full((2_000, 2), np.nan, np.float32))
    assert (nothing.nats == 0.0).all()


def test_infinite_values_count_as_unknown() -> None:
    inputs = stream(2_000)
    inputs[::7, 1] = np.inf
    unknown = np.where(np.isinf(inputs), np.float32(np.nan), inputs)
    assert same(observed(a_forest(), inputs), observed(a_forest(), unknown))


def test_constant_features_surprise_nobody() -> None:
    inputs = np.full((3_000, 3), 7.5, np.float32)
    assert (observed(a_forest(), inputs).nats == 0.0).all()


def test_memory_is_bounded() -> None:
    forest = a_forest()
    size = forest.nbytes
    observed(forest, stream(2 * RESERVOIR))
    assert forest.nbytes == size < 1_500_000


def test_extreme_values_stay_finite() -> None:
    inputs = stream(3_000)
    inputs[1_000:2_000:10] *= np.float32(1e37)
    inputs[2_500] = np.finfo(np.float32).max
    seen = observed(a_forest(), inputs)
    assert np.isfinite(seen.nats).all()
    assert np.isfinite(seen.raw[BLOCK:]).all()
