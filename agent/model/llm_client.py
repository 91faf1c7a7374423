"""The model behind triage, over the OpenAI protocol: many questions at once under one deadline.

One background thread runs the event loop and keeps the connections from batch to batch. Whatever the server
does comes back as a value: a `Completion`, or a `Failure` that names the fallback reason. Nothing of the
server's own words and nothing of the key goes into a failure, since both may end up in logs.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from agent.model.adaptive_limit import AdaptiveLimit
from agent.model.call_watch import CallWatch, FinishedCall, asked_about, unwatched
from agent.model.chat_endpoint import ChatEndpoint
from agent.model.circuit_breaker import CircuitBreaker
from agent.model.endpoint_memory import EndpointMemory
from agent.model.guarded_http import Reach
from agent.model.model_client import (
    LOCAL_MODEL,
    Completion,
    Failure,
    Question,
    Replies,
    Surcharge,
    finished,
)
from agent.model.negotiation import ServerFeatures
from agent.model.paced_endpoint import PacedEndpoint
from agent.model.pacing import RequestPacer
from schemas.alert import FallbackReason
from schemas.llm import Llm

_CONCURRENCY_OF_ENDPOINTS = 8
_THREAD_GRACE_SECONDS = 0.03
_CLOSE_SECONDS = 5.0
_OVERLOADED: frozenset[FallbackReason] = frozenset({"timeout", "rate_limited"})
_NO_ANSWER = "the last questions had no answer; it is left alone for a while, then tried with one"
_SERVER_IS_DOWN: frozenset[FallbackReason] = frozenset(
    {"timeout", "unreachable", "server_error", "rate_limited", "rejected"}
)


@dataclass(frozen=True)
class _Terms:
    """Until when a question may be sent, until when its answer is listened to, and what takes late ones."""

    deadline: float
    until: float
    late: Replies | None = None


@dataclass
class _Crew:
    """How many put the questions of one call side by side."""

    workers: int = 1


class LlmClient:
    """Asks a server that speaks `/v1/chat/completions`: llama.cpp, OpenAI and the like.

    Args:
        llm: concurrency and the endpoint's rate limits.
        model: what to ask for by name; a local server serves whatever it has loaded.
        base_url: the server's API root; `llm.base_url` unless given; OpenAI's own when both are None.
        api_key: sent as a bearer token; servers without keys get a placeholder.
        reach: whether the endpoint's name may lead to a private network.
        breaker: shared by all batches.
        memory: keeps what is learned of the endpoint.
        api_version: of Azure OpenAI, None for all others.
        fallbacks: who is asked, in this order, while this one does not answer.
        clock: monotonic seconds, for deadlines.
        watch: learns of each request that has come to its end.
    """

    def __init__(
        self,
        llm: Llm,
        *,
        model: str = LOCAL_MODEL,
        base_url: str | None = None,
        api_key: SecretStr | None = None,
        reach: Reach = "public",
        breaker: CircuitBreaker | None = None,
        memory: EndpointMemory | None = None,
        api_version: str | None = None,
        fallbacks: Sequence[LlmClient] = (),
        clock: Callable[[], float] = time.monotonic,
        watch: CallWatch = unwatched,
    ) -> None:
        self._watch = watch
        self._model, self._clock, self._fallbacks = model, clock, tuple(fallbacks)
        most = llm.max_concurrency or (1 if model == LOCAL_MODEL else _CONCURRENCY_OF_ENDPOINTS)
        self._at_a_time = AdaptiveLimit(most)
        self._breaker = breaker or CircuitBreaker(clock=clock)
        url = base_url or llm.base_url
        self._endpoint = ChatEndpoint(model, url, api_key, reach, memory, api_version)
        self._paced = PacedEndpoint(self._endpoint, RequestPacer(llm.rate, clock), clock)
        self._asking: Future[None] = Future()
        self._under_way: set[Future[Completion | Failure]] = set()
        self._outstanding: set[asyncio.Task[None]] = set()
        self._abandoned, self._lock = False, threading.Lock()
        self._loop = asyncio.new_event_loop()
        # No worker: the thread runs an event loop, in which every fault becomes the answer to its question.
        self._thread = threading.Thread(target=self._loop.run_forever, name="llm-client", daemon=True)
        self._thread.start()

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._model

    @property
    def breaker(self) -> CircuitBreaker:
        """The circuit breaker, to tell the server's state."""
        return self._breaker

    @property
    def fallbacks(self) -> Sequence[LlmClient]:
        """See ModelClient."""
        return self._fallbacks

    @property
    def url(self) -> str:
        """The API root that is asked."""
        return self._endpoint.url

    @property
    def features(self) -> ServerFeatures:
        """What the endpoint is known to take."""
        return self._endpoint.features

    @property
    def trouble(self) -> str:
        """What keeps the endpoint from answering and what to do about it, "" where nothing does."""
        silent = "" if self._breaker.closed else _NO_ANSWER
        return self._endpoint.trouble or silent

    @property
    def surcharge(self) -> Surcharge:
        """See ModelClient."""
        return Surcharge(self.features.form != "json_schema", self.features.thinking_tokens)

    def __enter__(self) -> LlmClient:
        """Return the client, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the client."""
        self.close()

    def __repr__(self) -> str:
        """Name the model and nothing else: no key, no address with credentials."""
        return f"LlmClient(model={self.model!r})"

    def ask(
        self, questions: Sequence[Question], seconds: float, late: Replies | None = None
    ) -> list[Completion | Failure]:
        """Answer each question in place, the first ones first, within `seconds` altogether.

        What is outstanding at the deadline comes back as `timeout`, and is abandoned unless there is `late`
        to take it; with the circuit open, questions come back as `circuit_open` at once.
        """
        outcomes: list[Completion | Failure | None] = [None] * len(questions)
        deadline = self._clock() + seconds
        terms = _Terms(deadline, deadline if late is None else deadline + seconds, late)
        asking = self._begin(questions, outcomes, terms)
        try:
            asking.result(seconds + _THREAD_GRACE_SECONDS)
        except (TimeoutError, CancelledError):
            asking.cancel()
        return [outcome or Failure("timeout", sent=False) for outcome in list(outcomes)]

    @property
    def capacity(self) -> int:
        """See ModelClient: a server that has failed again and again is left alone, then tried with one."""
        return self._at_a_time.now if self._breaker.closed else int(self._breaker.trial_due)

    def begin(self, question: Question, seconds: float) -> Future[Completion | Failure]:
        """See ModelClient; a question that is abandoned comes back cancelled."""
        with self._lock:
            if self._abandoned:
                return finished(Failure("timeout", sent=False))
            asking = asyncio.run_coroutine_threadsafe(self._answer(question, seconds), self._loop)
            self._under_way.add(asking)
        asking.add_done_callback(self._under_way.discard)
        return asking

    def abandon(self) -> None:
        """See ModelClient: what is outstanding comes back as `timeout`, or cancelled."""
        with self._lock:
            self._abandoned = True
            self._asking.cancel()
            for each in list(self._under_way):
                each.cancel()

    def _begin(
        self, questions: Sequence[Question], outcomes: list[Completion | Failure | None], terms: _Terms
    ) -> Future[None]:
        with self._lock:
            if not self._abandoned:
                work = self._ask_under_deadline(questions, outcomes, terms)
                self._asking = asyncio.run_coroutine_threadsafe(work, self._loop)
            return self._asking

    def close(self) -> None:
        """Abandon what is outstanding, close the connections and end the thread. Twice does no harm."""
        if self._loop.is_closed():
            return
        self.abandon()
        self._await(self._shut_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    def _await(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_CLOSE_SECONDS)

    async def _shut_down(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._endpoint.close()
        await self._loop.shutdown_default_executor()

    async def _ask_under_deadline(
        self, questions: Sequence[Question], outcomes: list[Completion | Failure | None], terms: _Terms
    ) -> None:
        queue = list(reversed(range(len(questions))))
        if self._breaker.trial_due and queue:
            trial = self._work(questions, outcomes, [queue.pop()], terms, _Crew(), trial=True)
            await self._within([trial], terms)
        crew = _Crew(min(self._at_a_time.now, len(queue)))
        work = [self._work(questions, outcomes, queue, terms, crew) for _ in range(crew.workers)]
        await self._within(work, terms)

    async def _within(self, work: Sequence[Coroutine[Any, Any, None]], terms: _Terms) -> None:
        tasks = [asyncio.create_task(each) for each in work]
        if not tasks:
            return
        _, outstanding = await asyncio.wait(tasks, timeout=max(terms.deadline - self._clock(), 0))
        for task in outstanding:
            self._breaker.note(healthy=False)
            if terms.late is None:
                task.cancel()
            else:
                self._outstanding.add(task)
                task.add_done_callback(self._outstanding.discard)

    async def _work(
        self,
        questions: Sequence[Question],
        outcomes: list[Completion | Failure | None],
        queue: list[int],
        terms: _Terms,
        crew: _Crew,
        trial: bool = False,
    ) -> None:
        while queue and self._clock() < terms.deadline:
            position = queue.pop()
            if not (trial or self._breaker.closed):
                outcomes[position] = Failure("circuit_open", sent=False)
                continue
            outcomes[position] = Failure("timeout")
            outcome = await self._outcome(questions[position], terms)
            outcomes[position] = outcome
            if terms.late is not None and self._clock() >= terms.deadline:
                terms.late.append((position, outcome))
            if crew.workers > self._at_a_time.now:
                crew.workers -= 1
                return

    async def _answer(self, question: Question, seconds: float) -> Completion | Failure:
        if not (self._breaker.closed or self._breaker.trial_due):
            return Failure("circuit_open", sent=False)
        try:
            async with asyncio.timeout(seconds):
                until = self._clock() + seconds
                return await self._outcome(question, _Terms(until, until))
        except TimeoutError:
            self._breaker.note(healthy=False)
            return Failure("timeout")

    async def _outcome(self, question: Question, terms: _Terms) -> Completion | Failure:
        """Ask, and have it noted how that went."""
        began = time.time_ns()
        outcome: Completion | Failure = Failure("timeout")
        try:
            outcome = await self._taken_in(question, terms)
        finally:
            self._watch(
                FinishedCall(
                    self._model, self.url, began, time.time_ns(),
                    "answered" if isinstance(outcome, Completion) else outcome.reason,
                    outcome.input_tokens, outcome.output_tokens, question.max_output_tokens, asked_about(),
                )
            )  # fmt: skip
        return outcome

    async def _taken_in(self, question: Question, terms: _Terms) -> Completion | Failure:
        """Ask, and take in what comes of it: it says how the server is."""
        number = self._at_a_time.begin()

        def failed(failure: Failure) -> None:
            if failure.reason in _OVERLOADED and not failure.lasting:
                self._at_a_time.overloaded(number)

        try:
            outcome = await self._paced.ask(question, terms.deadline, terms.until, failed)
        except asyncio.CancelledError:  # by its deadline, or by whoever waited for it
            self._at_a_time.overloaded(number)
            raise
        if isinstance(outcome, Completion):
            self._at_a_time.answered()
            self._breaker.note(healthy=True)
        elif outcome.lasting:
            self._breaker.trip()
        elif outcome.sent:
            self._breaker.note(not (outcome.of_server and outcome.reason in _SERVER_IS_DOWN))
        return outcome
