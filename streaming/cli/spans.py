"""The options that name a span of history, shared by the commands that work on one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]

OfAlert = Annotated[
    str | None, typer.Option("--alert", help="An alert's id, its first characters, or its transaction.")
]
FromVersion = Annotated[
    int | None,
    typer.Option(help="Version of the transactions table, exclusive; before the first if absent."),
]
ToVersion = Annotated[
    int | None, typer.Option(help="Version of the transactions table, inclusive; the newest if absent.")
]
FromTime = Annotated[datetime | None, typer.Option(formats=TIMES, help="Event time in UTC, inclusive.")]
ToTime = Annotated[datetime | None, typer.Option(formats=TIMES, help="Exclusive.")]
OfSnapshot = Annotated[
    str | None, typer.Option("--snapshot", help="A snapshot's name: its span, from its own copies alone.")
]
