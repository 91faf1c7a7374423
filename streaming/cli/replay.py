"""The command that decides stored transactions anew."""

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
    broker_of,
    console,
    say,
    settings_in,
    spec_named,
)
from streaming.output.terminal import print_json, say_error


def replay(
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    alert: Annotated[
        str | None, typer.Option(help="An alert's id, its first characters, or its transaction.")
    ] = None,
    from_version: Annotated[int | None, typer.Option(help="Of the transactions table, exclusive.")] = None,
    to_version: Annotated[int | None, typer.Option(help="Inclusive.")] = None,
    from_time: Annotated[
        datetime | None, typer.Option(formats=TIMES, help="Event time in UTC, inclusive.")
    ] = None,
    to_time: Annotated[datetime | None, typer.Option(formats=TIMES, help="Exclusive.")] = None,
    snapshot: Annotated[
        str | None, typer.Option(help="A snapshot's name: its span, from its own copies alone.")
    ] = None,
    candidate: Annotated[
        str | None, typer.Option(help="Another spec: says what it would have decided; publishes nothing.")
    ] = None,
    warm_up: Annotated[
        str | None,
        typer.Option(
            help="With --candidate: event time before the span, such as 7d, that its profiles are to know "
            "where no checkpoint fits them; all of history unless given."
        ),
    ] = None,
    llm: Annotated[
        str,
        typer.Option(
            help="With --candidate: recorded asks nobody, and answers on record count where the candidate's "
            "model and prompt gave them; auto asks the candidate's endpoint, else the local model; local."
        ),
    ] = "recorded",
    max_usd: Annotated[
        float | None, typer.Option(min=0, help="Cap on all new calls, by the candidate's prices.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=0, help="Cap on all new calls, input and output together.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="HTML file for the candidate's report.")] = None,
    to_topic: Annotated[
        str | None, typer.Option(help="Send the published alerts of the span to this topic once more.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Decide stored transactions anew, from the versions pinned then, and compare with what was published.

    Without a span all of history is replayed. Exit 1 when an exact replay finds a difference.

    Examples: `flagstream replay --spec handbook --alert 3f2a9c`,
    `flagstream replay --spec handbook --from-time 2018-04-07 --to-time 2018-04-08 --candidate stricter.yaml`,
    `flagstream replay --spec handbook --candidate other-prompt.yaml --llm auto --max-usd 0.50`,
    `flagstream replay --spec handbook --from-time 2018-04-07 --to-topic alerts-again`,
    `flagstream replay --spec handbook --snapshot before-easter`
    """
    from streaming.audit.access import tell_read
    from streaming.commands.registry import note_replay
    from streaming.commands.replay import candidate_report, check_report, show_replay  # fmt: skip
    from streaming.commands.what_if_view import show_what_if
    from streaming.history.asking import Asking
    from streaming.history.replay_runs import (
        ReplaySpan,
        check_topic,
        run_replay,
        run_what_if,
        send_again,
        warm_up_of,
    )

    asking = Asking(llm, max_usd, max_tokens)
    if candidate is None and (asking != Asking() or report is not None):
        raise ConfigurationError("--llm, --max-usd, --max-tokens and --report go with --candidate")
    check_report(report)
    warmth = warm_up_of(warm_up, candidate)
    wanted = ReplaySpan(alert, from_version, to_version, from_time, to_time, snapshot)
    settings, loaded = settings_in(home), spec_named(spec)
    read = [loaded.tables.transactions, loaded.tables.alerts, loaded.tables.labels]
    if to_topic is not None:
        if candidate is not None:
            raise ConfigurationError("choose one of --candidate and --to-topic")
        check_topic(loaded, to_topic)
        with broker_of(settings) as bootstrap:
            sent = send_again(settings, loaded, wanted, bootstrap, to_topic)
        tell_read(settings, loaded, "replay-to-topic", [loaded.tables.alerts])
        say(sent, as_json)
        return
    if candidate is None:
        found = run_replay(settings, loaded, wanted)
        tell_read(settings, loaded, "replay", read)
        print_json(found.facts(), default=str) if as_json else show_replay(found, console)
        raise typer.Exit(1 if found.differences else 0)
    other = spec_named(candidate)
    changed = run_what_if(settings, loaded, other, wanted, warmth, asking)
    tell_read(settings, loaded, "replay-candidate", read)
    note_replay(settings, loaded, other, changed)
    print_json(changed.facts(), default=str) if as_json else show_what_if(changed, console)
    if report is not None:
        say_error(f"report: {candidate_report(changed, report)}")
