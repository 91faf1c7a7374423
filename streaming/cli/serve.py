"""The command that serves agents over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import ConfigurationError
from streaming.cli.options import DEFAULT_HOME, Home, LlmChoice, LogFormat, MetricsPort, SpecNames, agents_in
from streaming.home.listen import listen_address


def serve(
    spec: SpecNames = None,
    home: Home = DEFAULT_HOME,
    listen: Annotated[
        str, typer.Option(help="[HOST:]PORT; without a host for this machine alone; port 0 is any free one.")
    ] = "8714",
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file of the server's certificate and those above it.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's private key.")] = None,
    plain_http: Annotated[
        bool,
        typer.Option(
            "--plain-http", help="Other machines reach it without TLS, behind a proxy that ends it."
        ),
    ] = False,
    host: Annotated[
        list[str] | None, typer.Option(help="A further name under which it is asked; repeatable.")
    ] = None,
    score: Annotated[
        bool, typer.Option("--score", help="Score events at /v1/score; the profiles are in memory once more.")
    ] = False,
    console: Annotated[
        bool,
        typer.Option(
            "--console",
            help="Print where a browser of this machine signs in, and open one where there is a screen; its "
            "token has the scopes triage and operate, and ends with the server.",
        ),
    ] = False,
    llm: LlmChoice = "none",
    metrics_port: MetricsPort = None,
    log_format: LogFormat = None,
) -> None:
    """Serve the HTTP API of agents until Ctrl-C, in a process of its own: agents run beside it, or do not.

    Who asks needs a token of `flagstream token create`. See docs/api.md.

    Examples: `flagstream serve --spec handbook --console`,
    `flagstream serve --spec handbook --score`,
    `flagstream serve --listen 0.0.0.0:8714 --tls-certificate server.pem --tls-key key.pem --host desk.bank`
    """
    from streaming.commands.serve import ServeOptions, listening_at
    from streaming.commands.serve import serve as serve_agents

    address = listen_address(listen, "--listen")
    if address is None:
        raise ConfigurationError("expected a port or HOST:PORT", where="--listen")
    listening = listening_at(address, tls_certificate, tls_key, is_public=plain_http)
    found = agents_in(home, spec, log_format, metrics_port)
    serve_agents(found, ServeOptions(listening, tuple(host or ()), llm, score, console))
