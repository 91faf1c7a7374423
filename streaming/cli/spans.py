"""The options that name a span of history, shared by the commands that work on one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

# A day or a moment in UTC, also as the log and the tables write it.
TIMES = [
    "%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%fZ",
    "%Y-%m-%dT%H:%M:%S+00:00", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%SZ", "%Y-%m-%d %H:%M:%S.%f+00:00",
]  # fmt: skip

TIME = "2026-05-07T09:30:00Z"  # in place of all formats, which would fill the help

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
FromTime = Annotated[
    datetime | None, typer.Option(formats=TIMES, metavar=TIME, help="Event time in UTC, inclusive.")
]
ToTime = Annotated[datetime | None, typer.Option(formats=TIMES, metavar=TIME, help="Exclusive.")]
OfSnapshot = Annotated[
    str | None, typer.Option("--snapshot", help="A snapshot's name: its span, from its own copies alone.")
]
