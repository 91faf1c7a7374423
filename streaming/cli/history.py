"""Commands on history: loading it, and snapshots of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streaming.cli.options import (
    DEFAULT_HOME,
    AsJson,
    DecimalSign,
    Delimiter,
    Encoding,
    Home,
    LogFormat,
    SpecName,
    agent_in,
)
from streaming.cli.spans import FromTime, FromVersion, ToTime, ToVersion

snapshot_app = typer.Typer(no_args_is_help=True, help="Keep spans of history that no maintenance removes.")

Name = Annotated[str, typer.Argument(help="Letters, digits, dots, dashes and underscores.")]


def backfill(
    source: Annotated[
        Path,
        typer.Argument(
            help="A file or folder of CSV, JSON or Parquet, or a Delta table, also by its URI in a store."
        ),
    ],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    log_format: LogFormat = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: DecimalSign = None,
    as_json: AsJson = False,
) -> None:
    """Load history before an agent's first run: profiles know it, nobody is alerted to it.

    A run that was cut off is continued by the same command. Labels count from the stream's first batch on.

    Example: `flagstream backfill last-year.parquet --spec handbook`
    """
    from streaming.commands.backfill import load_history
    from streaming.files.dialect import TextOptions

    options = TextOptions(encoding, delimiter, decimal)
    load_history(agent_in(home, spec, log_format), source, as_json=as_json, options=options)


@snapshot_app.command("create")
def snapshot_create(
    name: Name,
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    from_version: FromVersion = None,
    to_version: ToVersion = None,
    from_time: FromTime = None,
    to_time: ToTime = None,
    as_json: AsJson = False,
) -> None:
    """Copy a span of history with the profiles as they stood before it; without a span, all of it.

    `flagstream replay --snapshot NAME` decides it anew from the copies alone.

    Example: `flagstream snapshot create before-easter --spec handbook --from-time 2018-04-07`
    """
    from streaming.commands.snapshots import keep_snapshot
    from streaming.history.replay_runs import ReplaySpan

    wanted = ReplaySpan(None, from_version, to_version, from_time, to_time)
    keep_snapshot(agent_in(home, spec), name, wanted, as_json=as_json)


@snapshot_app.command("list")
def snapshot_list(spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """List an agent's snapshots.

    Example: `flagstream snapshot list --spec handbook`
    """
    from streaming.commands.snapshots import list_snapshots

    list_snapshots(agent_in(home, spec), as_json=as_json)


@snapshot_app.command("drop")
def snapshot_drop(
    name: Name, spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """Remove a snapshot.

    Example: `flagstream snapshot drop before-easter --spec handbook`
    """
    from streaming.commands.snapshots import remove_snapshot

    remove_snapshot(agent_in(home, spec), name, as_json=as_json)
