"""`flagstream serve`: the HTTP API and the console of agents, until Ctrl-C."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigurationError
from streaming.commands.own_console import OwnConsole, own_token
from streaming.console.console import server_with_console
from streaming.home.listen import LOOPBACK, ListenAddress
from streaming.home.placed_agent import PlacedAgent
from streaming.observe.desk_metrics import ServedState, ServeMetrics
from streaming.observe.endpoint import metrics_served
from streaming.output.log import log
from streaming.serve.api import Reach, Server
from streaming.serve.http_server import Listening, serve_until
from streaming.serve.served_agent import ServedAgent
from streaming.serve.watched import RequestWatch, nobody_watches
from streaming.service.interrupts import stop_on_interrupt

POLITE = 5  # to an agent on the same cores


@dataclass(frozen=True)
class ServeOptions:
    """How a server is run.

    Attributes:
        listening: where it listens.
        hosts: further names under which it is asked.
        llm: whom the planning agent asks.
        scores: whether events are scored.
        opens: whether the console is opened in a browser, with a token of its own.

    Raises:
        ConfigurationError: a browser of this machine cannot sign in there.
    """

    listening: Listening
    hosts: tuple[str, ...] = ()
    llm: str = "none"
    scores: bool = False
    opens: bool = False

    def __post_init__(self) -> None:
        """Check the words."""
        if self.opens and (self.listening.tls or self.listening.address.host != LOOPBACK):
            said = "it signs a browser of this machine in, and takes no --listen HOST:PORT and no TLS"
            raise ConfigurationError(said, where="--console")


def serve(agents: Sequence[PlacedAgent], options: ServeOptions) -> None:
    """Serve agents until this process is asked to stop.

    Raises:
        ConfigurationError: a spec, what it names, or a file of TLS cannot be used.
        MachineError: somebody else listens there, or where metrics are to be served.
    """
    os.nice(POLITE)
    names = [each.name for each in agents]
    metrics, stop = ServeMetrics(names), threading.Event()
    server = put_together(agents, options, metrics.answered)
    served = (metrics.registry, server, lambda: metrics.refresh(_states(server)), ", ".join(names))
    with (
        metrics_served(agents[0].settings.metrics, *served),
        stop_on_interrupt(
            stop,
            doing="answering the requests that have begun",
            then="requests that had begun got no answer, and no agent is touched",
        ),
        own_token(agents) if options.opens else nullcontext() as token,
    ):

        def started(port: int) -> None:
            _say(options.listening, port)
            if token is not None:
                OwnConsole(server, port, token).show_soon()

        serve_until(server.asgi, options.listening, stop, started, server.end_streams)


def listening_at(
    address: ListenAddress, certificate: Path | None, key: Path | None, *, is_public: bool
) -> Listening:
    """Return where a server listens.

    Raises:
        ConfigurationError: see Listening.
    """
    return Listening(address, certificate, key, is_public)


def put_together(
    agents: Sequence[PlacedAgent], options: ServeOptions, watch: RequestWatch = nobody_watches
) -> Server:
    """Return the server that `serve` runs; `watch` hears of each request."""
    served = [ServedAgent(each, options.llm, scores=options.scores) for each in agents]
    listening = options.listening
    reach = Reach((*listening.hosts, *options.hosts), listening.tls)
    secure = listening.tls or listening.is_public
    return server_with_console(served, reach, secure=secure, watch=watch)


def _states(server: Server) -> list[ServedState]:
    return [ServedState(each.name, each.is_ready, each.health.active) for each in server.agents.values()]


def _say(listening: Listening, port: int) -> None:
    kind = "https" if listening.tls else "http"
    url = f"{kind}://{ListenAddress(port, listening.address.host)}"
    log("serving", f"the API is served at {url}; its description is {url}/openapi.json", url=url)
