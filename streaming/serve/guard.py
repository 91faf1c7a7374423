"""What every request passes first, whatever it asks: its id, host and size; and headers of every answer."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import traceback
from collections.abc import Collection, Mapping
from http import HTTPStatus
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.errors import FlagstreamError
from streaming.output.log import log
from streaming.serve.problems import RequestRefusedError, answer_to

MOST_BYTES = 1 << 20
REQUEST_ID = "X-Request-Id"
_ID_BYTES = 16
_READ_SECONDS = 15.0
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
# A page sets its own policy; what sets none can load and run nothing.
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_OF_TLS = {"Strict-Transport-Security": "max-age=31536000"}


class Guard:
    """The outermost layer of the server.

    It refuses hosts that are not its own, so that no page of another site reaches it under another name, and
    bodies that are too large or too slow. A fault that nobody caught becomes a problem without words.

    Args:
        app: what is guarded.
        hosts: names under which the server is asked, without a port.
        tls: whether it is reached by TLS alone.
        most_bytes: of a body.
    """

    def __init__(
        self, app: ASGIApp, hosts: Collection[str], *, tls: bool = False, most_bytes: int = MOST_BYTES
    ) -> None:
        self._app, self._most_bytes = app, most_bytes
        self._hosts = frozenset(each.lower().strip("[]") for each in hosts)
        self._headers = {**_HEADERS, **(_OF_TLS if tls else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _GuardedAnswer(send, request_id, self._headers)
        try:
            self._check_host(headers)
            body = await self._body(headers, receive)
            message = {"type": "http.request", "body": body, "more_body": False}
            await self._app(scope, replayed(message, receive), answer)
        except Exception as fault:
            await _refuse(fault, scope, receive, answer, request_id)

    def _check_host(self, headers: Headers) -> None:
        found = _HOST.fullmatch(headers.get("host", ""))
        if found is None or found["name"].lower().strip("[]") not in self._hosts:
            raise RequestRefusedError(
                HTTPStatus.MISDIRECTED_REQUEST, "this server is not asked under this name; see --host"
            )

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._most_bytes:
            raise self._too_large()
        try:
            return await asyncio.wait_for(self._read(receive), _READ_SECONDS)
        except TimeoutError:
            raise RequestRefusedError(HTTPStatus.REQUEST_TIMEOUT, "the body came too slowly") from None

    async def _read(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":  # what has come by then is no body
                raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "the connection ended within the request")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._most_bytes:
                raise self._too_large()
            if not message.get("more_body"):
                return b"".join(parts)

    def _too_large(self) -> RequestRefusedError:
        said = f"a body may have {self._most_bytes:,} bytes"
        return RequestRefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, said, headers={"Connection": "close"})


class _GuardedAnswer:
    """Sends an answer on with the headers of every answer, and knows whether it has begun."""

    def __init__(self, send: Send, request_id: str, headers: Mapping[str, str]) -> None:
        self._send, self._request_id, self._headers = send, request_id, headers
        self.begun = self.ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID] = self._request_id
            for name, value in self._headers.items():
                headers.setdefault(name, value)
        await self._send(message)
        is_body = message["type"] == "http.response.body"
        self.ended = self.ended or (is_body and not message.get("more_body"))


async def _refuse(
    fault: Exception, scope: Scope, receive: Receive, answer: _GuardedAnswer, request_id: str
) -> None:
    if not isinstance(fault, FlagstreamError):
        report(fault, request_id, scope["path"])
    if answer.ended:
        return
    if answer.begun:  # its end is missing, so the client knows
        raise fault
    await answer_to(fault).response(request_id)(scope, receive, answer)


def report(fault: Exception, request_id: str, path: str) -> None:
    """Log a fault of ours by its place; its message may quote outsiders. The client reads the id alone."""
    at = traceback.extract_tb(fault.__traceback__)[-1]
    said = str(fault) if isinstance(fault, FlagstreamError) else type(fault).__name__
    where = f"{Path(at.filename).name}:{at.lineno}"
    log("request_failed", f"{path}: {said} at {where}", level=logging.ERROR, request=request_id)


def _request_id(headers: Headers) -> str:
    given = headers.get(REQUEST_ID, "")
    return given if _GIVEN_ID.fullmatch(given) else secrets.token_hex(_ID_BYTES)


def replayed(message: Message, receive: Receive) -> Receive:
    """Return a message that was read to whoever asks first; later, whether the client has gone."""
    left = [message]

    async def next_message() -> Message:
        return left.pop() if left else await receive()

    return next_message
