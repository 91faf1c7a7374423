from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.arrays.cores import Cores

POOLS = {threads: Cores(threads, rows_worth_threads=1) for threads in (1, 2, 3, 8)}
THREADS = st.sampled_from([*POOLS])


@given(THREADS, st.lists(st.integers(), max_size=40))
def test_results_stand_in_the_order_of_the_arguments(threads: int, arguments: list[int]) -> None:
    assert POOLS[threads].each(lambda each: each * 2, arguments, 40) == [2 * each for each in arguments]


@given(THREADS, st.integers(0, 10_000), st.integers(1, 5000))
def test_spans_make_up_all_rows_once_and_in_order(threads: int, rows: int, worth: int) -> None:
    spans = Cores(threads, worth).spans(rows)
    assert [row for span in spans for row in range(rows)[span]] == list(range(rows))
    assert len(spans) <= max(1, rows // worth)
    assert threads > 1 or len(spans) == 1


@given(THREADS, st.sets(st.integers(0, 30), min_size=1))
def test_the_first_argument_that_fails_is_raised_once_all_work_has_ended(
    threads: int, failing: set[int]
) -> None:
    ended = []

    def work(number: int) -> None:
        try:
            if number in failing:
                raise ValueError(number)
        finally:
            ended.append(number)

    with pytest.raises(ValueError, match=rf"^{min(failing)}$"):
        POOLS[threads].each(work, list(range(31)), 31)
    if threads > 1:
        assert sorted(ended) == list(range(31))


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_an_interruption_is_hidden_by_no_failure_and_ends_the_work(threads: int) -> None:
    failed, done = threading.Event(), []

    def work(number: int) -> None:
        done.append(number)
        if number == 0:
            failed.set()
            raise ValueError(number)
        failed.wait()
        if number == 1:
            raise KeyboardInterrupt
        threading.Event().wait(0.01)

    with pytest.raises(KeyboardInterrupt):
        POOLS[threads].each(work, list(range(1000)), 1000)
    assert len(done) < 1000


@pytest.mark.timeout(60)
@pytest.mark.parametrize("threads", [*POOLS])
def test_work_that_spreads_work_from_many_threads_at_once_ends(threads: int) -> None:
    """Every thread of the pool is busy with parts that have parts, and nobody waits for a free one."""
    cores = POOLS[threads]

    def summed(depth: int) -> int:
        return 1 if depth == 0 else sum(cores.each(summed, [depth - 1] * 4, 4))

    with ThreadPoolExecutor(8) as callers:
        assert list(callers.map(summed, [4] * 16)) == [4**4] * 16


@pytest.mark.timeout(60)
def test_two_threads_work_at_once() -> None:
    together = threading.Barrier(2)
    assert sorted(POOLS[2].each(lambda _: together.wait(), [0, 1], 2)) == [0, 1]


def test_few_rows_wake_nobody() -> None:
    names = Cores(4, 100).each(lambda _: threading.current_thread().name, [0] * 8, 99)
    assert set(names) == {threading.current_thread().name}
