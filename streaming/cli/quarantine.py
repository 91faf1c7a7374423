"""Commands on records that were rejected."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import ConfigurationError
from streaming.cli.options import (
    DEFAULT_HOME,
    TIMES,
    AsJson,
    Home,
    SpecName,
    console,
    say,
    settings_in,
    spec_named,
)
from streaming.output.terminal import print_json

quarantine_app = typer.Typer(
    no_args_is_help=True, help="Look at rejected records, and take them in after all."
)

Reasons = Annotated[
    list[str] | None, typer.Option("--reason", help="Code of the newest rejection; repeatable.")
]
Topic = Annotated[str | None, typer.Option(help="Topic that the records came from.")]
Partition = Annotated[int | None, typer.Option(help="Partition of the topic.", min=0)]
FirstOffset = Annotated[int | None, typer.Option(help="Inclusive.", min=0)]
LastOffset = Annotated[int | None, typer.Option(help="Inclusive.", min=0)]
Since = Annotated[
    datetime | None, typer.Option(formats=TIMES, help="Broker time of the record in UTC, inclusive.")
]
Until = Annotated[datetime | None, typer.Option(formats=TIMES, help="Exclusive.")]


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
    from streaming.audit.access import tell_read
    from streaming.commands.quarantine import Quarantine, listed
    from streaming.commands.quarantine_view import show_waiting
    from streaming.quarantine.choosing import wanted

    settings, loaded = settings_in(home), spec_named(spec)
    meant = wanted(reason, topic, partition, (from_offset, to_offset), (since, until))
    found = Quarantine(settings, loaded).waiting(meant)
    tell_read(settings, loaded, "quarantine-list", [loaded.tables.quarantine])
    print_json(listed(found)) if as_json else show_waiting(found, limit, console)


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
    from streaming.audit.access import tell_read
    from streaming.commands.quarantine import Quarantine, told
    from streaming.commands.quarantine_view import show_record

    settings, loaded = settings_in(home), spec_named(spec)
    found = Quarantine(settings, loaded).record(record)
    tell_read(settings, loaded, "quarantine-show", [loaded.tables.quarantine])
    if raw is not None:
        raw.write_bytes(found[0]["value"] or b"")
    print_json(told(found)) if as_json else show_record(found, console)


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
    from streaming.audit.access import tell_done
    from streaming.commands.quarantine import Quarantine
    from streaming.commands.registry import default_author
    from streaming.quarantine.choosing import RecordFilter, wanted
    from streaming.service.health import is_running
    from streaming.versions.registry import Author

    settings, loaded = settings_in(home), spec_named(spec)
    meant = wanted(reason, topic, partition, (from_offset, to_offset), (since, until))
    if meant == RecordFilter() and not everything:
        raise ConfigurationError("say which records are meant, such as --reason missing_field, or --all")
    author = Author(who or default_author(), why)
    asked = Quarantine(settings, loaded).requeue(meant, contract, author, dry_run=dry_run)
    if asked["request"] is not None:
        tell_done(settings, loaded, "quarantine-requeue", asked["records"] - asked["stored_already"])
    say(asked, as_json)
    if asked["request"] is not None and not as_json:
        runs = is_running(settings.health(loaded.name))
        when = (
            "The agent takes them between two batches"
            if runs
            else "No agent runs: they wait for the next run"
        )
        console.print(f"{when}; `flagstream quarantine requests` shows how far it is.")


@quarantine_app.command("requests")
def quarantine_requests(
    spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """List requests to take records in: waiting, done or refused, and what became of the records.

    Example: `flagstream quarantine requests --spec handbook`
    """
    from streaming.commands.quarantine import Quarantine
    from streaming.commands.quarantine_view import show_requests

    found = Quarantine(settings_in(home), spec_named(spec)).requests()
    print_json(found, default=lambda at: at.isoformat()) if as_json else show_requests(found, console)
