"""The proxy of `spoiled_store`, in a process of its own: `python -m streaming.testing.store_proxy UPSTREAM`.

In the process of a test it would wait for the lock of Python, which some calls of Delta hold while they
wait for the store.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, cast
from urllib.parse import urlsplit

from streaming.output.terminal import print_json
from streaming.testing.spoiled_store import token_key

_CONDITIONS = ("if-none-match", "if-match")
_OF_A_CONNECTION = {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"}
_ANSWER_SECONDS = 60.0
_CODES = {
    400: "ExpiredToken",
    401: "InvalidAccessKeyId",
    403: "AccessDenied",
    404: "NoSuchBucket",
    409: "ConditionalRequestConflict",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
}


class StoreHandler(BaseHTTPRequestHandler):
    """One connection of a client, with one of its own to the store behind."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else small answers wait 40 ms
    wbufsize = -1
    _behind: HTTPConnection | None = None

    def do_any(self) -> None:
        """Take a request: note it, delay it, spoil it or pass it on."""
        proxy = cast("StoreProxy", self.server)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        order = proxy.take(self._request())
        with suppress(ConnectionError):  # whoever asked may have given up
            self.pass_on() if order is None else _spoil(self, order)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any  # noqa: N815 - the names that the server calls

    def pass_on(self, *, without: tuple[str, ...] = ()) -> None:
        """Ask the store behind and return its answer.

        Args:
            without: headers, in lower case, that it does not get.
        """
        self.reply(*self.asked_behind(without=without))

    def asked_behind(self, *, verb: str = "", without: tuple[str, ...] = ()) -> tuple[HTTPResponse, bytes]:
        """Ask the store behind and return its answer with the content, which nobody has received yet."""
        for attempt in (1, 2):
            try:
                return self._asked_once(verb or self.command, without)
            except (HTTPException, ConnectionError):  # it has closed a connection that was idle
                self._behind = None
                if attempt > 1:
                    raise
        raise AssertionError("unreachable")

    def refuse(self, status: int, code: str = "", detail: str = "") -> None:
        """Answer with a status, as S3 and Azure word it."""
        code = code or _CODES[status]
        said = f"<Code>{code}</Code><Message>{code}.</Message>"
        said += f"<AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail>" if detail else ""
        text = f"<?xml version='1.0'?><Error>{said}</Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("x-ms-error-code", code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def hang_up(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(2)

    def reply(self, answer: HTTPResponse, content: bytes) -> None:
        """Return an answer of the store behind."""
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _OF_A_CONNECTION:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def finish(self) -> None:
        """See the base class; the connection behind ends with the client's."""
        if self._behind is not None:
            self._behind.close()
        with suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Keep the test output clean."""

    def _asked_once(self, verb: str, without: tuple[str, ...]) -> tuple[HTTPResponse, bytes]:
        proxy = cast("StoreProxy", self.server)
        if self._behind is None:
            self._behind = proxy.connection()
        body = self.body if verb == self.command else b""
        self._behind.putrequest(verb, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in {"expect", "connection", "content-length", *without}:
                self._behind.putheader(name, value)
        if body or verb in {"PUT", "POST"}:
            self._behind.putheader("Content-Length", str(len(body)))
        self._behind.endheaders(body or None)
        answer = self._behind.getresponse()
        return answer, answer.read()

    def _request(self) -> dict[str, Any]:
        parts = urlsplit(self.path)
        listing = self.command == "GET" and ("list-type=" in parts.query or "comp=list" in parts.query)
        verb = "LIST" if listing else self.command
        key = _key_of(self.headers.get("Authorization", ""))
        return {"verb": verb, "path": parts.path, "query": parts.query, "key": key}


def _key_of(authorization: str) -> str:
    if authorization.startswith("Bearer "):
        return token_key(authorization.removeprefix("Bearer "))
    return authorization.partition("Credential=")[2].partition("/")[0]


def _spoil(handler: StoreHandler, how: Mapping[str, Any]) -> None:
    _SPOILINGS[how["kind"]](handler, how)


def _refused(handler: StoreHandler, how: Mapping[str, Any]) -> None:
    handler.refuse(how["status"], how["code"], how["detail"])


def _dropped(handler: StoreHandler, _: Mapping[str, Any]) -> None:
    handler.hang_up()


def _lost_answer(handler: StoreHandler, _: Mapping[str, Any]) -> None:
    handler.asked_behind()
    handler.hang_up()


def _refused_after_all(handler: StoreHandler, _: Mapping[str, Any]) -> None:
    handler.asked_behind()
    handler.refuse(503)


def _late(handler: StoreHandler, how: Mapping[str, Any]) -> None:
    time.sleep(how["seconds"])
    handler.pass_on()


def _unconditional(handler: StoreHandler, _: Mapping[str, Any]) -> None:
    handler.pass_on(without=_CONDITIONS)


def _checked_beforehand(handler: StoreHandler, how: Mapping[str, Any]) -> None:
    new = handler.headers.get("if-none-match")
    if new and handler.asked_behind(verb="HEAD")[0].status == HTTPStatus.OK:
        handler.refuse(412, "PreconditionFailed")
        return
    time.sleep(how["seconds"])
    handler.pass_on(without=("if-none-match",))


_SPOILINGS: Mapping[str, Callable[[StoreHandler, Mapping[str, Any]], None]] = {
    "refused": _refused,
    "dropped": _dropped,
    "lost_answer": _lost_answer,
    "refused_after_all": _refused_after_all,
    "late": _late,
    "unconditional": _unconditional,
    "checked_beforehand": _checked_beforehand,
}


class StoreProxy(ThreadingHTTPServer):
    """The listening proxy.

    Args:
        endpoint: address of the store behind.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), StoreHandler)
        parts = urlsplit(endpoint)
        self._behind, self.delay = parts.netloc, 0.0
        # What SSL_CERT_FILE names is trusted.
        self._trusted = ssl.create_default_context() if parts.scheme == "https" else None
        self._requests: list[dict[str, Any]] = []
        self._places = count(1)
        self._lock, self._order = threading.Lock(), dict[str, Any]()

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def connection(self) -> HTTPConnection:
        """Return a new connection to the store behind."""
        if self._trusted is None:
            return HTTPConnection(self._behind, timeout=_ANSWER_SECONDS)
        return HTTPSConnection(self._behind, timeout=_ANSWER_SECONDS, context=self._trusted)

    def obey(self, order: Mapping[str, Any]) -> object:
        """Carry out an order: what to spoil, how long to delay, or which requests there were."""
        with self._lock:
            if "spoil" in order:
                self._order = dict(order["spoil"] or {})
            if "delay" in order:
                self.delay = order["delay"]
            return self._requests[order["since"] :] if "since" in order else True

    def take(self, request: dict[str, Any]) -> Mapping[str, Any] | None:
        """Note a request, delay it, and return how it is spoiled."""
        with self._lock:
            order = self._order if self._concerns(request) else None
            if order is not None:
                order["times"] -= 1
            place = {"arrived": next(self._places), "let_through": 0}
            noted = {**request, **place, "spoilt": order is not None}
            self._requests.append(noted)
        if self.delay:
            time.sleep(self.delay)
        noted["let_through"] = next(self._places)
        return order

    def handle_error(self, *_: Any) -> None:
        """Say nothing: clients and the store behind go away in the middle of things."""

    def _concerns(self, request: Mapping[str, Any]) -> bool:
        order = self._order
        return bool(
            order
            and order["times"] > 0
            and order["verb"] in ("", request["verb"])
            and order["key"] in ("", request["key"])
            and order["match"] in f"{request['path']}?{request['query']}"
        )


def main(upstream: str) -> None:
    """Obey the orders that come as lines of JSON, until standard input ends."""
    proxy = StoreProxy(upstream)
    threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
    print_json(proxy.address)
    for line in sys.stdin:
        print_json(proxy.obey(json.loads(line)))


if __name__ == "__main__":
    main(*sys.argv[1:])
