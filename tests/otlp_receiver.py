"""A collector on loopback that takes OTLP over HTTP and keeps what it was sent, decoded."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class SentSpan:
    """A span as it came: ids in hex, attributes as plain values."""

    name: str
    trace_id: str
    span_id: str
    parent: str
    kind: int
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    failed: bool
    status_message: str
    service: str


@dataclass
class Collector:
    """What has come so far.

    Attributes:
        status: with which requests are answered.
        raw: bodies, as they came.
    """

    port: int = 0
    status: int = 200
    spans: list[SentSpan] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def named(self, name: str) -> list[SentSpan]:
        """The spans of a name."""
        return [each for each in self.spans if each.name == name]

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        """Decode a request."""
        plain = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        request = ExportTraceServiceRequest.FromString(plain)
        self.headers.append(headers)
        self.raw.append(plain)
        for resource in request.resource_spans:
            about = _values(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_span(each, about["service.name"]) for each in scope.spans]


def _span(each: Any, service: str) -> SentSpan:
    return SentSpan(
        each.name, each.trace_id.hex(), each.span_id.hex(), each.parent_span_id.hex(), each.kind,
        each.start_time_unix_nano, each.end_time_unix_nano, _values(each.attributes),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in each.links),
        each.status.code == 2, each.status.message, service,
    )  # fmt: skip


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextmanager
def collector() -> Iterator[Collector]:
    """Listen on a free port."""
    kept = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            if self.path == "/v1/traces" and kept.status == 200:
                kept.take(body, headers)
            self.send_response(kept.status if self.path == "/v1/traces" else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
