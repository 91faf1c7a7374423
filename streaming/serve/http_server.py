"""Listens, and answers until it is asked to stop: uvicorn, run by the rules of this project's services."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from schemas.errors import ConfigurationError, MachineError
from streaming.home.listen import LOOPBACK, ListenAddress, is_free
from streaming.serve.connections import HEAD_SECONDS, MOST_CONNECTIONS, HttpConnection

_GRACE_SECONDS = 10
_OWN = frozenset({LOOPBACK, "localhost", "::1"})


@dataclass(frozen=True)
class Listening:
    """Where a server listens, and how it is kept from others.

    Attributes:
        address: host and port; port 0 is any that is free.
        certificate: PEM file of a chain, None for plain HTTP.
        key: PEM file of its private key.
        is_public: plain HTTP for other machines is meant, as behind a proxy that ends TLS.

    Raises:
        ConfigurationError: other machines would reach it by plain HTTP, or one of two files is missing.
    """

    address: ListenAddress
    certificate: Path | None = None
    key: Path | None = None
    is_public: bool = False

    def __post_init__(self) -> None:
        """Check what must not happen by mistake."""
        if (self.certificate is None) != (self.key is None):
            raise ConfigurationError("--tls-certificate and --tls-key go together", where="--tls-certificate")
        if self.address.host not in _OWN and not self.tls and not self.is_public:
            raise ConfigurationError(
                "other machines would send their tokens by plain HTTP: name --tls-certificate and --tls-key, "
                "or say --plain-http where a proxy in front ends TLS",
                where="--listen",
            )

    @property
    def tls(self) -> bool:
        """Whether it is reached by TLS."""
        return self.certificate is not None

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names under which it is asked by itself."""
        anywhere = self.address.host in ("0.0.0.0", "::")
        return tuple(_OWN) if anywhere else (*_OWN, self.address.host)


class HttpServer(uvicorn.Server):
    """Answers until `stop` is set; then it takes no more requests and ends those that it has.

    Args:
        asgi: what answers.
        listening: where.
        stop: set from outside.
        on_started: called with the port once it listens.
        on_stopping: called before those that still read an answer are waited for.
    """

    def __init__(
        self,
        asgi: ASGIApp,
        listening: Listening,
        stop: threading.Event,
        on_started: Callable[[int], None],
        on_stopping: Callable[[], None],
    ) -> None:
        super().__init__(_config(asgi, listening))
        self._stop, self._on_started, self._on_stopping = stop, on_started, on_stopping

    async def startup(self, sockets: object = None) -> None:
        """See uvicorn.Server."""
        await super().startup(sockets)  # type: ignore[arg-type]  # sockets, passed on as they came
        if self.started:
            self._on_started(self.servers[0].sockets[0].getsockname()[1])

    async def shutdown(self, sockets: object = None) -> None:
        """See uvicorn.Server."""
        self._on_stopping()
        await super().shutdown(sockets)  # type: ignore[arg-type]  # as above

    async def on_tick(self, counter: int) -> bool:
        """See uvicorn.Server."""
        return await super().on_tick(counter) or self._stop.is_set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever has started the server."""
        yield


def serve_until(
    asgi: ASGIApp,
    listening: Listening,
    stop: threading.Event,
    on_started: Callable[[int], None],
    on_stopping: Callable[[], None] = lambda: None,
) -> None:
    """Serve from here until `stop` is set.

    Raises:
        MachineError: somebody else listens there, or nobody may.
        ConfigurationError: the files of TLS cannot be used.
    """
    if not is_free(listening.address):
        raise MachineError(f"nobody can listen at {listening.address}: name another port with --listen")
    server = HttpServer(asgi, listening, stop, on_started, on_stopping)
    try:
        server.config.load()
    except (OSError, ValueError) as fault:
        where = f"{listening.certificate}, {listening.key}"
        raise ConfigurationError(f"cannot be used for TLS: {fault}", where=where) from None
    server.run()


def _config(asgi: ASGIApp, listening: Listening) -> uvicorn.Config:
    return uvicorn.Config(
        asgi,
        host=listening.address.host,
        port=listening.address.port,
        ssl_certfile=listening.certificate,
        ssl_keyfile=listening.key,
        http=HttpConnection,
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=int(HEAD_SECONDS),
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
