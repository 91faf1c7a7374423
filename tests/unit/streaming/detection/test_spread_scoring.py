"""How many threads score a stream, and how it is cut, changes no bit of what lakes hold already."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.arrays.cores import Cores
from streaming.arrays.fingerprint import machine_fingerprint
from streaming.detection.scoring import Scorer
from tests.unit.busy_streams import (
    ENTITIES,
    busy_labels,
    busy_rows,
    busy_spec,
    digest_of,
    scored_bits,
    state_bits,
)

ROWS = 300
ARITHMETICS = (1, 2, 3)
POOLS = {threads: Cores(threads, rows_worth_threads=8) for threads in (1, 2, 3, 8)}
LONG_ROWS, LONG_CUTS = 1500, (7, 100, 111, 640, 641)
# Of the scorer that had one loop per kind and batch.
RECORDED = {
    1: "a74861636cf2e52edfa80e782c969377a14ea53e7a655eeb24d6cf266aea99d8",
    2: "a78383c67b766cfb43250b05ed2dd7acebfe2ef4dd39379f1d0dc8d4a8c03854",
    3: "5fe8ee5f77503c723edaee14b8715cc249e02e72d20108c300530582d2afeae4",
}
RECORDED_BY = "1-2850f3c4cbfd7eab"


def scorer(arithmetic: int, threads: int) -> Scorer:
    return Scorer(busy_spec(arithmetic), ENTITIES, refunds=True, cores=POOLS[threads])


def scored(
    arithmetic: int, seed: int, threads: int, cuts: Iterable[int]
) -> tuple[tuple[bytes, ...], list[bytes]]:
    scoring, rows = scorer(arithmetic, threads), busy_rows(ROWS, seed)
    return scored_bits(scoring, rows, busy_labels(rows, seed), cuts), state_bits(scoring)


@cache
def in_one_piece(arithmetic: int, seed: int) -> tuple[bytes, ...]:
    return scored(arithmetic, seed, 1, ())[0]


@pytest.mark.long
@given(
    st.sampled_from(ARITHMETICS),
    st.integers(0, 5),
    st.sampled_from([*POOLS]),
    st.lists(st.integers(1, ROWS - 1), max_size=12),
)
@settings(max_examples=30)
def test_no_cut_and_no_number_of_threads_changes_a_bit(
    arithmetic: int, seed: int, threads: int, cuts: list[int]
) -> None:
    found, state = scored(arithmetic, seed, threads, cuts)
    assert found == in_one_piece(arithmetic, seed)
    assert state == scored(arithmetic, seed, 1, cuts)[1]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_lakes_from_before_rows_were_shared_out_keep_their_bits(arithmetic: int, threads: int) -> None:
    if machine_fingerprint() != RECORDED_BY:
        pytest.skip("this machine computes other bits than the one of the recording")
    rows, scoring = busy_rows(LONG_ROWS, 5), scorer(arithmetic, threads)
    found = scored_bits(scoring, rows, busy_labels(rows, 6), LONG_CUTS)
    assert digest_of([*found, *state_bits(scoring)]) == RECORDED[arithmetic]
