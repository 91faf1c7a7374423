"""Requests whose answers a batch did not wait for: what comes after all is kept for the next question."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.model.model_client import Completion, Failure, Replies
from agent.triage.containment import Faults
from agent.triage.requests import Request, RequestOutcome, Requests


@dataclass(frozen=True)
class _Round:
    """Requests under one deadline; `replies` grows while they are listened to, until `until`."""

    requests: Sequence[Request]
    until: float
    replies: Replies
    missing: set[int] = field(default_factory=set)


class Overdue:
    """The requests of earlier batches that may still be answered. For one thread.

    Args:
        requests: records and reads them.
        clock: monotonic seconds.
    """

    def __init__(self, requests: Requests, clock: Callable[[], float] = time.monotonic) -> None:
        self._requests, self._clock = requests, clock
        self._rounds: list[_Round] = []

    @property
    def keys(self) -> frozenset[str]:
        """The groups that are still being asked about."""
        return frozenset(
            case.key for each in self._rounds for place in each.missing for case in each.requests[place].cases
        )

    def ask(self, requests: Sequence[Request], seconds: float) -> list[Completion | Failure]:
        """Ask one model under a deadline; what has no answer then is listened to for as long again."""
        begun = _Round(requests, self._clock() + 2 * seconds, [])
        questions = [self._requests.question(request) for request in requests]
        replies = requests[0].to.client.ask(questions, seconds, begun.replies)
        begun.missing.update(place for place, reply in enumerate(replies) if _is_outstanding(reply))
        if begun.missing:
            self._rounds.append(begun)
        return replies

    def collect(self, faults: Faults) -> list[RequestOutcome]:
        """Return what has come since, which is on record then."""
        outcomes = [
            self._requests.outcome(each.requests[place], reply, faults)
            for each in self._rounds
            for place, reply in self._taken(each)
        ]
        if outcomes:
            self._requests.record(outcomes)
        self._rounds = [each for each in self._rounds if each.missing and self._clock() < each.until]
        return outcomes

    @staticmethod
    def _taken(begun: _Round) -> Replies:
        taken = begun.replies[:]
        del begun.replies[: len(taken)]
        came = [(place, reply) for place, reply in taken if place in begun.missing]
        begun.missing.difference_update(place for place, _ in came)
        return came


def _is_outstanding(reply: Completion | Failure) -> bool:
    return isinstance(reply, Failure) and reply.reason == "timeout" and reply.sent
