"""Commands that deliver alerts to receivers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import ConfigurationError
from streaming.cli.options import DEFAULT_HOME, AsJson, Home, LogFormat, MetricsPort, SpecName, agent_in

notify_app = typer.Typer(
    no_args_is_help=True, help="Deliver alerts: signed webhooks, Slack, e-mail, PagerDuty."
)
RoutesFile = Annotated[Path, typer.Option("--file", help="The routes file; see docs/integrations.md.")]


@notify_app.command("run")
def notify_run(
    spec: SpecName,
    file: RoutesFile,
    home: Home = DEFAULT_HOME,
    metrics_port: MetricsPort = None,
    log_format: LogFormat = None,
    as_json: AsJson = False,
) -> None:
    """Deliver an agent's alerts by a routes file until Ctrl-C or SIGTERM, whether or not the agent runs.

    Each route has a place of its own, goes on where it was, and holds up no other.

    Example: `flagstream notify run --spec handbook --file routes.yaml`
    """
    from streaming.commands.notify import run_routes

    run_routes(agent_in(home, spec, log_format, metrics_port), file, as_json=as_json)


@notify_app.command("check")
def notify_check(
    spec: SpecName, file: RoutesFile, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """Check a routes file with its secrets and addresses, sending nothing, and show where each route stands.

    `waiting` counts records that a route has not read, marks of transactions included.

    Example: `flagstream notify check --spec handbook --file routes.yaml`
    """
    from streaming.commands.notify import check_routes

    check_routes(agent_in(home, spec), file, as_json=as_json)


@notify_app.command("test")
def notify_test(
    spec: SpecName,
    file: RoutesFile,
    alert: Annotated[
        str | None, typer.Option(help="Id of an alert in the lake, or its first characters.")
    ] = None,
    case: Annotated[
        str | None, typer.Option(help="Id of a case, or its first characters: its newest change.")
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="A made-up alert, or change of a case, which all routes get.")
    ] = False,
    route: Annotated[str | None, typer.Option(help="Name of the one route to try.")] = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Deliver one alert or change of a case, once, along the routes that take it; show what receivers said.

    No route moves on by it. Exit 1 where one did not take it.

    Examples: `flagstream notify test --spec handbook --file routes.yaml --sample`,
    `flagstream notify test --spec handbook --file routes.yaml --alert 3f2a91 --route desk`
    """
    from streaming.commands.notify import TriedNotice, try_routes

    if sum((alert is not None, case is not None, sample)) != 1:
        raise ConfigurationError(
            "name one of --alert ID, --case ID and --sample", where="flagstream notify test"
        )
    tried = TriedNotice(alert, case)
    done = try_routes(agent_in(home, spec), file, tried, only=route, as_json=as_json)
    raise typer.Exit(0 if done else 1)
