"""Commands on prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streaming.cli.options import DEFAULT_HOME, AsJson, Home, LlmChoice, SpecName, agent_in

prompts_app = typer.Typer(no_args_is_help=True, help="Judge prompts on labelled triage cases.")


@prompts_app.command("eval")
def prompts_eval(
    spec: SpecName = "card-fraud",
    version: Annotated[
        int | None, typer.Option(help="Another version of the prompt; the spec's own if absent.", min=1)
    ] = None,
    cases: Annotated[Path | None, typer.Option(help="A file of cases; by default the prompt's own.")] = None,
    generated: Annotated[
        int, typer.Option(help="Cases simulated beside the prompt's own; not with --cases.", min=0, max=2_000)
    ] = 260,
    apart: Annotated[
        bool,
        typer.Option("--apart", help="Ask about each case alone: it takes longer, and says more of a model."),
    ] = False,
    llm: LlmChoice = "auto",
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Label the triage cases with a prompt and its model; exit 1 where that is worse than the rules alone.

    The rules' figure is the one recorded with the cases. With `--llm none` the rules themselves
    are judged, against the same figure.

    The prompt's own cases say what kind of unusual each payment is; those that are simulated, frauds and the
    honest payments most like them, say whether it was a fraud. Like cases share an answer as in a batch; with
    --apart each is asked about alone, for which the local model takes some seconds.

    Example: `flagstream prompts eval --llm local`
    """
    from streaming.commands.prompts import evaluate_cases

    passed = evaluate_cases(
        agent_in(home, spec),
        version,
        cases,
        llm,
        generated=generated,
        apart=apart,
        as_json=as_json,
    )
    raise typer.Exit(0 if passed else 1)
