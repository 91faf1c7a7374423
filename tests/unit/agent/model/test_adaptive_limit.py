"""How many requests at a time an endpoint is given."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from agent.model.adaptive_limit import AdaptiveLimit
from agent.model.circuit_breaker import CircuitBreaker
from agent.model.llm_client import LlmClient
from schemas.llm import Llm
from streaming.testing import picky_llm as picky
from streaming.testing import scripted_llm as scripted
from streaming.testing.drivers import wait_until
from tests.unit.agent.model.test_llm_client import question, reason_of


def test_it_halves_once_for_requests_that_were_under_way_together_and_grows_back_by_one_a_round() -> None:
    limit = AdaptiveLimit(8)
    numbers = [limit.begin() for _ in range(8)]
    for number in numbers:
        limit.overloaded(number)
    assert limit.now == 4
    limit.overloaded(limit.begin())
    assert limit.now == 2
    sizes = []
    for _ in range(8):
        for _ in range(limit.now):
            limit.answered()
        sizes.append(limit.now)
    assert sizes == sorted(sizes)
    assert sizes[-1] == 8


@given(st.integers(1, 64), st.lists(st.booleans(), max_size=200))
def test_it_stays_between_one_and_the_ceiling(ceiling: int, answered: list[bool]) -> None:
    limit = AdaptiveLimit(ceiling)
    for each in answered:
        number = limit.begin()
        limit.answered() if each else limit.overloaded(number)
        assert 1 <= limit.now <= ceiling


class Watched:
    """A server that refuses its first request for its rate, and counts how many are there at once."""

    def __init__(self) -> None:
        self._lock, self._first = threading.Lock(), True
        self.at_once = self.most = 0

    def __call__(self, request: scripted.LlmRequest) -> scripted.LlmReply:
        with self._lock:
            first, self._first = self._first, False
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        reply = scripted.fails(429, retry_after="0.01")(request) if first else picky.as_asked(request)
        with self._lock:
            self.at_once -= 1
        return reply


@contextmanager
def client(server: scripted.ScriptedLlm, concurrency: int) -> Iterator[LlmClient]:
    llm = Llm(deadline=timedelta(seconds=60), max_concurrency=concurrency)
    with LlmClient(llm, base_url=server.base_url, breaker=CircuitBreaker(1_000)) as asking:
        yield asking


def test_a_refusal_for_the_rate_halves_what_is_asked_at_a_time_though_a_retry_is_answered() -> None:
    watched = Watched()
    with scripted.scripted_llm(default=watched) as server, client(server, 2) as asking:
        assert asking.capacity == 2
        assert reason_of(asking.ask([question()], 60)[0]) == "answered"
        asking._at_a_time.overloaded(asking._at_a_time.begin())
        assert asking.capacity == 1
        watched.most = 0
        outcomes = asking.ask([question(each) for each in range(6)], 60)
        assert [reason_of(each) for each in outcomes] == ["answered"] * 6
        assert watched.most == 1
        assert asking.capacity == 2, "and answers raise it again"


def test_the_first_of_two_refused_leaves_half() -> None:
    with scripted.scripted_llm(default=Watched()) as server, client(server, 8) as asking:
        asking.ask([question(each) for each in range(2)], 60)
        assert asking.capacity == 4


def test_a_request_that_is_lost_counts_as_well() -> None:
    with scripted.scripted_llm(scripted.hang()) as server, client(server, 8) as asking:
        assert reason_of(asking.ask([question()], 0.3)[0]) == "timeout"
        # The request is given up beside whoever waited for it.
        wait_until(lambda: asking.capacity == 4, 30, "half of what was asked at a time")
