"""Whoever opens connections and asks nothing keeps nobody from asking."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field

import httpx2
import pytest
from starlette.types import Message, Receive, Scope, Send

from streaming.home.listen import ListenAddress
from streaming.serve import connections, http_server
from streaming.serve.http_server import Listening, serve_until

SECONDS = 20.0
HALF = b"GET / HTTP/1.1\r\nHost: loc"


@dataclass
class SlowAnswers:
    """An application whose answers wait until `go_on` is called."""

    begun: threading.Event = field(default_factory=threading.Event)
    loop: asyncio.AbstractEventLoop | None = None
    may_end: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": f"{(await receive())['type']}.complete"})
            return
        if scope["path"] == "/slow":
            self.loop, self.may_end = asyncio.get_running_loop(), asyncio.Event()
            self.begun.set()
            await self.may_end.wait()
        start: Message = {"type": "http.response.start", "status": 200, "headers": []}
        await send(start)
        await send({"type": "http.response.body", "body": b"done"})

    def go_on(self) -> None:
        assert self.loop is not None
        assert self.may_end is not None
        self.loop.call_soon_threadsafe(self.may_end.set)


@contextmanager
def listening(app: SlowAnswers) -> Iterator[int]:
    ports, stop, started = list[int](), threading.Event(), threading.Event()

    def say(port: int) -> None:
        ports.append(port)
        started.set()

    where = Listening(ListenAddress(0))
    thread = threading.Thread(target=serve_until, args=(app, where, stop, say))
    thread.start()
    try:
        assert started.wait(SECONDS)
        yield ports[0]
    finally:
        stop.set()
        thread.join(SECONDS)


def opened(port: int, sent: bytes = b"") -> socket.socket:
    found = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
    found.sendall(sent)
    return found


def ends(connection: socket.socket) -> bool:
    """Wait until the server has closed a connection to which it has said nothing."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("sent", [b"", HALF])
def test_who_sends_no_whole_request_is_not_waited_for(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    with listening(SlowAnswers()) as port, closing(opened(port, sent)) as silent:
        assert ends(silent)


def test_an_answer_has_all_the_time_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    app = SlowAnswers()
    with (
        listening(app) as port,
        closing(opened(port, b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")) as slow,
    ):
        assert app.begun.wait(SECONDS)
        with closing(opened(port)) as later:
            assert ends(later)  # so the time of the first has passed as well
        app.go_on()
        assert slow.recv(12) == b"HTTP/1.1 200"


def test_where_all_places_are_taken_by_who_asks_nothing_another_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (connections, http_server):
        monkeypatch.setattr(module, "MOST_CONNECTIONS", 4)
    with listening(SlowAnswers()) as port, ExitStack() as held:
        silent = [held.enter_context(closing(opened(port, HALF))) for _ in range(10)]
        for _ in range(3):
            assert httpx2.get(f"http://127.0.0.1:{port}/", timeout=SECONDS).text == "done"
        assert ends(silent[0]), "the one that has waited longest"
