"""Executors get some time after a stop was asked for, and are given up then."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from streaming.run.bucket_jobs import StopPatience


def rising(moments: list[float]) -> Iterator[float]:
    yield from moments
    while True:
        yield moments[-1]


def test_work_is_given_up_when_patience_ends_after_a_stop() -> None:
    stop, given_up, seen = threading.Event(), threading.Event(), list[float]()
    stop.set()
    moments = rising([100.0, 100.0, 109.9, 110.0])

    def clock() -> float:
        seen.append(next(moments))
        return seen[-1]

    patience = StopPatience(stop, 10.0, clock)
    with patience.over(given_up.set):
        assert given_up.wait(60)
    assert patience.has_ended
    assert seen == [100.0, 100.0, 109.9, 110.0]


def test_what_comes_later_gets_no_patience_of_its_own() -> None:
    stop, first, second = threading.Event(), threading.Event(), threading.Event()
    stop.set()
    patience = StopPatience(stop, 0.0)
    with patience.over(first.set):
        assert first.wait(60)
    with patience.over(second.set):
        assert second.wait(60)


def test_without_a_stop_nobody_is_given_up() -> None:
    asked, given_up = threading.Event(), list[bool]()

    class Never(threading.Event):
        def is_set(self) -> bool:
            asked.set()
            return False

    patience = StopPatience(Never(), 0.0)
    with patience.over(lambda: given_up.append(True)):
        assert asked.wait(60)
    assert not given_up
    assert not patience.has_ended
