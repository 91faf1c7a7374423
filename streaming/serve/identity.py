"""Who asks, found out once per request, and how often they may."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from schemas.counts import count_of
from schemas.errors import RetryableError
from streaming.serve.known_tokens import KnownTokens
from streaming.serve.paced_work import LONGEST_WAIT_SECONDS
from streaming.serve.problems import RequestRefusedError
from streaming.serve.rates import Rates
from streaming.tokens.principal import Principal

_BEARER = "bearer"


class Authenticator(Protocol):
    """A way to be known to the server: a bearer token, or a page's cookie."""

    async def identify(self, asked: HTTPConnection) -> Principal | None:
        """Return who asks, None where this way says nothing of them; no disk is read in the event loop."""


class BearerTokens:
    """Knows those who send `Authorization: Bearer`.

    Args:
        book: of all tokens.
    """

    def __init__(self, book: KnownTokens) -> None:
        self._book = book
        # Whoever sends tokens that nobody knows takes no threads from those who are known.
        self._one_at_a_time = asyncio.Lock()

    async def identify(self, asked: HTTPConnection) -> Principal | None:
        """See Authenticator."""
        kind, _, sent = asked.headers.get("authorization", "").partition(" ")
        if kind.lower() != _BEARER:
            return None
        text = sent.strip()
        if self._book.is_worth_reading(text):
            return await self._read_for(text)
        return self._book.principal(text)

    async def _read_for(self, text: str) -> Principal | None:
        await self._wait()
        try:
            # Another may have had the tables read meanwhile.
            if self._book.is_worth_reading(text):
                return await run_in_threadpool(self._book.read_for, text)
        finally:
            self._one_at_a_time.release()
        return self._book.principal(text)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                await self._one_at_a_time.acquire()
        except TimeoutError:
            raise RetryableError("other tokens are still being looked for: ask again soon") from None


class Identity:
    """Puts who asks into the request's state, as `principal`; None where nobody knows them.

    Beside it is `ask_again`, which finds that out anew: an answer that goes on for ever outlives tokens.

    Args:
        app: asked next; it refuses what needs somebody.
        ways: asked in their order.
        rates: of all who ask.
    """

    def __init__(self, app: ASGIApp, ways: Sequence[Authenticator], rates: Rates) -> None:
        self._app, self._ways, self._rates = app, tuple(ways), rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            asked = HTTPConnection(scope)
            principal = await self._principal(asked)
            scope.setdefault("state", {})["principal"] = principal
            scope["state"]["ask_again"] = partial(self._principal, asked)
            if principal is not None:
                self._count(principal)
        await self._app(scope, receive, send)

    async def _principal(self, asked: HTTPConnection) -> Principal | None:
        for way in self._ways:
            found = await way.identify(asked)
            if found is not None:
                return found
        return None

    def _count(self, principal: Principal) -> None:
        seconds = self._rates.wait(principal.key, principal.per_minute)
        if seconds:
            said = f"this token may make {count_of(principal.per_minute, 'request')} a minute"
            headers = {"Retry-After": str(math.ceil(seconds))}
            raise RequestRefusedError(HTTPStatus.TOO_MANY_REQUESTS, said, headers=headers)
