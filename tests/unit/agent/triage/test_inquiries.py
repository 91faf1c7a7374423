"""Requests under way beside the stream: each group asked once, none waiting for another, no answer lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st

from agent.model.budget import SpendingBudget
from agent.model.model_client import Completion, Failure, ModelClient, Question, Replies, Surcharge
from agent.model.prompt_files import load_prompt
from agent.triage.disclosure import canonical_json
from agent.triage.late import Unanswered
from agent.triage.ledger import MemoryLedger, RecordedAnswer
from agent.triage.pseudonyms import Pseudonyms
from agent.triage.tempo import Tempo
from agent.triage.triage import POLICIES, Triage
from schemas.alert import FallbackReason
from schemas.errors import MachineError
from schemas.llm import Budget, Llm, PromptReference
from schemas.policy import load_policy
from streaming.testing import scripted_llm as scripted
from tests.late_samples import GROUPS, NOW, ROWS, Late, asked_about, row, triage, working
from tests.noted_ledger import NotedLedger

SECONDS = 60.0


@dataclass
class Clock:
    """Real seconds, and those that a test has let pass."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def test_a_slow_model_is_asked_about_each_group_once_and_answers_them_all(tmp_path: Path) -> None:
    """An answer takes four times the deadline, as 40 seconds do where it is 10."""
    with (
        scripted.scripted_llm(default=scripted.slow(0.8)) as server,
        triage(server, seconds=0.2) as asking,
        working(tmp_path, asking) as late,
    ):
        late.alert(30)
        late.answers.start()
        late.wait(lambda: len(late.revised) == 30)
        assert set(asked_about(server).values()) == {1}
        assert len(server.requests) == GROUPS
    assert late.answers.totals.calls == GROUPS


@pytest.mark.long
@pytest.mark.parametrize(
    "refusal",
    [
        scripted.fails(400, code="content_filter"),
        scripted.fails(400, code="data_inspection_failed"),
        scripted.refused(),
        scripted.filtered(),
    ],
)
def test_what_a_filter_refuses_is_one_group_s_answer(refusal: scripted.LlmStep, tmp_path: Path) -> None:
    step = scripted.depending("rate.terminal", refusal)
    with (
        scripted.scripted_llm(default=step) as server,
        triage(server, groups=8, failures=1) as asking,
        working(tmp_path, asking) as late,
    ):
        for batch in range(2):
            late.alert(30, 30 * batch)
        late.answers.start()
        late.wait(lambda: late.answers.totals.given_up == 20)
        late.alert(30, 60)  # a later window
        late.wait(lambda: late.answers.totals.given_up == 30)
        late.wait(lambda: len(late.revised) == 60)
        assert len(server.requests) <= 10
        assert late.answers.totals.answered == 60


@pytest.mark.parametrize("groups", [1, 8])
def test_an_answer_that_was_cut_off_about_one_group_alone_is_not_asked_for_again(
    groups: int, tmp_path: Path
) -> None:
    step = scripted.depending("rate.terminal", scripted.truncated())
    with (
        scripted.scripted_llm(default=step) as server,
        triage(server, groups=groups) as asking,
        working(tmp_path, asking) as late,
    ):
        late.alert(30)
        late.answers.start()
        late.wait(lambda: late.answers.totals.given_up == 10)
        late.wait(lambda: len(late.revised) == 20)
        alone = [each for each in server.requests if len(each.asked) == 1]
        assert sum("rate.terminal" in each.user_message for each in alone) == 1


@pytest.mark.long
def test_a_group_whose_server_hangs_keeps_no_other_waiting_nor_a_later_window(tmp_path: Path) -> None:
    clock = Clock()
    step = scripted.depending("rate.terminal", scripted.hang())
    with (
        scripted.scripted_llm(default=step) as server,
        triage(server, concurrency=2, clock=clock) as asking,
        working(tmp_path, asking) as late,
    ):
        late.alert(30)
        late.answers.start()
        late.wait(lambda: len(late.revised) == 20)
        for batch in range(1, 3):
            clock.ahead += 31.0
            late.alert(30, 30 * batch)
            late.wait(lambda: len(late.revised) == 20 * batch + 20)  # noqa: B023 -- called at once
        hanging = [each for each in server.requests if "rate.terminal" in each.user_message]
        assert len(hanging) <= 3, "one request about each window's group"
        assert set(asked_about(server).values()) == {1}


