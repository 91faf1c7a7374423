"""No minute holds more requests or tokens than the endpoint admits."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.model.pacing import RequestPacer
from schemas.llm import RateLimits


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_requests_beyond_the_limit_wait_until_the_first_is_a_minute_old() -> None:
    clock = Clock()
    pace = RequestPacer(RateLimits(requests_per_minute=2), clock)
    assert [pace.take(1, 9999.0) for _ in range(5)] == [0, 0, 60, 60, 120]
    clock.seconds += 130
    assert [pace.take(1, 9999.0) for _ in range(2)] == [0, 50]


def test_tokens_count_as_well() -> None:
    clock = Clock()
    pace = RequestPacer(RateLimits(tokens_per_minute=100), clock)
    assert pace.take(60, 9999.0) == 0
    assert pace.take(40, 9999.0) == 0
    assert pace.take(1, 9999.0) == 60
    assert pace.take(101, 9999.0) is None


def test_who_would_be_late_takes_no_turn() -> None:
    clock = Clock()
    pace = RequestPacer(RateLimits(requests_per_minute=1), clock)
    assert pace.take(1, clock.seconds + 10) == 0
    assert pace.take(1, clock.seconds + 60) is None
    assert pace.take(1, clock.seconds + 61) == 60


def test_without_limits_nobody_waits() -> None:
    pace = RequestPacer(RateLimits(), Clock())
    assert {pace.take(10**9, 1001.0) for _ in range(100)} == {0}


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 50)), max_size=60))
def test_no_minute_holds_more_wherever_it_begins(requests: list[tuple[float, int]]) -> None:
    clock = Clock()
    pace = RequestPacer(RateLimits(requests_per_minute=5, tokens_per_minute=100), clock)
    turns = []
    for pause, tokens in requests:
        clock.seconds += pause
        wait = pace.take(tokens, 1e9)
        assert wait is not None
        turns.append((clock.seconds + wait, tokens))
    assert all(earlier[0] <= later[0] for earlier, later in pairwise(turns))
    for start, _ in turns:
        within = [tokens for at, tokens in turns if start <= at < start + 59.999]
        assert len(within) <= 5
        assert sum(within) <= 100
