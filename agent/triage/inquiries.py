"""Requests under way beside the stream: each takes as long as the model needs, and none waits for another.

A group is asked about once: while its request is under way it is not asked again, and an answer that came is
on record before anything else happens. What keeps a request of several groups from an answer may lie in one
of them, so the next requests about them are half as large, until the one group is alone: a refusal, or an
answer longer than the limit, is then its answer. An answer of no use is asked for once more, one that the
server has failed to give twice more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from agent.model.model_client import Completion, Failure
from agent.triage.containment import Faults
from agent.triage.ledger import RecordedAnswer
from agent.triage.packing import Case
from agent.triage.requests import Request, RequestOutcome, Requests
from agent.triage.tempo import Tempo
from schemas.alert import FallbackReason
from schemas.llm import Llm

_MOST_ATTEMPTS = 3
_MOST_USELESS = 2
_LONGEST_REST = 60.0
_FIRST_REST = 0.5
_MOST_CONSIDERED = 64
_NOT_TRIED: frozenset[FallbackReason] = frozenset({"circuit_open", "rate_limited"})
_SERVER_FAILED: frozenset[FallbackReason] = frozenset({"rejected", "server_error", "unreachable"})
_OF_ONE_GROUP: frozenset[FallbackReason] = frozenset(
    {"refused", "truncated", "invalid_json", "timeout", "rejected", "server_error", "internal_error"}
)
_OF_NO_USE: frozenset[FallbackReason] = frozenset(
    {"invalid_json", "wrong_enum", "wrong_id", "evidence_mismatch"}
)
# An answer about one group that was cut off would be again: prompt, limit and seed are the same.
_FINAL: frozenset[FallbackReason] = frozenset({"refused", "truncated", "internal_error"})


@dataclass
class _Attempts:
    """What has been seen of a group that has no answer yet.

    Attributes:
        together: how many groups its next request may ask about.
        attempts: how often it came back without an answer of use, while the server was fit to give one.
        rest_until: when it may be asked about again.
        others: how many requests the server had answered when it last failed this group.
    """

    together: int
    attempts: int = 0
    failures: int = 0
    rest_until: float = 0.0
    others: int | None = None


@dataclass(frozen=True)
class _UnderWay:
    request: Request
    owner: Any
    since: float


@dataclass(frozen=True)
class Collected:
    """What has come back: outcomes with who asked, answers by key, and the groups that get none.

    `faults` are those of our own reading.
    """

    outcomes: Sequence[tuple[Any, RequestOutcome]] = ()
    answers: Mapping[str, RecordedAnswer] = field(default_factory=dict)
    given_up: frozenset[str] = frozenset()
    faults: tuple[str, ...] = ()


class Inquiries:
    """Requests to a model, or to those beside it, as many at a time as it takes. For one thread.

    Args:
        requests: books, records and reads them.
        llm: calls at a time, and for how long an answer is waited for.
        clock: monotonic seconds.
    """

    def __init__(self, requests: Requests, llm: Llm, clock: Callable[[], float] = time.monotonic) -> None:
        self._requests, self._most_calls, self._clock = requests, llm.budget.calls_per_batch, clock
        self._tempo = Tempo(requests.respondents.first.packer.most_groups, llm.patience.total_seconds())
        self._under_way: dict[Future[Completion | Failure], _UnderWay] = {}
        self._attempts: dict[str, _Attempts] = {}
        self._answered = 0

    @property
    def keys(self) -> frozenset[str]:
        """The groups that are being asked about."""
        return frozenset(case.key for each in self._under_way.values() for case in each.request.cases)

    @property
    def questions(self) -> frozenset[str]:
        """The same by their keys in the ledger."""
        requests = [each.request for each in self._under_way.values()]
        return frozenset(each.to.key_of(case) for each in requests for case in each.cases)

    @property
    def room(self) -> int:
        """How many requests more may be begun; one that is overdue makes room for another."""
        to, under_way = self._requests.respondents.fit, list(self._under_way.values())
        its_own = [each for each in under_way if each.request.to is to]
        capacity = to.client.capacity
        others = min(2 * capacity - len(its_own), self._most_calls - len(under_way))
        return max(min(capacity - self._usual(its_own), others), 0)

    @property
    def is_waited_for(self) -> bool:
        """Whether a request is under way that takes no longer than usual."""
        return self._usual(self._under_way.values()) > 0

    def _usual(self, under_way: Iterable[_UnderWay]) -> int:
        now = self._clock()
        return sum(now - each.since < self._tempo.overdue(len(each.request.cases)) for each in under_way)

    def begin(self, cases: Iterable[Case], owner: Any, busy: frozenset[str] = frozenset()) -> int:
        """Begin the requests there is room for; return their number.

        Args:
            cases: what has no answer, the first ones first.
            owner: handed back with the outcomes.
            busy: groups that another model's requests are about.

        Raises:
            FlagstreamError: what the ledger raises for its own store.
        """
        if self.room <= 0:
            return 0
        ready = list(islice(self._ready(cases, self.keys | busy), _MOST_CONSIDERED))
        to = self._requests.respondents.fit
        packed = to.packer.pack(self._in_turn(ready), self._together)
        booked = (self._requests.book(each, to) for each in packed)
        requests = list(islice((each for each in booked if each is not None), self.room))
        self._requests.intend(requests)
        for each in requests:
            self._send(each, owner)
        return len(requests)

    def collect(self, seconds: float) -> Collected:
        """Wait for an answer, at most so long, and return all that came; it is on record then.

        Raises:
            FlagstreamError: what the ledger raises for its own store; nothing that came is lost.
        """
        done = list(wait(self._under_way, seconds, FIRST_COMPLETED).done)
        finished = [(self._under_way[each], _reply_of(each)) for each in done]
        faults = Faults()
        outcomes = [self._requests.outcome(each.request, reply, faults) for each, reply in finished]
        self._requests.record(outcomes)
        for each in done:
            del self._under_way[each]
        for (begun, _), outcome in zip(finished, outcomes, strict=True):
            self._learn(begun, outcome)
        found = {key: answer for each in outcomes for key, answer in each.answers.items()}
        return Collected(
            [(begun.owner, outcome) for (begun, _), outcome in zip(finished, outcomes, strict=True)],
            {key: answer for key, answer in found.items() if isinstance(answer, RecordedAnswer)},
            frozenset(key for each in outcomes for key in self._judged(each)),
            faults.noted,
        )

    def forget(self, keys: Iterable[str]) -> None:
        """Drop what was seen of groups that nobody wants to know about any more."""
        for key in keys:
            self._attempts.pop(key, None)

    def _send(self, request: Request, owner: Any) -> None:
        # A server that does one thing at a time comes to this one after those that are under way.
        limit = self._tempo.limit(len(request.cases)) * (1 + len(self._under_way))
        future = request.to.client.begin(self._requests.question(request), limit)
        self._under_way[future] = _UnderWay(request, owner, self._clock())

    def _ready(self, cases: Iterable[Case], busy: frozenset[str]) -> Iterable[Case]:
        now, seen = self._clock(), set(busy)
        for case in cases:
            made = self._attempts.get(case.key)
            if case.key not in seen and (made is None or made.rest_until <= now):
                seen.add(case.key)
                yield case

    def _in_turn(self, cases: Sequence[Case]) -> list[Case]:
        """What has failed before goes last, so that it keeps no other waiting."""
        return sorted(cases, key=lambda case: self._seen_of(case.key).failures)

    def _together(self, case: Case) -> int:
        return min(self._tempo.groups, self._seen_of(case.key).together)

    def _seen_of(self, key: str) -> _Attempts:
        return self._attempts.get(key) or _Attempts(self._requests.respondents.first.packer.most_groups)

    def _learn(self, begun: _UnderWay, outcome: RequestOutcome) -> None:
        if isinstance(outcome.reply, Completion):
            self._answered += 1
            self._tempo.answered(len(outcome.answers), self._clock() - begun.since)
        elif outcome.reply.reason == "timeout" and outcome.sent:
            self._tempo.lost()

    def _judged(self, outcome: RequestOutcome) -> Iterable[str]:
        """Note what came of each group; yield those that get no answer."""
        for key, answer in outcome.answers.items():
            if isinstance(answer, RecordedAnswer):
                self.forget([key])
            elif self._is_given_up(key, answer, len(outcome.answers), outcome.sent):
                self.forget([key])
                yield key

    def _is_given_up(self, key: str, reason: FallbackReason, groups: int, sent: bool) -> bool:
        made = self._attempts.setdefault(key, self._seen_of(key))
        if not sent or reason in _NOT_TRIED:
            made.rest_until = self._clock() + _FIRST_REST
            return reason in ("llm_off", "policy")
        made.failures += 1
        made.rest_until = self._clock() + min(_FIRST_REST * 2.0**made.failures, _LONGEST_REST)
        if groups > 1 and reason in _OF_ONE_GROUP:
            made.together, made.rest_until = max(groups // 2, 1), 0.0
            return False
        if reason in _SERVER_FAILED:
            made.attempts += made.others not in (None, self._answered)
            made.others = self._answered
        else:
            made.attempts += 1
        most = _MOST_USELESS if reason in _OF_NO_USE else _MOST_ATTEMPTS
        return reason in _FINAL or made.attempts >= most


def _reply_of(future: Future[Completion | Failure]) -> Completion | Failure:
    try:
        return future.result()
    except CancelledError:
        return Failure("timeout", sent=False)
