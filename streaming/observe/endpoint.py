"""The HTTP endpoint of a process: `/metrics`, `/livez` and `/readyz`. Nothing is changed by it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from socketserver import TCPServer
from typing import Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from schemas.errors import MachineError
from streaming.home.listen import ListenAddress
from streaming.output.log import log

_SILENT_SECONDS, _LONGEST_SECONDS = 10.0, 30.0
_MOST_CONNECTIONS = 200  # each takes a thread and a descriptor of the process that is watched
_CLOSE_SECONDS = 5.0


class HealthReport(Protocol):
    """How a process is; see streaming.observe.readiness.Readiness."""

    def why_not_live(self) -> str | None:
        """Say why the process should be ended and begun anew, None where it should not."""

    def why_not_ready(self) -> str | None:
        """Say what it waits for, None where it works."""


class MetricsEndpoint:
    """Serves metrics and health from threads of its own, from here to `close`.

    Args:
        address: where it listens; port 0 is any that is free.
        registry: the metrics that are served.
        readiness: says how the process is.
        refresh: called before metrics are served: brings up to date what is not counted as it happens.

    Raises:
        MachineError: somebody else listens there, or nobody may.
    """

    def __init__(
        self,
        address: ListenAddress,
        registry: CollectorRegistry,
        readiness: HealthReport,
        refresh: Callable[[], None] = lambda: None,
    ) -> None:
        self._metrics, self._refresh = make_wsgi_app(registry), refresh
        self._pages: dict[str, WSGIApplication] = {
            "/metrics": self._scraped,
            "/livez": lambda _, start: _health(start, readiness.why_not_live()),
            "/readyz": lambda _, start: _health(start, readiness.why_not_ready()),
        }
        self._server = _listening(address, self._app)
        self.address = ListenAddress(self._server.server_port, address.host)
        # No worker: it serves until it is closed, and each request is answered in a thread of its own.
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where metrics are, as somebody on this machine reaches them."""
        anywhere = self.address.host in ("0.0.0.0", "::")
        shown = ListenAddress(self.address.port) if anywhere else self.address
        return f"http://{shown}/metrics"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_CLOSE_SECONDS)

    def _app(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        page = self._pages.get(environ.get("PATH_INFO", ""))
        if page is None:
            return _text(start, "404 Not Found", f"there are {', '.join(self._pages)}")
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return _text(start, "405 Method Not Allowed", "only GET")
        return page(environ, start)

    def _scraped(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        self._refresh()
        found: Iterable[bytes] = self._metrics({**environ, "REQUEST_METHOD": "GET"}, start)
        return found


@contextmanager
def metrics_served(
    address: ListenAddress | None,
    registry: CollectorRegistry,
    readiness: HealthReport,
    refresh: Callable[[], None],
    agent: str,
) -> Iterator[None]:
    """Serve metrics and health meanwhile, and say where; nothing is served without an address.

    Args:
        address: see MetricsEndpoint.
        registry: see MetricsEndpoint.
        readiness: see MetricsEndpoint.
        refresh: see MetricsEndpoint.
        agent: whose metrics they are, for the log.

    Raises:
        MachineError: see MetricsEndpoint.
    """
    if address is None:
        yield
        return
    endpoint = MetricsEndpoint(address, registry, readiness, refresh)
    try:
        log("metrics_served", f"metrics at {endpoint.url}", agent=agent, url=endpoint.url)
        yield
    finally:
        endpoint.close()


class _Handler(WSGIRequestHandler):
    """Logs no request, and waits for none for ever."""

    timeout = _SILENT_SECONDS

    def log_message(self, *_: Any) -> None:
        """See WSGIRequestHandler."""


class _Server(ThreadingWSGIServer):
    """Looks up no names, which may take long; a client that goes away is no fault.

    However many connect, and however slowly they speak, it holds so many connections for so long.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        self._held: dict[socket.socket, float] = {}
        super().__init__(*args, **more)

    def process_request(self, request: Any, client_address: Any) -> None:
        """See socketserver.ThreadingMixIn."""
        if len(self._held) >= _MOST_CONNECTIONS:
            self.shutdown_request(request)
            return
        self._held[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """See socketserver.BaseServer."""
        super().shutdown_request(request)
        self._held.pop(request, None)

    def service_actions(self) -> None:
        """See socketserver.BaseServer: called twice a second."""
        for connection, since in self._held.copy().items():
            if time.monotonic() - since > _LONGEST_SECONDS:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        """See socketserver.TCPServer."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, *_: object) -> None:
        """See socketserver.BaseServer, which would print a traceback."""


class _Server6(_Server):
    """The same over IPv6."""

    address_family = socket.AF_INET6


def _listening(address: ListenAddress, app: WSGIApplication) -> WSGIServer:
    kind = _Server6 if ":" in address.host else _Server
    try:
        return make_server(address.host, address.port, app, kind, _Handler)
    except OSError as fault:
        raise MachineError(
            f"metrics cannot be served at {address}: {fault.strerror or fault}; name another port, or `off`"
        ) from None


def _health(start: StartResponse, problem: str | None) -> Iterable[bytes]:
    if problem is None:
        return _text(start, "200 OK", "ok")
    return _text(start, "503 Service Unavailable", problem)


def _text(start: StartResponse, status: str, text: str) -> Iterable[bytes]:
    body = f"{text}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    start(status, [*headers, ("Cache-Control", "no-store")])
    return [body]
