"""Commands that answer for an agent: its audit log, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from streaming.cli.options import DEFAULT_HOME, AsJson, Home, SpecName, console, settings_in, spec_named
from streaming.output.terminal import print_json, print_json_text, say_line

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
    from streaming.audit.audit_check import check_audit
    from streaming.audit.audit_log import AuditPlaces

    found = check_audit(AuditPlaces(settings_in(home), spec_named(spec)), anchor)
    if as_json:
        print_json(found.facts())
    else:
        for each in found.findings:
            say_line(f"row {each.number}: {each.problem}: {each.detail}")
        said = "sound" if found.sound else "BROKEN"
        say_line(f"{said}: {found.rows} rows up to number {found.last}, anchored at {found.anchored}")
    raise typer.Exit(0 if found.sound else 1)


@audit_app.command("show")
def audit_show(
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    kind: Annotated[
        str | None, typer.Option(help="Only this kind, such as model_call or data_access.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many of the newest.", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the newest rows of the audit log, the newest last; with --json one object per line.

    Example: `flagstream audit show --spec handbook --kind configuration_change`
    """
    from streaming.audit.audit_check import newest_events
    from streaming.audit.audit_log import AuditPlaces

    rows = newest_events(AuditPlaces(settings_in(home), spec_named(spec)), kind, count)
    if as_json:
        for row in rows:
            print_json({**row, "at": row["at"].isoformat()})
        return
    table = Table("row", "at", "kind", "subject", "detail", box=None)
    for row in rows:
        detail = " ".join(f"{name}={value}" for name, value in row["detail"].items() if value is not None)
        table.add_row(str(row["number"]), f"{row['at']:%F %T}", row["kind"], row["subject"], detail)
    console.print(table)


def cost(
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    by: Annotated[str, typer.Option(help="alert, batch, day, model or prompt.")] = "day",
    forecast: Annotated[
        float | None,
        typer.Option(help="Events per second: estimate what they would cost.", min=0.001, max=1e9),
    ] = None,
    compute_price: Annotated[
        float | None,
        typer.Option(
            help="USD per hour of the machine; compute_price of the spec if absent.", min=0, max=1e6
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what an agent has cost, or what it would cost at a rate of events.

    Models cost what `llm.prices` of the spec says. A forecast starts from what the agent's lake has shown
    and says what it assumes.

    Examples: `flagstream cost --spec handbook --by model`,
    `flagstream cost --spec my-agent.yaml --forecast 1000 --compute-price 0.20`
    """
    from streaming.commands.cost import as_json as plain
    from streaming.commands.cost import booked, estimated, show_booked, show_estimate

    loaded = spec_named(spec)
    lake = settings_in(home).lake(loaded.name)
    if forecast is not None:
        estimate = estimated(lake, loaded, forecast, compute_price)
        print_json_text(plain(estimate)) if as_json else show_estimate(estimate, console)
        return
    found = booked(lake, loaded, by, compute_price)
    print_json_text(plain(found)) if as_json else show_booked(found, console)