@pytest.mark.long
def test_one_group_that_a_server_fails_on_is_given_up_while_it_answers_others(tmp_path: Path) -> None:
    clock, step = Clock(), scripted.depending("rate.terminal", scripted.fails(400))
    with (
        scripted.scripted_llm(default=step) as server,
        triage(server, groups=8, clock=clock) as asking,
        working(tmp_path, asking) as late,
    ):
        late.answers.start()
        for batch in range(6):
            clock.ahead += 61.0
            late.alert(30, 30 * batch)
            late.wait(lambda: len(late.revised) == 20 * batch + 20)  # noqa: B023 -- called at once
        late.wait(lambda: late.answers.totals.given_up >= 10)
        assert len(late.answers._windows) < 6, "its window is settled"


def test_answers_in_hand_at_the_end_are_on_record(tmp_path: Path) -> None:
    ledger, arrived, let_go = MemoryLedger(), threading.Semaphore(0), threading.Event()

    def hold(request: scripted.LlmRequest) -> scripted.LlmReply:
        arrived.release()
        assert let_go.wait(SECONDS)
        return scripted.answer()(request)

    with (
        scripted.scripted_llm(default=hold) as server,
        triage(server, ledger=ledger, concurrency=3) as asking,
    ):
        work = Unanswered(ROWS, asking)
        assert asking.inquiries.begin(work.cases, "window") == GROUPS
        for _ in range(GROUPS):
            assert arrived.acquire(timeout=SECONDS)
        let_go.set()
        late = Late(tmp_path, asking)
        late.answers._asked[id(asking)] = asking
        latest = time.monotonic() + SECONDS
        while not all(each.done() for each in asking.inquiries._under_way) and time.monotonic() < latest:
            time.sleep(0.01)
        late.answers.close()
    assert len(ledger.recorded([case.key for case in work.cases])) == GROUPS


class FullLedger(MemoryLedger):
    """A disk that is full the first time answers come."""

    def __init__(self) -> None:
        super().__init__()
        self.full = True

    def record(self, answers: Sequence[RecordedAnswer]) -> None:
        if answers and self.full:
            self.full = False
            raise MachineError("no space left")
        super().record(answers)


def test_an_answer_that_cannot_be_recorded_stays_in_hand_and_is_not_asked_for_again(tmp_path: Path) -> None:
    with (
        scripted.scripted_llm() as server,
        triage(server, ledger=FullLedger(), concurrency=3) as asking,
        working(tmp_path, asking) as late,
    ):
        late.alert(30)
        late.answers.start()
        late.wait(lambda: len(late.revised) == 30)
        assert len(server.requests) == GROUPS


def test_like_groups_of_two_windows_are_asked_about_once() -> None:
    with scripted.scripted_llm(default=scripted.hang()) as server, triage(server, concurrency=8) as asking:
        first, second = Unanswered(ROWS, asking), Unanswered(ROWS, asking)
        assert asking.inquiries.begin(first.cases, "first") == GROUPS
        assert asking.inquiries.begin(second.cases, "second") == 0


@dataclass
class Scripted:
    """A model in memory: each request is held until a test replies to it."""

    capacity: int = 4
    model: str = "local"
    surcharge: Surcharge = field(default_factory=Surcharge)
    fallbacks: Sequence[ModelClient] = ()
    held: list[tuple[Question, Future[Completion | Failure]]] = field(default_factory=list)

    def ask(
        self, questions: Sequence[Question], seconds: float, late: Replies | None = None
    ) -> list[Completion | Failure]:
        assert late is None
        raise AssertionError(f"{len(questions)} questions under a deadline of {seconds}")

    def begin(self, question: Question, seconds: float) -> Future[Completion | Failure]:
        assert seconds > 0
        future: Future[Completion | Failure] = Future()
        self.held.append((question, future))
        return future

    def abandon(self) -> None:
        """Nothing runs."""


def groups_of(question: Question) -> list[str]:
    """What is disclosed about each group, as the ledger has it."""
    return [canonical_json(each) for each in scripted.groups_in(question.messages.user).values()]


