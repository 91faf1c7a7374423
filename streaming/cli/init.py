"""The command that writes a new agent."""

from __future__ import annotations

import sys
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
    settings_in,
)


def init(
    name: Annotated[str, typer.Argument(help="Name of the agent: a-z, 0-9 and dashes.")],
    file: Annotated[
        Path | None, typer.Option("--file", help="Draft the contract from the first 1,000 of a file.")
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(
            "--topic",
            help="Topic that the agent reads; its name if absent. Without --file the contract is drafted "
            "from its newest 1,000 records.",
        ),
    ] = None,
    alerts_per_day: Annotated[
        float | None, typer.Option(help="Alerts a day that people can look into; 100 if absent.", min=0.001)
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder to make; one of the agent's name if absent.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; without a sample, a template.")] = False,
    home: Home = DEFAULT_HOME,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: DecimalSign = None,
    as_json: AsJson = False,
) -> None:
    """Write contract, spec, rules and policy of a new agent, with comments, and say how to go on.

    On a terminal three questions are asked, unless a sample is named. Nothing is ever overwritten.

    Examples: `flagstream init my-agent --file payments.csv`,
    `flagstream init my-agent --topic payments --alerts-per-day 50`
    """
    from streaming.commands.init import InitOptions, ask_on_terminal, asks_on, init_agent
    from streaming.files.dialect import TextOptions

    options = TextOptions(encoding, delimiter, decimal)
    from_topic = topic is not None and file is None
    known = InitOptions(name, to, file, topic, from_topic, alerts_per_day, options)
    asks = asks_on(terminal=sys.stdin.isatty(), yes=yes, known=known)
    init_agent(settings_in(home), known, ask_on_terminal if asks else None, as_json=as_json)
