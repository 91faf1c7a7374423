"""What tests of deliveries share: alerts, and a receiver on loopback that does what it is asked to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import orjson

from streaming.consume.received import Received
from streaming.notify.notices import Notice
from streaming.notify.sample import sample_alert

SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
OLDER_SECRET = "whsec_" + "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


class Arrived(NamedTuple):
    """A request as it came in."""

    headers: Mapping[str, str]
    body: bytes


Step = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int, body: bytes = b"", **headers: str) -> Step:
    """Answer with a status, headers (underscores stand for dashes) and a body."""

    def step(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return step


class Desk:
    """A receiver that keeps what arrives and takes one step of its script per request, 204 after them."""

    def __init__(self) -> None:
        self.arrived, self.script = list[Arrived](), list[Step]()
        self.over = threading.Event()
        self._server = _server_of(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/alerts"

    def close(self) -> None:
        """Let go of whoever is kept waiting, and end."""
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _server_of(desk: Desk) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            desk.arrived.append(Arrived({k.lower(): v for k, v in self.headers.items()}, body))
            step = desk.script.pop(0) if desk.script else answer(204)
            with suppress(OSError):  # whoever asked may hang up
                step(self)

        def log_message(self, *_: Any) -> None:
            """Keep the test output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    return server


@contextmanager
def desk() -> Iterator[Desk]:
    """Run a receiver for the length of a block."""
    found = Desk()
    try:
        yield found
    finally:
        found.close()


def alert(number: int = 0, revision: int = 1, **changes: Any) -> dict[str, Any]:
    """An alert as it lies on the topic, of agent `payments`."""
    document = orjson.loads(sample_alert("payments"))
    return {**document, "alert_id": f"{number:032x}", "revision": revision, **changes}


def received(document: Mapping[str, Any], offset: int = 0, partition: int = 0) -> Received:
    """The same as a reader of the topic has it."""
    return Received(dict(document), orjson.dumps(document), partition, offset)


def notice(**changes: Any) -> Notice:
    """An alert on its way out."""
    return Notice.of(received(alert(**changes)))