def answer_to(question: Question) -> Completion:
    request = scripted.LlmRequest({"messages": [{"content": question.messages.user}]}, {}, 0)
    return Completion(scripted.classification(request), 100, 20)


REPLIES: tuple[FallbackReason | None, ...] = (
    *(None, None, "refused", "truncated", "invalid_json", "timeout"),
    *("server_error", "rejected", "unreachable", "rate_limited", "circuit_open"),
)


@tried(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from(REPLIES)), max_size=60), st.integers(1, 8))
def test_whatever_a_model_does_no_group_is_asked_twice_at_a_time_and_no_answer_is_lost(
    replies: list[tuple[int, FallbackReason | None]], groups: int
) -> None:
    clock, ledger, client = Clock(), NotedLedger(), Scripted()
    llm = Llm(groups_per_request=groups, budget=Budget(tokens_per_day=10**9))
    asking = Triage(
        llm,
        load_prompt(PromptReference(), "amount: amount, number"),
        client,
        ledger=ledger,
        budget=SpendingBudget(llm.budget, lambda: NOW),
        policy=load_policy("default", POLICIES),
        pseudonyms=Pseudonyms(b"a key of thirty-two bytes, no less"),
        clock=clock,
    )
    rows = [row(number % 3 + 3 * (number // 3), (f"rule{number // 3}",)) for number in range(12)]
    work, answered, revised = Unanswered(rows, asking), set[str](), 0

    def reply(place: int, reason: FallbackReason | None) -> None:
        question, future = client.held.pop(place % len(client.held))
        if reason is None:
            answered.update(groups_of(question))
        future.set_result(
            answer_to(question)
            if reason is None
            else Failure(reason, sent=reason not in ("circuit_open", "rate_limited"))
        )

    def step() -> int:
        asking.inquiries.begin(work.cases, "window")
        asked = [name for question, _ in client.held for name in groups_of(question)]
        assert len(asked) == len(set(asked)), "one request at a time about a group"
        assert not answered & set(asked), "what is answered is not asked again"
        return len(asked)

    for place, reason in replies:
        clock.ahead += 61
        if step():
            reply(place, reason)
        found = asking.inquiries.collect(0.0)
        revised += len(work.settle(found.answers, found.given_up))
    for _ in range(200):
        clock.ahead += 61
        if step():
            reply(0, None)
        found = asking.inquiries.collect(0.0)
        revised += len(work.settle(found.answers, found.given_up))
        if not work.waiting:
            break
    assert (work.waiting, revised + work.given_up) == (0, len(rows))
    on_record = ledger.recorded([each.key for each in ledger.intents])
    assert {each.canonical_input for each in ledger.intents if each.key in on_record} == answered


def test_requests_grow_as_far_as_the_model_has_shown_it_can_answer() -> None:
    fast, slow = Tempo(8, 86_400.0), Tempo(8, 86_400.0)
    sizes = []
    for _ in range(6):
        sizes.append(fast.groups)
        fast.answered(fast.groups, 0.5 * fast.groups)
        slow.answered(slow.groups, 40.0 * slow.groups)
    assert sizes == [1, 2, 4, 8, 8, 8]
    assert slow.groups == 1
    assert slow.limit(1) == pytest.approx(800.0)
    assert slow.overdue(1) == pytest.approx(120.0)
    for _ in range(20):
        slow.lost()
    assert slow.limit(1) == 86_400.0, "no longer than an alert waits"


def test_the_lane_is_what_the_alerts_say(tmp_path: Path) -> None:
    begun = datetime.now(UTC)
    with (
        scripted.scripted_llm() as server,
        triage(server, groups=8, concurrency=2) as asking,
        working(tmp_path, asking) as late,
    ):
        late.alert(30)
        late.answers.start()
        late.wait(lambda: len(late.revised) == 30)
        late.wait(lambda: late.answers.totals.answered == 30)
    rows = late.lake.late.read("commit", 0).to_pylist()
    assert [each["event"] for each in rows if each["event"] != "asked"] == ["opened", "closed"]
    assert sum(each["llm_calls"] for each in rows) == len(server.requests)
    assert all(each["at"] >= begun for each in rows)
    numbers = [each.outbox_seq for each in late.sent.records]
    assert numbers == list(range(60))
