"""Several models in order: the first one that is fit is asked, and its answers are kept under its name."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st

from agent.model.budget import SpendingBudget
from agent.model.circuit_breaker import CircuitBreaker
from agent.model.llm_client import LlmClient
from agent.model.model_client import Unasked
from agent.model.prompt_files import load_prompt
from agent.triage.disclosure import content_key
from agent.triage.late import Unanswered
from agent.triage.ledger import Ledger, MemoryLedger
from agent.triage.pseudonyms import Pseudonyms
from agent.triage.triage import Triage
from schemas.llm import Budget, Llm, PromptReference, TokenPrice
from schemas.policy import AllowedModel, Policy
from streaming.testing import scripted_llm as scripted
from tests.noted_ledger import NotedLedger
from tests.unit.agent.triage.test_triage import ROWS

NOW = datetime(2026, 5, 1, tzinfo=UTC)
NAMES = ("first", "second", "third")
LLM = Llm(
    deadline=timedelta(seconds=30),
    groups_per_request=1,
    budget=Budget(tokens_per_day=10**9, calls_per_batch=50),
    prices={"first": TokenPrice(input=1.0, output=1.0), "second": TokenPrice(input=1.0, output=10.0)},
)
QUOTA = scripted.fails(429, code="insufficient_quota")


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def policy(*names: str) -> Policy:
    models = tuple(AllowedModel(name=each, provenance="made for tests", region="here") for each in names)
    return Policy(policyName="some", allowedModels=models, allowedFields=("amount", "reasons"))


@contextmanager
def asking(
    urls: Sequence[str],
    *,
    ledger: Ledger | None = None,
    allowed: Sequence[str] = NAMES,
    clock: Clock | None = None,
) -> Iterator[Triage]:
    """Triage by as many models as there are addresses, in their order."""
    clock = clock or Clock()
    with ExitStack() as stack:
        clients: list[LlmClient] = []
        for name, url in reversed(list(zip(NAMES, urls, strict=False))):
            breaker = CircuitBreaker(1, clock=clock)
            client = LlmClient(
                LLM,
                model=name,
                base_url=url,
                breaker=breaker,
                clock=clock,
                fallbacks=clients if name == "first" else (),
            )
            clients.insert(0, stack.enter_context(client))
        yield Triage(
            LLM,
            load_prompt(PromptReference(), "amount: amount, number"),
            clients[0],
            ledger=ledger or MemoryLedger(),
            budget=SpendingBudget(LLM.budget, lambda: NOW),
            policy=policy(*allowed),
            pseudonyms=Pseudonyms(b"k" * 32),
            clock=clock,
        )


@pytest.mark.parametrize(
    "down", [QUOTA, scripted.fails(401), scripted.fails(503), scripted.not_json(), scripted.closed()]
)
def test_while_the_first_does_not_answer_the_next_one_does(down: scripted.LlmStep) -> None:
    ledger = NotedLedger()
    with (
        scripted.scripted_llm(default=down) as first,
        scripted.scripted_llm() as second,
        asking([first.base_url, second.base_url], ledger=ledger) as triage,
    ):
        result = triage.classify(ROWS)
        assert {(each.source, each.model) for each in result.classifications} == {("llm", "second")}
        again = triage.classify(ROWS)
        assert again.calls == 0, "what the second has answered is on record"
        assert again.classifications == tuple(
            each for each in again.classifications if each.model == "second"
        )
        assert len(second.requests) == 3
    assert result.cost == pytest.approx(3 * (100 * 1.0 + 20 * 10.0) / 1e6), "by the second one's price"
    answered = [each for each in ledger.intents if each.key in ledger.recorded([each.key])]
    assert [each.model for each in answered] == ["second"] * 3
    assert all(each.key == content_key("triage", 2, "second", each.canonical_input) for each in answered), (
        "the key names who gave the answer"
    )


def test_an_account_without_quota_costs_one_question_and_none_is_lost() -> None:
    with (
        scripted.scripted_llm(default=QUOTA) as first,
        scripted.scripted_llm() as second,
        asking([first.base_url, second.base_url]) as triage,
    ):
        work = Unanswered(ROWS, triage)
        answered = late_answers(triage, work)
        assert (answered, work.waiting, work.given_up) == (30, 0, 0)
        assert len(first.requests) <= 3, "those that were under way together"


def late_answers(triage: Triage, work: Unanswered) -> int:
    answered, latest = 0, time.monotonic() + 60
    while work.waiting and time.monotonic() < latest:
        triage.inquiries.begin(work.cases, "window")
        found = triage.inquiries.collect(0.2)
        answered += len(work.settle(found.answers, found.given_up))
    return answered


def test_the_first_is_asked_again_once_it_may_be_up() -> None:
    clock = Clock()
    with (
        scripted.scripted_llm(scripted.fails(401)) as first,
        scripted.scripted_llm() as second,
        asking([first.base_url, second.base_url], clock=clock) as triage,
    ):
        assert {each.model for each in triage.classify(ROWS[:1]).classifications} == {"second"}
        assert {each.model for each in triage.classify(ROWS[1:2]).classifications} == {"second"}
        clock.ahead = 31.0
        assert {each.model for each in triage.classify(ROWS[2:3]).classifications} == {"first"}


def test_the_order_is_the_spec_s() -> None:
    with (
        scripted.scripted_llm(default=QUOTA) as first,
        scripted.scripted_llm(default=QUOTA) as second,
        scripted.scripted_llm() as third,
        asking([first.base_url, second.base_url, third.base_url]) as triage,
    ):
        assert {each.model for each in triage.classify(ROWS).classifications} == {"third"}


def test_a_fallback_that_the_policy_does_not_name_hears_nothing() -> None:
    with (
        scripted.scripted_llm(default=QUOTA) as first,
        scripted.scripted_llm() as second,
        asking([first.base_url, second.base_url], allowed=["first"]) as triage,
    ):
        result = triage.classify(ROWS)
        assert {each.source for each in result.classifications} == {"rules"}
        assert second.requests == []


def test_a_model_s_own_answer_is_preferred_to_a_fallback_s() -> None:
    ledger = MemoryLedger()
    with (
        scripted.scripted_llm(QUOTA, default=scripted.answer(classification="velocity_abuse")) as first,
        scripted.scripted_llm() as second,
    ):
        for names in (("first", "second"), ("first",)):
            urls = [first.base_url, second.base_url][: len(names)]
            with asking(urls, ledger=ledger) as triage:
                triage.classify(ROWS[:1])
        with asking([first.base_url, second.base_url], ledger=ledger) as triage:
            (found,) = triage.classify(ROWS[:1]).classifications
    assert (found.model, found.category) == ("first", "velocity_abuse")


def test_what_is_on_record_of_fallbacks_is_recalled_without_asking() -> None:
    ledger = MemoryLedger()
    with (
        scripted.scripted_llm(default=QUOTA) as first,
        scripted.scripted_llm() as second,
        asking([first.base_url, second.base_url], ledger=ledger) as triage,
    ):
        triage.classify(ROWS)
    unasked = Triage(
        LLM,
        load_prompt(PromptReference(), "amount: amount, number"),
        Unasked("first", ["second"]),
        ledger=ledger,
        budget=SpendingBudget(LLM.budget, lambda: NOW),
        policy=policy(*NAMES),
        pseudonyms=Pseudonyms(b"k" * 32),
    )
    assert {each.model for each in unasked.recall(ROWS).classifications} == {"second"}


STEPS = {
    "answers": scripted.answer(),
    "quota": QUOTA,
    "fails": scripted.fails(503),
    "refuses": scripted.fails(401),
}


@tried(max_examples=6, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(STEPS)), max_size=6), st.lists(st.sampled_from(sorted(STEPS)), max_size=6)
)
def test_whatever_the_first_two_do_every_group_is_answered_once(one: list[str], other: list[str]) -> None:
    ledger, clock = NotedLedger(), Clock()
    with (
        scripted.scripted_llm(*(STEPS[each] for each in one)) as first,
        scripted.scripted_llm(*(STEPS[each] for each in other)) as second,
        asking([first.base_url, second.base_url], ledger=ledger, clock=clock) as triage,
    ):
        work, answered = Unanswered(ROWS, triage), 0
        for _ in range(60):
            clock.ahead += 700.0
            triage.inquiries.begin(work.cases, "window")
            found = triage.inquiries.collect(0.5)
            answered += len(work.settle(found.answers, found.given_up))
            if not work.waiting:
                break
        assert (answered + work.given_up, work.waiting) == (30, 0)
    said = [each for each in ledger.intents if each.key in ledger.recorded([each.key])]
    assert len({each.canonical_input for each in said}) == len(said), "no group is paid for twice"
