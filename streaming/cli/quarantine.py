"""Commands on records that were rejected."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import ConfigurationError
from streaming.cli.options import DEFAULT_HOME, AsJson, Home, SpecName, agent_in
from streaming.cli.spans import TIME, TIMES

quarantine_app = typer.Typer(
    no_args_is_help=True, help="Inspect rejected records, and take them in after all."
)

Reasons = Annotated[
    list[str] | None, typer.Option("--reason", help="Code of the newest rejection; repeatable.")
]
Topic = Annotated[str | None, typer.Option(help="Topic that the records came from.")]
Partition = Annotated[int | None, typer.Option(help="Partition of the topic; all if absent.", min=0)]
FirstOffset = Annotated[
    int | None, typer.Option(help="First offset, inclusive; the earliest if absent.", min=0)
]
LastOffset = Annotated[int | None, typer.Option(help="Last offset, inclusive; the latest if absent.", min=0)]
Since = Annotated[
    datetime | None,
    typer.Option(formats=TIMES, metavar=TIME, help="Broker time of the record in UTC, inclusive."),
]
Until = Annotated[datetime | None, typer.Option(formats=TIMES, metavar=TIME, help="Exclusive.")]


@quarantine_app.command("list")
def quarantine_list(
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    reason: Reasons = None,
    topic: Topic = None,
    partition: Partition = None,
    from_offset: FirstOffset = None,
    to_offset: LastOffset = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(help="Records shown in the table.", min=0)] = 20,
    as_json: AsJson = False,
) -> None:
    """List the records that wait in the quarantine, each with its newest rejection and how often it failed.

    Example: `flagstream quarantine list --spec handbook --reason missing_field`
    """
    from streaming.commands.quarantine import list_waiting
    from streaming.quarantine.choosing import wanted

    meant = wanted(reason, topic, partition, (from_offset, to_offset), (since, until))
    list_waiting(agent_in(home, spec), meant, limit, as_json=as_json)


@quarantine_app.command("show")
def quarantine_show(
    record: Annotated[str, typer.Argument(help="topic/partition/offset, as `list` shows it.")],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    raw: Annotated[Path | None, typer.Option(help="Write the record's bytes to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show one record with every rejection; nothing in it steers the terminal.

    Example: `flagstream quarantine show payments/0/4711 --spec handbook --raw record.json`
    """
    from streaming.commands.quarantine import show_rejected

    show_rejected(agent_in(home, spec), record, raw, as_json=as_json)


@quarantine_app.command("requeue")
def quarantine_requeue(
    why: Annotated[str, typer.Option(help="Why, in a line of plain words.")],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    reason: Reasons = None,
    topic: Topic = None,
    partition: Partition = None,
    from_offset: FirstOffset = None,
    to_offset: LastOffset = None,
    since: Since = None,
    until: Until = None,
    everything: Annotated[bool, typer.Option("--all", help="Every record that waits.")] = False,
    contract: Annotated[str | None, typer.Option(help="A corrected contract, with the same columns.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only say what would become of them.")] = False,
    who: Annotated[str | None, typer.Option(help="Who asks; the user of this machine if absent.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the agent to take rejected records in, as if they arrived when it does.

    It takes them between two batches, at once if it runs, else when it is next started. Records whose
    transaction is stored already stay where they are.

    Example: `flagstream quarantine requeue --reason missing_field --contract new.yaml --why "new field"`
    """
    from streaming.commands.quarantine import ask_to_take_in
    from streaming.quarantine.choosing import RecordFilter, wanted
    from streaming.versions.moving import author_of

    meant = wanted(reason, topic, partition, (from_offset, to_offset), (since, until))
    if meant == RecordFilter() and not everything:
        raise ConfigurationError("say which records are meant, such as --reason missing_field, or --all")
    asked = agent_in(home, spec), meant, contract, author_of(who, why)
    ask_to_take_in(*asked, dry_run=dry_run, as_json=as_json)


@quarantine_app.command("requests")
def quarantine_requests(
    spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """List requests to take records in: waiting, done or refused, and what became of the records.

    Example: `flagstream quarantine requests --spec handbook`
    """
    from streaming.commands.quarantine import list_requests

    list_requests(agent_in(home, spec), as_json=as_json)
