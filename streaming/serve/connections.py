"""Connections that cost a stranger as much as they cost the server: none is kept for who asks nothing.

uvicorn waits for ever for the head of a request, and whoever has no token can open as many connections as the
server takes. Here the head of each request has its time, and where all places are taken, the connection that
has waited longest for one is closed for a new one.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 15.0
MOST_CONNECTIONS = 1_000


class HttpConnection(H11Protocol):
    """One connection; see uvicorn's class for its parameters."""

    _head_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) >= MOST_CONNECTIONS:
            self._make_room()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._await_nothing()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Take what has come; a request that has begun has all the time that its answer needs."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._await_nothing()

    def on_response_complete(self) -> None:
        """Wait for the next request, which may have come already."""
        self._await_head()
        super().on_response_complete()

    def _await_head(self) -> None:
        self._await_nothing()
        self._head_due = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _await_nothing(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _make_room(self) -> None:
        due = [(each._head_due, each) for each in _ours(self.connections) if each._head_due is not None]
        if due:
            _, longest = min(due, key=lambda pair: pair[0].when())
            longest.transport.abort()  # by TLS, closing waits for the other side
            longest._await_nothing()
            self.connections.discard(longest)  # more may come before its end is noticed


def _ours(connections: set[Any]) -> list[HttpConnection]:
    return [each for each in connections if isinstance(each, HttpConnection)]
