"""Commands that learn from labelled history, and judge by it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from schemas.documents import is_path
from schemas.errors import ConfigurationError
from streaming.cli.options import (
    DEFAULT_HOME,
    AsJson,
    DecimalSign,
    Delimiter,
    Encoding,
    Home,
    SpecName,
    agent_in,
    spec_named,
)
from streaming.cli.spans import TIME, TIMES


def evaluate(
    files: Annotated[list[Path], typer.Argument(help="Labelled files, as `produce` reads them.")],
    contract: Annotated[str, typer.Option(help="Contract file, or the name of a shipped contract.")],
    test_start: Annotated[
        list[datetime], typer.Option(formats=["%Y-%m-%d"], help="First day of a test week; repeatable.")
    ],
    spec: Annotated[
        str | None,
        typer.Option(
            help="Spec; by default the shipped one named as the contract. A file of yours needs one."
        ),
    ] = None,
    mode: Annotated[str, typer.Option(help="unlabelled, delayed or trained.")] = "unlabelled",
    label_delay: Annotated[str, typer.Option(help="Duration from a transaction to its label.")] = "7d",
    alerts_per_day: Annotated[int, typer.Option(help="Alerts a day, for precision and recall.", min=1)] = 100,
    plots: Annotated[Path | None, typer.Option(help="Folder for the plots.")] = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: DecimalSign = None,
    as_json: AsJson = False,
) -> None:
    """Stream labelled files through the live scorer and judge its scores by the handbook's protocol.

    Labels may be 0 or 1, true or false, yes or no, fraud or genuine; what was taken stands on stderr. Rows
    without one are left out of the figures and counted.

    Example: `flagstream evaluate tx*.parquet --contract handbook --mode delayed --test-start 2018-07-04`,
    where tx*.parquet are your own labelled files; with a contract of your own, add `--spec my-agent.yaml`.
    """
    if spec is None and is_path(contract):
        raise ConfigurationError(
            "scores are computed under a spec: name yours by --spec, such as --spec my-agent.yaml",
            where=contract,
        )
    from streaming.commands.evaluate import show_evaluation
    from streaming.files.dialect import TextOptions

    show_evaluation(
        files, contract, spec_named(spec or contract), mode,
        label_delay=label_delay, test_starts=[each.date() for each in test_start],
        alerts_per_day=alerts_per_day, plots=plots, as_json=as_json,
        options=TextOptions(encoding, delimiter, decimal),
    )  # fmt: skip


def train(
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    until: Annotated[
        datetime | None,
        typer.Option(formats=TIMES, metavar=TIME, help="UTC; later events and labels are left out."),
    ] = None,
    labels: Annotated[
        str,
        typer.Option(
            "--labels",
            "--verdicts",  # its name up to 0.1
            help="recorded: rows know the labels that they knew when scored; decided: those decided by "
            "their own time, for labels imported after the fact.",
        ),
    ] = "recorded",
    label_delay: Annotated[
        str | None,
        typer.Option(help="Rows this much older than --until that nobody labelled count as genuine."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampling of rows and features.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Fit the supervised model to stored transactions and labels; the artefact is not put in force.

    To use it, name its folder in the spec: `model: {path: FOLDER, sha256: HASH}`.

    Example: `flagstream train --spec handbook --until 2018-07-01 --labels decided --label-delay 7d`
    """
    from streaming.commands.train import show_training

    show_training(agent_in(home, spec), until, labels, label_delay, seed, as_json=as_json)
