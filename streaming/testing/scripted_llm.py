"""A real HTTP server on loopback that speaks /v1/chat/completions and misbehaves on command.

Each request takes the next step of the script; when the script is over, the server answers as asked. Nothing
sleeps: a slow or hanging step waits for the server's own end.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, cast

from agent.triage.disclosure import citations

FinishReason = Literal["stop", "length", "content_filter"]


@dataclass(frozen=True)
class LlmRequest:
    """What arrived: parsed body, headers, the client's port, which tells connections apart, and the path."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    client_port: int
    path: str = "/v1/chat/completions"

    @property
    def groups(self) -> dict[str, dict[str, Any]]:
        """What is disclosed about each group that is asked about, by what the request calls it."""
        return groups_in(self.user_message)

    @property
    def asked(self) -> dict[str, list[str]]:
        """What the classification of each group may cite, by what the request calls the group."""
        return {name: list(dict.fromkeys(citations(facts))) for name, facts in self.groups.items()}

    @property
    def user_message(self) -> str:
        """The message that carries the data."""
        return str(self.body["messages"][-1]["content"])


@dataclass(frozen=True)
class LlmReply:
    """What goes back, and after how long; `status` None closes the connection without a word."""

    status: int | None = 200
    body: Mapping[str, Any] | list[Any] | str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


LlmStep = Callable[[LlmRequest], LlmReply]


def groups_in(message: str) -> dict[str, dict[str, Any]]:
    """Return what a message of triage discloses, by what it calls each group."""
    data = message.rpartition("<data>")[2].partition("</data>")[0]
    return cast("dict[str, dict[str, Any]]", json.loads(data))


def completion(
    content: str | None,
    *,
    finish: FinishReason = "stop",
    refusal: str | None = None,
    tokens: tuple[int, int] = (100, 20),
) -> dict[str, Any]:
    """Return a chat completion as the protocol has it, using so many prompt and completion tokens."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "local",
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": {
            "prompt_tokens": tokens[0],
            "completion_tokens": tokens[1],
            "total_tokens": sum(tokens),
        },
    }


def classification(request: LlmRequest, **changes: Any) -> str:
    """Return a valid answer to `request` as JSON, with some keys of every classification changed."""
    return json.dumps(
        {
            name: {
                "evidence": citable[:1],
                "classification": "card_testing",
                "severity": "high",
                "rationale": "rapid small amounts",
                **changes,
            }
            for name, citable in request.asked.items()
        }
    )


def answer(**changes: Any) -> LlmStep:
    """Answer as asked, with `changes` to each classification's keys: a wrong enum, other evidence."""
    return lambda request: LlmReply(body=completion(classification(request, **changes)))


def edited(edit: Callable[[dict[str, Any]], object]) -> LlmStep:
    """Answer as asked, the whole answer changed in place: ids left out, put elsewhere, made up."""

    def step(request: LlmRequest) -> LlmReply:
        content = json.loads(classification(request))
        edit(content)
        return LlmReply(body=completion(json.dumps(content)))

    return step


def counted() -> LlmStep:
    """Answer as asked, using a token for each 2.5 characters, which is what our JSON takes."""

    def step(request: LlmRequest) -> LlmReply:
        asked = sum(len(each["content"]) for each in request.body["messages"])
        said = classification(request)
        return LlmReply(body=completion(said, tokens=(asked * 2 // 5, len(said) * 2 // 5)))

    return step


def answers(write: Callable[[LlmRequest], str]) -> LlmStep:
    """Answer with what `write` makes of the request."""
    return lambda request: LlmReply(body=completion(write(request)))


def says(content: str | None) -> LlmStep:
    """Answer with this text, whatever was asked."""
    return lambda _: LlmReply(body=completion(content))


def truncated() -> LlmStep:
    """Stop at the output limit, in the middle of the answer."""
    return lambda request: LlmReply(body=completion(classification(request)[:30], finish="length"))


def refused() -> LlmStep:
    """Refuse in the protocol's own field."""
    return lambda _: LlmReply(body=completion(None, refusal="I cannot help with that"))


def filtered() -> LlmStep:
    """Stop at a content filter."""
    return lambda _: LlmReply(body=completion("", finish="content_filter"))


def slow(seconds: float) -> LlmStep:
    """Answer as asked, late."""
    return lambda request: LlmReply(body=completion(classification(request)), delay=seconds)


def hang() -> LlmStep:
    """Accept the request and never answer."""
    return lambda _: LlmReply(status=None, delay=3600)


def depending(on: str, then: LlmStep, otherwise: LlmStep | None = None) -> LlmStep:
    """Take one step where the data holds a text, another where it does not."""
    other = otherwise or answer()
    return lambda request: (then if on in request.user_message else other)(request)


def closed() -> LlmStep:
    """Close the connection instead of answering."""
    return lambda _: LlmReply(status=None)


def fails(status: int, *, param: str | None = None, code: str | None = None, **headers: str) -> LlmStep:
    """Fail with an HTTP status; underscores in header names mean hyphens. The body repeats the key."""

    def step(request: LlmRequest) -> LlmReply:
        message = f"failed for {request.headers.get('authorization', '')}"
        error = {"message": message, "type": "scripted", "param": param, "code": code}
        plain = {name.replace("_", "-"): value for name, value in headers.items()}
        return LlmReply(status=status, body={"error": error}, headers=plain)

    return step


def not_json() -> LlmStep:
    """Answer 200 with a page that is not JSON at all."""
    return lambda _: LlmReply(body="<html>welcome</html>", headers={"content-type": "text/html"})


class ScriptedLlm:
    """The running server; `requests` grows as they arrive."""

    def __init__(self, script: Iterable[LlmStep], default: LlmStep) -> None:
        """Listen on a free loopback port and serve from a background thread."""
        self.requests: list[LlmRequest] = []
        self._script, self._default = iter(script), default
        self._lock, self._ending = threading.Lock(), threading.Event()
        self._server = _LlmServer(self._reply)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def base_url(self) -> str:
        """The API root to give to a client."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def connections(self) -> int:
        """How many connections carried requests."""
        return len({request.client_port for request in self.requests})

    def close(self) -> None:
        """Release every waiting step, stop listening and wait for all threads."""
        self._ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _reply(self, request: LlmRequest) -> LlmReply:
        with self._lock:
            self.requests.append(request)
            step = next(self._script, self._default)
        reply = step(request)
        ended = self._ending.wait(reply.delay) if reply.delay else False
        return LlmReply(status=None) if ended else reply


class _LlmServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, reply_to: LlmStep) -> None:
        super().__init__(("127.0.0.1", 0), _LlmHandler)
        self.reply_to = reply_to

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that give up on a slow step are expected."""


class _LlmHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = LlmRequest(body, headers, self.client_address[1], self.path)
        reply = cast("_LlmServer", self.server).reply_to(request)
        if reply.status is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._send(reply, reply.status)

    def _send(self, reply: LlmReply, status: int) -> None:
        content = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        headers = {"content-type": "application/json", **reply.headers}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content.encode())))
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_: Any) -> None:
        """Keep the test output clean."""


@contextmanager
def scripted_llm(*script: LlmStep, default: LlmStep | None = None) -> Iterator[ScriptedLlm]:
    """Run a server for the length of a block; `default` serves once the script is over."""
    server = ScriptedLlm(script, default or answer())
    try:
        yield server
    finally:
        server.close()


@contextmanager
def nobody_listening() -> Iterator[str]:
    """Hold a port on which connections are refused, and give its API root."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/v1"
