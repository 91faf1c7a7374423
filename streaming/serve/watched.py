"""Tells whoever watches of each request: what it was about, how it was answered, and how fast.

The server's own health is left out: it is asked every few seconds, and says no where others must know.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

OTHER = "other"
_HEALTH = frozenset({"/livez", "/readyz"})


class RequestWatch(Protocol):
    """Hears of each request that was answered."""

    def __call__(self, agent: str | None, endpoint: str, status: int, seconds: float, /) -> None:
        """Take note of a request; called in the event loop, so it reads and waits for nothing.

        Args:
            agent: that it was about, None where that was not found out.
            endpoint: method and path as they are declared, `other` where none was reached.
            status: of HTTP; 500 where no answer began.
            seconds: until the answer began.
        """


def nobody_watches(agent: str | None, endpoint: str, status: int, seconds: float, /) -> None:
    """See RequestWatch: nothing is noted."""


class Watched:
    """The layer around all others.

    Args:
        app: what answers.
        watch: hears of each request.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self, app: ASGIApp, watch: RequestWatch, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._app, self._watch, self._clock = app, watch, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["path"] in _HEALTH:
            await self._app(scope, receive, send)
            return
        answer = _TimedAnswer(send, self._clock)
        try:
            await self._app(scope, receive, answer)
        finally:
            agent = scope.get("state", {}).get("agent")
            self._watch(agent, endpoint_of(scope), answer.status, answer.seconds)


class _TimedAnswer:
    """Sends an answer on, and knows when it began."""

    def __init__(self, send: Send, clock: Callable[[], float]) -> None:
        self._send, self._clock, self._asked_at = send, clock, clock()
        self.status, self._seconds = int(HTTPStatus.INTERNAL_SERVER_ERROR), -1.0

    @property
    def seconds(self) -> float:
        """Until it began; until now where it did not."""
        return self._seconds if self._seconds >= 0 else self._clock() - self._asked_at

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self._seconds = message["status"], self._clock() - self._asked_at
        await self._send(message)


def endpoint_of(scope: Scope) -> str:
    """Return which endpoint a request has reached: nothing that a client has written is in it."""
    route, method = scope.get("route"), scope["method"]
    path = getattr(route, "path", None)
    if path is None or method not in (getattr(route, "methods", None) or ()):
        return OTHER
    return f"{method} {path}"
