"""One endpoint, asked again where that may help, and no faster than it admits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from agent.model.chat_endpoint import ChatEndpoint
from agent.model.model_client import Completion, Failure, Question
from agent.model.negotiation import MOST_LESSONS, Offer
from agent.model.pacing import RequestPacer

_MOST_ATTEMPTS = 3


class PacedEndpoint:
    """Sends a question until it is answered, as often as that may help.

    Args:
        endpoint: sends single requests.
        pace: says when the next one may go.
        clock: monotonic seconds.
    """

    def __init__(self, endpoint: ChatEndpoint, pace: RequestPacer, clock: Callable[[], float]) -> None:
        self._endpoint, self._pace, self._clock = endpoint, pace, clock

    async def ask(
        self,
        question: Question,
        deadline: float,
        until: float,
        failed: Callable[[Failure], None] = lambda _: None,
    ) -> Completion | Failure:
        """Return the answer, or why there is none; refusals that teach something are no attempts.

        Args:
            deadline: no attempt begins later, by the clock.
            until: an answer is listened to.
            failed: called for each attempt that failed.
        """
        outcome: Completion | Failure = Failure("rate_limited", sent=False)
        offer: Offer | None = None
        attempts, lessons = 0, 0
        while attempts < _MOST_ATTEMPTS and lessons < MOST_LESSONS:
            turn = self._pace.take(question.most_tokens, deadline)
            if turn is None:
                return outcome
            await asyncio.sleep(turn)
            tried = await self._endpoint.send(question, until - self._clock(), offer, attempts)
            outcome, offer = _and_before(tried.outcome, outcome), tried.next
            if isinstance(outcome, Failure):
                failed(outcome)
            if tried.wait is None or self._clock() + tried.wait >= deadline:
                return outcome
            attempts, lessons = attempts + (offer is None), lessons + (offer is not None)
            await asyncio.sleep(tried.wait)
        return outcome


def _and_before(outcome: Completion | Failure, before: Completion | Failure) -> Completion | Failure:
    """Add the tokens that earlier attempts at the same question have used."""
    return replace(
        outcome,
        input_tokens=outcome.input_tokens + before.input_tokens,
        output_tokens=outcome.output_tokens + before.output_tokens,
    )
