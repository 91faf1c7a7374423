"""A write that is sent again under the same `Idempotency-Key` is answered as before, and done once.

Answers are kept for a day in the memory of the server: the newest 4,096 of all tokens, of up to 256 KiB each
and 64 MiB together.
After a restart, or behind so many others, a key is new, which harms nobody who labels or works on cases: the
label book knows what it holds, and case events the keys of their writes (`write_key` in the request's state).
A key whose answer is on its way is never forgotten.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streaming.serve.guard import replayed
from streaming.serve.problems import RequestRefusedError

HEADER, REPLAYED = "Idempotency-Key", "Idempotency-Replayed"
KEY_PATTERN = r"^[A-Za-z0-9._:-]{1,128}$"
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_KEPT_SECONDS = 86_400.0
_MOST_KEPT, _MOST_BYTES, _MOST_HELD = 4_096, 1 << 18, 1 << 26
_KEY = re.compile(KEY_PATTERN)
_NOT_KEPT = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.TOO_MANY_REQUESTS,
)


@dataclass
class _Kept:
    fingerprint: str
    at: float
    start: Message | None = None
    body: bytes = b""
    route: Any = None
    agent: str | None = None

    def note_what(self, scope: Scope) -> None:
        """Remember which endpoint and agent it was about, as whoever watches requests asks for them."""
        self.route, self.agent = scope.get("route"), scope["state"].get("agent")

    def restore_what(self, scope: Scope) -> None:
        """Say so of the same request that is answered from memory."""
        scope["route"], scope["state"]["agent"] = self.route, self.agent


class Idempotency:
    """Keeps the answers to writes by who asked and under which key.

    Args:
        app: asked where the answer is not known; it has `principal` in its state.
        seconds: monotonic seconds.
    """

    def __init__(self, app: ASGIApp, seconds: Callable[[], float] = time.monotonic) -> None:
        self._app, self._seconds, self._lock = app, seconds, threading.Lock()
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._held = 0  # bytes of answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        given = Headers(scope=scope).get(HEADER) if scope["type"] == "http" else None
        principal = scope.get("state", {}).get("principal")
        if given is None or principal is None or scope["method"] not in WRITES:
            await self._app(scope, receive, send)
            return
        if _KEY.fullmatch(given) is None:
            raise RequestRefusedError(HTTPStatus.BAD_REQUEST, f"expected {HEADER} to fit {KEY_PATTERN}")
        message = await receive()
        mine = _Kept(_fingerprint(scope, message.get("body", b"")), self._seconds())
        # Of another method it is another request, which may not be there at all.
        key = principal.key, f"{scope['method']} {given}"
        # What a restarted server has forgotten, tables that know their keys have not.
        scope["state"]["write_key"] = _digest(principal.key, given, mine.fingerprint)
        known = self._begun(key, mine)
        if known is not None:
            known.restore_what(scope)
            await _replay(known, send)
            return
        await self._answered(key, mine, scope, replayed(message, receive), send)

    async def _answered(
        self, key: tuple[str, str], mine: _Kept, scope: Scope, receive: Receive, send: Send
    ) -> None:
        start: list[Message] = []

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.append(message)
            else:
                mine.body += message.get("body", b"")
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            mine.note_what(scope)
            self._settle(key, mine, start[0] if start else None)

    def _begun(self, key: tuple[str, str], mine: _Kept) -> _Kept | None:
        """Begin a request, or return the answer that is known.

        Raises:
            RequestRefusedError: the key was used for another request, or that one is still being answered.
        """
        with self._lock:
            self._forget()
            known = self._kept.get(key)
            if known is None:
                self._kept[key] = mine
                return None
        if known.fingerprint != mine.fingerprint:
            said = f"this {HEADER} was used for another request"
            raise RequestRefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, said)
        if known.start is None:
            said = "the same request is still being answered"
            raise RequestRefusedError(HTTPStatus.CONFLICT, said)
        return known

    def _settle(self, key: tuple[str, str], mine: _Kept, start: Message | None) -> None:
        """Keep an answer that says what was done; others are worth another try."""
        status = HTTPStatus.INTERNAL_SERVER_ERROR if start is None else HTTPStatus(start["status"])
        lasts = status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _NOT_KEPT
        with self._lock:
            if start is None or not lasts or len(mine.body) > _MOST_BYTES:
                self._kept.pop(key, None)
            else:
                mine.start = {**start, "headers": list(start["headers"])}
                self._held += len(mine.body)

    def _forget(self) -> None:
        oldest = self._seconds() - _KEPT_SECONDS
        while (found := self._oldest_answered()) is not None:
            fits = len(self._kept) < _MOST_KEPT and self._held <= _MOST_HELD
            if fits and self._kept[found].at >= oldest:
                return
            self._held -= len(self._kept.pop(found).body)

    def _oldest_answered(self) -> tuple[str, str] | None:
        """No more keys are on their way than there are connections, so few are passed over."""
        return next((key for key, each in self._kept.items() if each.start is not None), None)


def _fingerprint(scope: Scope, body: bytes) -> str:
    parts = (scope["method"].encode(), scope["path"].encode(), scope["query_string"], body)
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


async def _replay(known: _Kept, send: Send) -> None:
    assert known.start is not None, "an answer is there once it has begun and ended"
    headers = [*known.start["headers"], (REPLAYED.lower().encode(), b"true")]
    await send({**known.start, "headers": headers})
    await send({"type": "http.response.body", "body": known.body})
