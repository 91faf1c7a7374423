"""Commands that answer for an agent: its audit log, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streaming.cli.options import DEFAULT_HOME, AsJson, Home, SpecName, agent_in

audit_app = typer.Typer(no_args_is_help=True, help="Check and show the audit log.")


@audit_app.command("verify")
def audit_verify(
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    anchor: Annotated[
        Path | None, typer.Option(help="A copy of the anchor file, kept elsewhere, to find as well.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every row of the audit log against its hash chain, and its end against the anchor.

    Exit 1 with what is wrong at which row: edited, moved, missing, doubled, forked, unlinked, or cut off.
    Copy `audit/AGENT/audit.anchor` below --home to another machine from time to time: with --anchor, a table
    that was set back together with its own anchor is found, too.

    Examples: `flagstream audit verify --spec handbook`,
    `flagstream audit verify --spec handbook --anchor /backup/audit.anchor --json`
    """
    from streaming.commands.audit import verify_audit

    sound = verify_audit(agent_in(home, spec), anchor, as_json=as_json)
    raise typer.Exit(0 if sound else 1)


@audit_app.command("show")
def audit_show(
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    kind: Annotated[
        str | None, typer.Option(help="Only this kind, such as model_call or data_access.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many rows, the newest.", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the newest rows of the audit log, the newest last; with --json one object per line.

    Example: `flagstream audit show --spec handbook --kind configuration_change`
    """
    from streaming.commands.audit import show_audit

    show_audit(agent_in(home, spec), kind, count, as_json=as_json)


def cost(
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    by: Annotated[str, typer.Option(help="alert, batch, day, model or prompt.")] = "day",
    forecast: Annotated[
        float | None,
        typer.Option(
            help="Events per second: estimate what they would cost; what was spent if absent.",
            min=0.001,
            max=1e9,
        ),
    ] = None,
    compute_price: Annotated[
        float | None,
        typer.Option(
            help="USD per hour of the machine; compute_price of the spec if absent.", min=0, max=1e6
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what an agent has cost, or what it would cost at a rate of events.

    Models cost what `llm.prices` of the spec says. A forecast starts from what the agent's lake has shown
    and says what it assumes.

    Examples: `flagstream cost --spec handbook --by model`,
    `flagstream cost --spec my-agent.yaml --forecast 1000 --compute-price 0.20`
    """
    from streaming.commands.cost import show_cost, show_forecast

    agent = agent_in(home, spec)
    if forecast is None:
        show_cost(agent, by, compute_price, as_json=as_json)
    else:
        show_forecast(agent, forecast, compute_price, as_json=as_json)
