"""A real HTTP server on loopback that stands for a workspace or a webhook and answers by a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast


@dataclass(frozen=True)
class HttpAnswer:
    """What goes back."""

    status: int = 200
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HttpRequest:
    """What arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


class ScriptedHttp:
    """The running server: `answers` by path, `asked` grows as requests arrive."""

    def __init__(self, answers: Mapping[str, HttpAnswer]) -> None:
        """Listen on a free loopback port and serve from a background thread."""
        self.answers, self.asked = dict(answers), list[HttpRequest]()
        self._server = _HttpServer(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def to(self, path: str) -> list[HttpRequest]:
        """Return the requests to one path."""
        return [each for each in self.asked if each.path == path]

    def close(self) -> None:
        """Stop listening and wait for all threads."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, owner: ScriptedHttp) -> None:
        super().__init__(("127.0.0.1", 0), _HttpHandler)
        self.owner = owner


class _HttpHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        owner = cast("_HttpServer", self.server).owner
        content = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        owner.asked.append(
            HttpRequest(self.command, self.path, headers, json.loads(content) if content else None)
        )
        answer = owner.answers.get(self.path, HttpAnswer(404))
        self.send_response(answer.status)
        for name, value in {"content-type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(answer.body).encode())

    def log_message(self, *_: Any) -> None:
        """Keep the test output clean."""


@contextmanager
def scripted_http(**answers: HttpAnswer) -> Iterator[ScriptedHttp]:
    """Run a server for the length of a block; underscores in the names of answers stand for slashes."""
    server = ScriptedHttp({f"/{name.replace('_', '/')}": answer for name, answer in answers.items()})
    try:
        yield server
    finally:
        server.close()


Handled = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def handled_http(handled: Handled) -> Iterator[str]:
    """Run a server that lets `handled` answer every POST as it likes; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", "0")))
            with suppress(OSError):  # whoever asked may hang up
                handled(self)

        def log_message(self, *_: Any) -> None:
            """Keep the test output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
