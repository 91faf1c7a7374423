"""What a server lacks costs a few requests once, never an answer, and never the circuit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st
from pydantic import SecretStr

from agent.model.circuit_breaker import CircuitBreaker
from agent.model.endpoint_memory import EndpointMemory
from agent.model.llm_client import LlmClient
from agent.model.model_client import Completion, Failure, Question
from agent.model.negotiation import (
    MOST_LESSONS,
    THINKING_TOKENS,
    Negotiation,
    Offer,
    SentWith,
    ServerFeatures,
)
from agent.model.server_faults import NOT_COMPATIBLE, ServerFault, read_fault
from agent.triage.answers import Answer, answers_of
from schemas.llm import Llm
from streaming.testing import picky_llm as picky
from streaming.testing import scripted_llm as scripted
from tests.unit.agent.model.test_llm_client import question, reason_of

SECONDS = 30.0


@contextmanager
def client(base_url: str, *, failures: int = 1, concurrency: int = 1, **given: Any) -> Iterator[LlmClient]:
    """A client whose circuit opens with the first failure that counts."""
    llm = Llm(base_url=base_url, max_concurrency=concurrency)
    with LlmClient(llm, breaker=CircuitBreaker(failures), **given) as running:
        yield running


def is_answered(outcome: Completion | Failure, number: int = 0) -> bool:
    """Whether it holds a classification that passes every check."""
    if isinstance(outcome, Failure):
        return False
    name = f"{number:06d}"
    return isinstance(answers_of(outcome.text, {name: ["alerts=1"]})[name], Answer)


LACKING = st.builds(
    picky.Lacking,
    forms=st.sampled_from(
        [
            frozenset(),
            frozenset({"json_schema"}),
            frozenset({"json_object"}),
            frozenset({"json_schema", "json_object"}),
        ]
    ),
    options=st.builds(
        lambda sampling, limits: frozenset(sampling) | limits,
        st.sets(st.sampled_from(["temperature", "seed"])),
        st.sampled_from(
            [
                frozenset(),
                frozenset({"max_completion_tokens"}),
                frozenset({"max_tokens"}),
                frozenset({"max_completion_tokens", "max_tokens"}),
            ]
        ),
    ),
    system_role=st.booleans(),
    most_tokens=st.sampled_from([None, 100]),
)


@dataclass
class Changing:
    """A server that takes another step in each example."""

    step: scripted.LlmStep = picky.as_asked

    def __call__(self, request: scripted.LlmRequest) -> scripted.LlmReply:
        return self.step(request)


CHANGING = Changing()


@pytest.fixture(scope="module")
def changing() -> Iterator[tuple[scripted.ScriptedLlm, LlmClient]]:
    """One server and one client for all examples: making a client takes longer than asking."""
    with scripted.scripted_llm(default=CHANGING) as server, client(server.base_url) as asking:
        yield server, asking


@pytest.mark.long
@tried(max_examples=30, deadline=None)
@given(LACKING, st.sampled_from(picky.SAYINGS), st.sampled_from([400, 422, 404, 500]))
def test_whatever_a_server_lacks_and_however_it_says_so_an_answer_comes(
    changing: tuple[scripted.ScriptedLlm, LlmClient],
    lacking: picky.Lacking,
    saying: picky.Saying,
    status: int,
) -> None:
    server, asking = changing
    CHANGING.step = picky.picky(lacking, saying, status)
    asking._endpoint._negotiation, asking._breaker = Negotiation(), CircuitBreaker(1)
    before = len(server.requests)
    (first,) = asking.ask([question()], SECONDS)
    met = len(server.requests) - before
    (second,) = asking.ask([question(1)], SECONDS)
    assert is_answered(first), first
    assert is_answered(second, 1), second
    lacks = len(lacking.forms) + len(lacking.options) + lacking.system_role
    lacks += lacking.most_tokens is not None
    assert met <= 1 + lacks <= 1 + MOST_LESSONS
    assert len(server.requests) - before == met + 1, "what was learned is remembered"
    assert asking.breaker.closed


@pytest.mark.parametrize("vendor", picky.VENDORS)
def test_servers_that_exist_answer(vendor: str) -> None:
    with scripted.scripted_llm(default=picky.VENDORS[vendor]) as server, client(server.base_url) as asking:
        outcomes = [asking.ask([question(number)], SECONDS)[0] for number in range(3)]
        # One that passes over the form of an answer shows that only by an answer without one.
        first = 1 if vendor == "anthropic" else 0
        assert all(is_answered(each, number) for number, each in list(enumerate(outcomes))[first:]), outcomes
        assert asking.breaker.closed
        assert len(server.requests) <= 8


# What servers have been seen to say, word for word: what they refuse, status and body, the requests it costs.
SEEN: dict[str, tuple[Callable[[dict[str, Any]], bool], int, dict[str, Any], int]] = {
    "no json_schema": (
        lambda body: body.get("response_format", {}).get("type") == "json_schema",
        400,
        {"error": {"message": "response_format type unavailable", "param": None}},
        1,
    ),
    "no form at all": (
        lambda body: "response_format" in body,
        400,
        {"error": {"message": "response_format type unavailable", "param": None}},
        2,
    ),
    "unknown option": (
        lambda body: "max_completion_tokens" in body,
        422,
        {"message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"]}]}},
        1,
    ),
    "no system role": (
        lambda body: body["messages"][0]["role"] == "system",
        400,
        {"object": "error", "message": "System role not supported", "param": None},
        1,
    ),
}


@pytest.mark.parametrize("seen", SEEN)
def test_refusals_that_servers_have_been_seen_to_send_are_learned_from_once(seen: str) -> None:
    refuses, status, refusal, costs = SEEN[seen]

    def step(request: scripted.LlmRequest) -> scripted.LlmReply:
        if refuses(request.body):
            return scripted.LlmReply(status, refusal)
        return picky.as_asked(request)

    with scripted.scripted_llm(default=step) as server, client(server.base_url) as asking:
        for number in range(2):
            assert is_answered(asking.ask([question(number)], SECONDS)[0], number)
        assert len(server.requests) == 2 + costs
        assert asking.breaker.closed


def test_questions_side_by_side_learn_together() -> None:
    lacking = picky.Lacking(frozenset({"json_schema"}), frozenset({"seed", "temperature"}), system_role=True)
    with (
        scripted.scripted_llm(default=picky.picky(lacking)) as server,
        client(server.base_url, concurrency=8) as asking,
    ):
        outcomes = asking.ask([question(number) for number in range(24)], SECONDS)
        assert all(is_answered(each, number) for number, each in enumerate(outcomes))
        assert asking.breaker.closed
        assert len(server.requests) <= 24 + 8 * 4


def test_a_refusal_without_a_word_is_met_with_the_plainest_request_there_is() -> None:
    def opaque(request: scripted.LlmRequest) -> scripted.LlmReply:
        if "response_format" in request.body or request.body["messages"][0]["role"] == "system":
            return scripted.LlmReply(400, {"error": {"message": "Bad Request"}})
        return picky.as_asked(request)

    with scripted.scripted_llm(default=opaque) as server, client(server.base_url) as asking:
        assert is_answered(asking.ask([question()], SECONDS)[0])
        assert is_answered(asking.ask([question(1)], SECONDS)[0], 1)
        assert len(server.requests) == 3


def test_one_bad_question_changes_nothing_for_the_others() -> None:
    step = scripted.depending("000001", scripted.fails(400))
    with scripted.scripted_llm(default=step) as server, client(server.base_url, failures=9) as asking:
        outcomes = [asking.ask([question(number)], SECONDS)[0] for number in range(3)]
        assert [reason_of(each) for each in outcomes] == ["answered", "rejected", "answered"]
        assert asking.features == ServerFeatures()
        assert len(server.requests) == 3


def test_a_question_longer_than_the_context_says_nothing_of_the_server() -> None:
    words = "This model's maximum context length is 512 tokens. However, you requested 700 tokens "
    words += "(540 in the messages, 160 in max_completion_tokens)."
    body = {"error": {"message": words, "type": "BadRequestError", "param": None, "code": 400}}
    with (
        scripted.scripted_llm(default=lambda _: scripted.LlmReply(400, body)) as server,
        client(server.base_url) as asking,
    ):
        assert reason_of(asking.ask([question()], SECONDS)[0]) == "rejected"
        assert (asking.breaker.closed, asking.features, len(server.requests)) == (True, ServerFeatures(), 1)


def test_a_schema_whose_bounds_are_refused_goes_without_them() -> None:
    def strict(request: scripted.LlmRequest) -> scripted.LlmReply:
        if "minItems" in json.dumps(request.body["response_format"]):
            words = "Invalid schema for response_format 'answer': 'minItems' is not permitted."
            return scripted.LlmReply(400, {"error": {"message": words, "param": "response_format"}})
        return picky.as_asked(request)

    with scripted.scripted_llm(default=strict) as server, client(server.base_url) as asking:
        assert is_answered(asking.ask([question()], SECONDS)[0])
        assert (asking.features.form, asking.features.bounds) == ("json_schema", False)
        assert server.requests[-1].body["response_format"]["json_schema"]["strict"] is True


def afforded(most: int) -> tuple[Question, list[int]]:
    """A question for which so many more tokens can be paid, and what was asked for."""
    wanted: list[int] = []

    def affords(tokens: int) -> bool:
        wanted.append(tokens)
        return tokens <= most

    plain = question()
    return Question(plain.messages, plain.schema, 160, 300, affords), wanted


def test_a_model_that_thinks_its_answer_away_is_given_room_once_and_from_then_on() -> None:
    with scripted.scripted_llm(default=picky.thinking(1_000)) as server, client(server.base_url) as asking:
        asked, wanted = afforded(10_000)
        (outcome,) = asking.ask([asked], SECONDS)
        assert is_answered(outcome)
        assert outcome.output_tokens == 160 + 20, "what was spent on thinking is on the bill"
        assert wanted == [THINKING_TOKENS]
        assert asking.surcharge.thinking_tokens == THINKING_TOKENS
        asking.ask([question(1)], SECONDS)
        limits = [each.body["max_completion_tokens"] for each in server.requests]
    assert limits == [160, 160 + THINKING_TOKENS, 160 + THINKING_TOKENS]


def test_room_to_think_that_cannot_be_paid_is_not_taken_yet_known() -> None:
    with scripted.scripted_llm(default=picky.thinking(1_000)) as server, client(server.base_url) as asking:
        asked, _ = afforded(100)
        assert reason_of(asking.ask([asked], SECONDS)[0]) == "truncated"
        assert len(server.requests) == 1
        assert asking.surcharge.thinking_tokens == THINKING_TOKENS, "the next question sets it aside"
        assert asking.breaker.closed


def test_a_model_that_thinks_on_and_on_is_asked_twice_and_the_key_is_named() -> None:
    with scripted.scripted_llm(default=picky.thinking(10**6)) as server, client(server.base_url) as asking:
        asked, _ = afforded(10**6)
        assert reason_of(asking.ask([asked], SECONDS)[0]) == "truncated"
        assert len(server.requests) == 2
        assert "llm.max_output_tokens" in asking.trouble


@pytest.mark.parametrize(
    "said",
    [
        "```json\n{}\n```",
        "Here you are:\n```\n{}\n```\nAnything else?",
        '<think>hmm, maybe {{"g": 1}}</think>\n{}\nDone.',
        "hmm\n</think>{}",
        "\n{}",
    ],
)
def test_the_one_object_in_what_is_said_is_taken(said: str) -> None:
    step = scripted.answers(
        lambda request: (
            said.format(scripted.classification(request))
            if "{{" in said
            else said.replace("{}", scripted.classification(request))
        )
    )
    with scripted.scripted_llm(default=step) as server, client(server.base_url) as asking:
        assert is_answered(asking.ask([question()], SECONDS)[0])


def test_of_two_objects_neither_is_taken() -> None:
    step = scripted.answers(lambda request: scripted.classification(request) * 2)
    with scripted.scripted_llm(default=step) as server, client(server.base_url) as asking:
        (outcome,) = asking.ask([question()], SECONDS)
        assert not is_answered(outcome)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": {"code": 429, "message": "slow down"}}, "rate_limited"),
        ({"error": {"code": "429", "message": "slow down"}}, "rate_limited"),
        ({"error": {"type": "rate_limit_error"}}, "rate_limited"),
        ({"error": {"code": 503, "message": "later"}}, "server_error"),
        ({"error": "something"}, "server_error"),
        ({"error": {"code": "invalid_api_key"}}, "rejected"),
        ({"error": {"code": "content_filter", "type": None}}, "refused"),
        ({"object": "error", "message": "no", "code": 400}, "rejected"),
        ([{"error": {"code": 400, "message": "no"}}], "rejected"),
        ({"choices": [{"finish_reason": "error", "error": {"code": 502}}]}, "server_error"),
    ],
)
def test_an_error_in_an_answer_of_200_counts_as_what_its_code_says(body: Any, reason: str) -> None:
    with (
        scripted.scripted_llm(default=lambda _: scripted.LlmReply(body=body)) as server,
        client(server.base_url, failures=9) as asking,
    ):
        assert reason_of(asking.ask([question()], SECONDS)[0]) == reason


@pytest.mark.parametrize("body", ["<html>sign in</html>", "", "[]", '"ok"', '{"status": "ok"}', "{" * 9_000])
def test_an_answer_of_no_such_protocol_is_the_server_s_fault_and_says_so(body: str) -> None:
    with (
        scripted.scripted_llm(default=lambda _: scripted.LlmReply(body=body)) as server,
        client(server.base_url) as asking,
    ):
        assert reason_of(asking.ask([question()], SECONDS)[0]) == "server_error"
        assert NOT_COMPATIBLE in asking.trouble
        assert not asking.breaker.closed


def test_azure_is_asked_by_deployment_version_and_a_header_of_its_own() -> None:
    step = picky.azure("triage-4o", "2024-10-21", "azure-key")
    with (
        scripted.scripted_llm(default=step) as server,
        client(
            server.base_url.removesuffix("/v1"),
            model="triage-4o",
            api_key=SecretStr("azure-key"),
            api_version="2024-10-21",
        ) as asking,
    ):
        assert is_answered(asking.ask([question()], SECONDS)[0])


NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Fri, 01 May 2026 12:00:20 GMT"}, 20.0),
        ({"retry-after": "Fri, 01 May 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
        ({"retry-after": "inf"}, 86_400.0),
        ({"retry-after": "nan"}, 0.0),
        ({"retry-after": "-1"}, 0.0),
        ({}, 0.0),
    ],
)
def test_how_long_a_server_asks_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert read_fault(429, {}, headers, NOW).wait == seconds


def test_an_account_without_quota_is_not_asked_again_at_once_and_says_what_to_do() -> None:
    step = scripted.fails(429, code="insufficient_quota")
    with scripted.scripted_llm(default=step) as server, client(server.base_url) as asking:
        assert reason_of(asking.ask([question()], SECONDS)[0]) == "rate_limited"
        assert len(server.requests) == 1
        assert "out of quota" in asking.trouble and "raise its limit" in asking.trouble


def test_trouble_ends_with_an_answer() -> None:
    with scripted.scripted_llm(scripted.fails(401)) as server, client(server.base_url, failures=9) as asking:
        asking.ask([question()], SECONDS)
        assert "llm.api_key_env" in asking.trouble
        assert is_answered(asking.ask([question(1)], SECONDS)[0], 1)
        assert asking.trouble == ""


def test_what_was_learned_outlives_the_process_and_is_tried_anew_a_week_later(tmp_path: Path) -> None:
    moment = [NOW]
    memory = EndpointMemory(tmp_path / "llm" / "endpoints.json", lambda: moment[0])
    lacking = picky.Lacking(frozenset({"json_schema"}), frozenset({"seed"}))
    with scripted.scripted_llm(default=picky.picky(lacking)) as server:
        for day, requests in ((0, 3), (1, 1), (6, 1), (8, 3)):
            moment[0] = NOW + timedelta(days=day)
            before = len(server.requests)
            with client(server.base_url, memory=memory) as asking:
                assert is_answered(asking.ask([question()], SECONDS)[0])
            assert len(server.requests) - before == requests, day
    (state,) = memory.states()
    assert state.features.said() == ["answers as json_object, the schema in the prompt", "without seed"]


WITHOUT_A_ZONE = b'[{"url": "u", "model": "m", "features": {}, "learned_at": "2026-01-01T00:00:00"}]'


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b'[{"url": 1}]', b"\xff", WITHOUT_A_ZONE])
def test_a_broken_memory_is_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "endpoints.json"
    file.write_bytes(content)
    assert EndpointMemory(file).states() == ()


def test_a_memory_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "llm").write_text("a file where the folder would be")
    lacking = picky.Lacking(options=frozenset({"seed"}))
    memory = EndpointMemory(tmp_path / "llm" / "endpoints.json")
    with (
        scripted.scripted_llm(default=picky.picky(lacking)) as server,
        client(server.base_url, memory=memory) as asking,
    ):
        assert is_answered(asking.ask([question()], SECONDS)[0])


@tried(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([400, 404, 422, 500, 401, 429, 503]),
            st.text("temperature seed max_tokens response_format system role 0123456789'", max_size=60),
            st.sampled_from(
                [
                    "",
                    "temperature",
                    "seed",
                    "max_tokens",
                    "max_completion_tokens",
                    "response_format",
                    "messages[0].role",
                ]
            ),
        ),
        min_size=40,
        max_size=40,
    )
)
def test_no_server_can_keep_a_negotiation_going(refusals: list[tuple[int, str, str]]) -> None:
    negotiation, lessons = Negotiation(), 0
    for status, message, param in refusals:
        offer: Offer | None = Offer(negotiation.features)
        while offer is not None:
            tried_with = SentWith(offer, offer.features.output_tokens(160))
            fault = ServerFault(status, named=(param,), message=message)
            offer = negotiation.refused(tried_with, fault)
            lessons += offer is not None
            assert lessons < 200
    assert negotiation.features.output_tokens(160) >= 16
