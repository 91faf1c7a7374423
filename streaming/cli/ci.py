"""The command that continuous integration runs on specs; people run the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streaming.cli.options import AsJson

_SUMMARY = "GITHUB_STEP_SUMMARY"


def ci(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders that hold specs/, policies/, rules/ and prompts/.")
    ],
    base: Annotated[
        list[Path] | None, typer.Option(help="A folder with the specs as they were; repeatable.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Simulated transactions per spec.", min=600)] = 12_000,
    seed: Annotated[int, typer.Option(help="Seed of the simulated transactions.")] = 7,
    summary: Annotated[
        Path | None, typer.Option(help="Append the report here; standard output if absent.", envvar=_SUMMARY)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check specs, policies, rules and prompts, and try each spec on simulated transactions.

    A spec is compared with the one of the same name below --base. Exit 2 when a file cannot be used, 1 when
    a replay does not decide as was decided. Needs neither Kafka nor Java.

    Example: `flagstream ci agent --base ../main/agent`
    """
    from streaming.commands.ci import check_folders
    from streaming.commands.fixture_lake import Fixture

    fixture = Fixture(rows=rows, seed=seed)
    raise typer.Exit(check_folders(folders, base or [], fixture, summary, as_json=as_json))
