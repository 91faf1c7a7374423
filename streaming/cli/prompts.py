"""Commands on prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streaming.cli.options import (
    DEFAULT_HOME,
    AsJson,
    Home,
    LlmChoice,
    SpecName,
    settings_in,
    spec_named,
)

prompts_app = typer.Typer(no_args_is_help=True, help="Judge prompts on labelled triage cases.")


@prompts_app.command("eval")
def prompts_eval(
    spec: SpecName = "card-fraud",
    version: Annotated[int | None, typer.Option(help="Another version of the spec's prompt.", min=1)] = None,
    cases: Annotated[Path | None, typer.Option(help="A file of cases; by default the prompt's own.")] = None,
    llm: LlmChoice = "auto",
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Label the triage cases with a prompt and its model; exit 1 where that is worse than the rules alone.

    The rules' figure is the one recorded with the cases. With `--llm none` the rules itself
    is judged, against the same figure.

    Example: `flagstream prompts eval --llm local`
    """
    from streaming.commands.prompts import evaluate_cases

    passed = evaluate_cases(settings_in(home), spec_named(spec), version, cases, llm, as_json=as_json)
    raise typer.Exit(0 if passed else 1)
