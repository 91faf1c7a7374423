"""The client against a real server: every outcome is a value, in time, and the key stays secret."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from agent.model.circuit_breaker import CircuitBreaker
from agent.model.llm_client import LlmClient
from agent.model.model_client import Completion, Failure, Question
from agent.model.prompt_files import Messages
from agent.triage.answers import answer_schema
from schemas.llm import Llm, RateLimits
from streaming.testing import scripted_llm as scripted
from streaming.testing.drivers import wait_until

KEY = "sk-very-secret-key"
GRACE_SECONDS = 0.25


def question(number: int = 0) -> Question:
    name = f"{number:06d}"
    data = json.dumps({name: {"alerts": 1, "examples": []}})
    return Question(
        Messages("Answer in JSON.", f"<data>{data}</data>"), answer_schema({name: ["alerts=1"]}), 160, 300
    )


@contextmanager
def client(
    base_url: str,
    *,
    concurrency: int = 2,
    breaker: CircuitBreaker | None = None,
    rate: RateLimits | None = None,
) -> Iterator[LlmClient]:
    limits = rate or RateLimits()
    llm = Llm(deadline=timedelta(seconds=1), max_concurrency=concurrency, base_url=base_url, rate=limits)
    with LlmClient(llm, api_key=SecretStr(KEY), breaker=breaker) as running:
        yield running


def reason_of(outcome: Completion | Failure) -> str:
    return outcome.reason if isinstance(outcome, Failure) else "answered"


def test_an_answer_comes_back_with_its_tokens_and_the_request_asks_for_determinism() -> None:
    with scripted.scripted_llm() as server, client(server.base_url) as asking:
        (outcome,) = asking.ask([question()], 5)
        body = server.requests[0].body
    assert isinstance(outcome, Completion)
    assert (outcome.input_tokens, outcome.output_tokens) == (100, 20)
    assert (body["temperature"], body["seed"], body["max_completion_tokens"]) == (0, 0, 160)
    assert body["response_format"]["json_schema"]["strict"] is True


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": None, "completion_tokens": None},
        {"total_tokens": 120},
        {"prompt_tokens": "100", "completion_tokens": 20},
        {"prompt_tokens": 100, "completion_tokens": 20.5},
        {"prompt_tokens": True, "completion_tokens": 20},
        {"prompt_tokens": -1_000_000_000, "completion_tokens": 20},
        {"prompt_tokens": 100, "completion_tokens": 10**30},
    ],
)
def test_counts_that_cannot_be_are_none(usage: dict[str, Any]) -> None:
    def step(request: scripted.LlmRequest) -> scripted.LlmReply:
        body = {**scripted.completion(scripted.classification(request)), "usage": usage}
        return scripted.LlmReply(body=body)

    with scripted.scripted_llm(default=step) as server, client(server.base_url) as asking:
        (outcome,) = asking.ask([question()], 5)
    assert isinstance(outcome, Completion)
    assert (outcome.input_tokens, outcome.output_tokens) == (0, 0)


def test_an_answer_in_parts_is_of_no_use() -> None:
    body = scripted.completion("")
    body["choices"][0]["message"]["content"] = [{"type": "text", "text": "{}"}]
    with (
        scripted.scripted_llm(default=lambda _: scripted.LlmReply(body=body)) as server,
        client(server.base_url) as asking,
    ):
        assert reason_of(asking.ask([question()], 5)[0]) == "invalid_json"


def test_connections_live_from_batch_to_batch() -> None:
    with scripted.scripted_llm() as server, client(server.base_url, concurrency=1) as asking:
        for batch in range(3):
            asking.ask([question(batch), question(batch + 10)], 5)
        assert (len(server.requests), server.connections) == (6, 1)


def test_answers_stand_in_the_place_of_their_questions() -> None:
    with scripted.scripted_llm() as server, client(server.base_url, concurrency=4) as asking:
        outcomes = asking.ask([question(number) for number in range(9)], 5)
    found = [
        f"{number:06d}" in outcome.text
        for number, outcome in enumerate(outcomes)
        if isinstance(outcome, Completion)
    ]
    assert found == [True] * 9


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (scripted.truncated(), "truncated"),
        (scripted.refused(), "refused"),
        (scripted.filtered(), "refused"),
        (scripted.not_json(), "server_error"),
        (scripted.fails(500), "server_error"),
        (scripted.fails(429), "rate_limited"),
        (scripted.fails(400), "rejected"),
        (scripted.fails(401), "rejected"),
        (scripted.closed(), "unreachable"),
        (scripted.hang(), "timeout"),
    ],
)
def test_every_misbehaviour_has_a_name(step: scripted.LlmStep, reason: str) -> None:
    with scripted.scripted_llm(default=step) as server, client(server.base_url) as asking:
        # Only what hangs needs the deadline: on a busy machine others must not meet it.
        seconds = 0.5 if reason == "timeout" else 30.0
        assert reason_of(asking.ask([question()], seconds)[0]) == reason


def test_a_server_that_is_not_there_is_unreachable_at_once() -> None:
    with scripted.nobody_listening() as base_url, client(base_url) as asking:
        started = time.monotonic()
        assert reason_of(asking.ask([question()], 10)[0]) == "unreachable"
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "step", [scripted.fails(429, retry_after="0.05"), scripted.fails(503), scripted.closed()]
)
def test_a_passing_fault_is_tried_again(step: scripted.LlmStep) -> None:
    with scripted.scripted_llm(step) as server, client(server.base_url) as asking:
        assert reason_of(asking.ask([question()], 5)[0]) == "answered"
        assert len(server.requests) == 2


@pytest.mark.parametrize("wait", ["nan", "-1", "soon"])
def test_a_retry_after_that_says_no_time_is_none(wait: str) -> None:
    with (
        scripted.scripted_llm(scripted.fails(429, retry_after=wait)) as server,
        client(server.base_url) as asking,
    ):
        assert reason_of(asking.ask([question()], 5)[0]) == "answered"


def test_retry_after_is_honoured_and_beyond_the_deadline_not_waited_for() -> None:
    with (
        scripted.scripted_llm(scripted.fails(429, retry_after="0.4")) as server,
        client(server.base_url) as asking,
    ):
        started = time.monotonic()
        assert reason_of(asking.ask([question()], 5)[0]) == "answered"
        assert time.monotonic() - started >= 0.4
    with (
        scripted.scripted_llm(scripted.fails(429, retry_after="60")) as server,
        client(server.base_url) as asking,
    ):
        started = time.monotonic()
        assert reason_of(asking.ask([question()], 30)[0]) == "rate_limited"
        assert time.monotonic() - started < 15
        assert len(server.requests) == 1


def test_a_refused_option_is_left_out_from_then_on() -> None:
    script = [scripted.fails(400, param="temperature"), scripted.fails(400, param="max_completion_tokens")]
    with scripted.scripted_llm(*script) as server, client(server.base_url) as asking:
        assert reason_of(asking.ask([question()], 5)[0]) == "answered"
        asking.ask([question(1)], 5)
        last = server.requests[-1].body
    assert len(server.requests) == 4
    assert "temperature" not in last
    assert "max_completion_tokens" not in last
    assert last["max_tokens"] == 160


@pytest.mark.parametrize(
    "step", [scripted.hang(), scripted.slow(30), scripted.fails(503, retry_after="0.01")]
)
def test_one_deadline_holds_for_all_questions_together(step: scripted.LlmStep) -> None:
    steady = CircuitBreaker(failures=1000)
    with scripted.scripted_llm(default=step) as server, client(server.base_url, breaker=steady) as asking:
        started = time.monotonic()
        outcomes = asking.ask([question(number) for number in range(40)], 0.3)
        elapsed = time.monotonic() - started
    assert elapsed < 0.3 + GRACE_SECONDS
    assert len(outcomes) == 40
    # Whether the last answer of a busy server still leaves time to come back is a matter of milliseconds.
    assert {reason_of(outcome) for outcome in outcomes} <= {"timeout", "server_error", "rate_limited"}


def test_what_never_went_out_is_told_apart_from_what_was_abandoned() -> None:
    with scripted.scripted_llm(default=scripted.hang()) as server, client(server.base_url) as asking:
        outcomes = asking.ask([question(number) for number in range(5)], 0.3)
    assert [outcome.sent for outcome in outcomes if isinstance(outcome, Failure)] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_answers_that_came_in_time_are_kept_when_others_hang() -> None:
    with scripted.scripted_llm(scripted.hang()) as server, client(server.base_url) as asking:
        outcomes = asking.ask([question(number) for number in range(6)], 0.6)
    assert sorted(map(reason_of, outcomes)) == ["answered"] * 5 + ["timeout"]


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_the_circuit_opens_tries_once_and_closes_again() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=3, pause=30, clock=clock)
    down = [scripted.fails(401)] * 4
    with (
        scripted.scripted_llm(*down) as server,
        client(server.base_url, concurrency=1, breaker=breaker) as asking,
    ):
        first = asking.ask([question(number) for number in range(5)], 5)
        assert [reason_of(outcome) for outcome in first] == ["rejected"] * 3 + ["circuit_open"] * 2
        assert [reason_of(each) for each in asking.ask([question(9)], 5)] == ["circuit_open"]
        clock.seconds = 30
        trial = asking.ask([question(number) for number in range(3)], 5)
        assert [reason_of(outcome) for outcome in trial] == ["rejected", "circuit_open", "circuit_open"]
        clock.seconds = 89
        assert reason_of(asking.ask([question()], 5)[0]) == "circuit_open"
        clock.seconds = 90
        assert [reason_of(each) for each in asking.ask([question(1), question(2)], 5)] == ["answered"] * 2
        assert breaker.closed
        assert len(server.requests) == 6


def test_poor_answers_do_not_open_the_circuit() -> None:
    with scripted.scripted_llm(default=scripted.refused()) as server, client(server.base_url) as asking:
        asking.ask([question(number) for number in range(8)], 5)
        assert (len(server.requests), asking.breaker.closed) == (8, True)


def test_the_pause_between_trials_doubles_up_to_ten_minutes() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=1, pause=30, clock=clock)
    breaker.note(healthy=False)
    for pause in (30, 60, 120, 240, 480, 600, 600):
        clock.seconds += pause - 1
        assert not breaker.trial_due
        clock.seconds += 1
        assert breaker.trial_due
        breaker.note(healthy=False)


def test_the_key_is_sent_and_shows_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    script = [scripted.fails(401), scripted.fails(500), scripted.not_json()]
    with scripted.scripted_llm(*script) as server, client(server.base_url) as asking:
        outcomes = [asking.ask([question(number)], 5) for number in range(4)]
        seen = f"{asking!r} {asking!s} {outcomes!r}"
        assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in server.requests)
    assert caplog.records
    assert KEY not in caplog.text + seen


def test_closing_with_a_question_outstanding_ends_the_thread() -> None:
    before = threading.active_count()
    with scripted.scripted_llm(default=scripted.hang()) as server:
        with client(server.base_url) as asking:
            asking.ask([question()], 0.05)
            asking.close()
        names = [thread.name for thread in threading.enumerate()]
    assert "llm-client" not in names
    # The server's own thread for the request may still end.
    wait_until(lambda: threading.active_count() <= before, 30, "its threads to end")


def test_what_is_being_asked_can_be_abandoned_from_another_thread() -> None:
    arrived = threading.Event()

    def hang(request: scripted.LlmRequest) -> scripted.LlmReply:
        arrived.set()
        return scripted.hang()(request)

    with scripted.scripted_llm(default=hang) as server, client(server.base_url) as asking:

        def abandon() -> None:
            assert arrived.wait(60)
            asking.abandon()

        other = threading.Thread(target=abandon)
        other.start()
        begun = time.monotonic()
        first, later = asking.ask([question()], 60), asking.ask([question()], 60)
        assert time.monotonic() - begun < 30
        other.join()
        assert [reason_of(outcome) for outcome in (*first, *later)] == ["timeout"] * 2
        assert len(server.requests) == 1


@pytest.mark.parametrize("rate", [RateLimits(requests_per_minute=2), RateLimits(tokens_per_minute=700)])
def test_what_the_endpoint_would_refuse_is_not_sent_and_says_nothing_of_its_health(rate: RateLimits) -> None:
    breaker = CircuitBreaker(failures=1)
    with scripted.scripted_llm() as server, client(server.base_url, breaker=breaker, rate=rate) as asking:
        outcomes = asking.ask([question(number) for number in range(4)], 5)
        assert len(server.requests) == 2
    assert [reason_of(outcome) for outcome in outcomes] == ["answered"] * 2 + ["rate_limited"] * 2
    assert [each.sent for each in outcomes if isinstance(each, Failure)] == [False, False]
    assert breaker.closed


def test_a_retry_takes_a_turn_as_well() -> None:
    rate = RateLimits(requests_per_minute=1)
    with scripted.scripted_llm(scripted.fails(503)) as server, client(server.base_url, rate=rate) as asking:
        (outcome,) = asking.ask([question()], 5)
        assert len(server.requests) == 1
    assert (reason_of(outcome), isinstance(outcome, Failure) and outcome.sent) == ("server_error", True)
