"""Commands on history: loading it, and snapshots of it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.table import Table

from schemas.contract import load_contract
from streaming.cli.options import (
    DEFAULT_HOME,
    TIMES,
    AsJson,
    Home,
    LogFormat,
    SpecName,
    console,
    say,
    settings_in,
    spec_named,
)
from streaming.output.terminal import print_json, progress_bar

snapshot_app = typer.Typer(no_args_is_help=True, help="Keep spans of history that no maintenance removes.")

Name = Annotated[str, typer.Argument(help="Letters, digits, dots, dashes and underscores.")]


def backfill(
    source: Annotated[
        Path, typer.Argument(help="A .parquet, .csv or .jsonl file, or a Delta table's folder.")
    ],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    log_format: LogFormat = None,
    as_json: AsJson = False,
) -> None:
    """Load history before an agent's first run: profiles know it, nobody is alerted to it.

    A run that was cut off is continued by the same command. Labels count from the stream's first batch on.

    Example: `flagstream backfill last-year.parquet --spec handbook`
    """
    from streaming.audit.access import tell_done
    from streaming.commands.backfill import run_backfill

    settings, loaded = settings_in(home, log_format), spec_named(spec)
    done = run_backfill(settings, loaded, source)
    tell_done(settings, loaded, "backfill", cast("int", done["stored"]), begins_log=True)
    say(done, as_json)


@snapshot_app.command("create")
def snapshot_create(
    name: Name,
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    from_version: Annotated[int | None, typer.Option(help="Of the transactions table, exclusive.")] = None,
    to_version: Annotated[int | None, typer.Option(help="Inclusive.")] = None,
    from_time: Annotated[
        datetime | None, typer.Option(formats=TIMES, help="Event time in UTC, inclusive.")
    ] = None,
    to_time: Annotated[datetime | None, typer.Option(formats=TIMES, help="Exclusive.")] = None,
    as_json: AsJson = False,
) -> None:
    """Copy a span of history with the profiles as they stood before it; without a span, all of it.

    `flagstream replay --snapshot NAME` decides it anew from the copies alone.

    Example: `flagstream snapshot create before-easter --spec handbook --from-time 2018-04-07`
    """
    from streaming.audit.access import tell_done
    from streaming.history.replay_runs import ReplaySpan
    from streaming.history.snapshot_copy import create_snapshot

    settings, loaded = settings_in(home), spec_named(spec)
    contract = load_contract(loaded.data_sources.transactions.contract)
    wanted = ReplaySpan(None, from_version, to_version, from_time, to_time)
    span = wanted.span(wanted.history(settings, loaded))
    with progress_bar() as progress:
        task = progress.add_task("copying", total=span.end - span.first)
        made = create_snapshot(
            settings, loaded, contract, name, span, lambda rows: progress.update(task, advance=rows)
        )
    tell_done(settings, loaded, "snapshot-create", sum(made.rows.values()))
    say(made.facts(), as_json)


@snapshot_app.command("list")
def snapshot_list(spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """List an agent's snapshots.

    Example: `flagstream snapshot list --spec handbook`
    """
    from streaming.history.snapshots import snapshots

    found = [each.facts() for each in snapshots(settings_in(home).snapshots(spec_named(spec).name))]
    if as_json:
        print_json(found)
        return
    table = Table("name", "from sequence", "to", "megabytes", "created", box=None)
    for each in found:
        size, last = f"{each['bytes'] / 1e6:.1f}", each["next_sequence"] - 1
        table.add_row(each["name"], str(each["first_sequence"]), str(last), size, each["created_at"][:19])
    console.print(table)


@snapshot_app.command("drop")
def snapshot_drop(
    name: Name, spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """Remove a snapshot.

    Example: `flagstream snapshot drop before-easter --spec handbook`
    """
    from streaming.audit.access import tell_done
    from streaming.history.snapshots import drop_snapshot

    settings, loaded = settings_in(home), spec_named(spec)
    drop_snapshot(settings.snapshots(loaded.name), name)
    tell_done(settings, loaded, "snapshot-drop", 0)
    say({"dropped": name}, as_json)
