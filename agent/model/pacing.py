"""Keeps requests within what an endpoint admits per minute, so that it need not refuse them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from schemas.llm import RateLimits

_MINUTE = 60.0


class RequestPacer:
    """A log of the last minute's requests; no minute, wherever it begins, holds more than the limits.

    Args:
        limits: requests and tokens in a minute.
        clock: monotonic seconds.
    """

    def __init__(self, limits: RateLimits, clock: Callable[[], float]) -> None:
        self._most_requests = limits.requests_per_minute or math.inf
        self._most_tokens = limits.tokens_per_minute or math.inf
        self._clock = clock
        self._sent: deque[tuple[float, int]] = deque()

    def take(self, tokens: int, deadline: float) -> float | None:
        """Take the next free turn for a request of so many tokens.

        Returns:
            Seconds to wait for the turn; None, and no turn is taken, when it comes at the deadline or later.
        """
        now = self._clock()
        turn = max(now, self._earliest(tokens))
        if turn >= deadline:
            return None
        while self._sent and self._sent[0][0] <= now - _MINUTE:
            self._sent.popleft()
        self._sent.append((turn, tokens))
        return turn - now

    def _earliest(self, tokens: int) -> float:
        """A request may go once enough earlier ones are a minute old; never before those already in line."""
        if tokens > self._most_tokens:
            return math.inf
        requests, used = 1, tokens
        for sent_at, sent_tokens in reversed(self._sent):
            requests, used = requests + 1, used + sent_tokens
            if requests > self._most_requests or used > self._most_tokens:
                return max(sent_at + _MINUTE, self._sent[-1][0])
        return self._sent[-1][0] if self._sent else -math.inf
