"""Commands on prompts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.spec import PromptReference
from streaming.cli.options import (
    DEFAULT_HOME,
    AsJson,
    Home,
    LlmChoice,
    SpecName,
    say,
    settings_in,
    spec_named,
)

if TYPE_CHECKING:
    from agent.triage.prompt_evaluation import PromptFigures

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
    from agent.triage.prompt_evaluation import load_cases
    from streaming.commands.prompts import judge_prompt
    from streaming.commands.registry import note_evaluation

    chosen = spec_named(spec)
    prompt = PromptReference(id=chosen.llm.prompt.id, version=version or chosen.llm.prompt.version)
    chosen = chosen.model_copy(update={"llm": chosen.llm.model_copy(update={"prompt": prompt})})
    material = load_cases(prompt.id, cases)
    settings = settings_in(home)
    figures = judge_prompt(settings, chosen, material, llm)
    passed = figures.accuracy >= material.labeller_accuracy
    if cases is None:  # other cases than the prompt's own vouch for nothing
        note_evaluation(settings, chosen, figures, passed=passed)
    _report(figures, material.labeller_accuracy, passed, as_json)
    raise typer.Exit(0 if passed else 1)


def _report(figures: PromptFigures, recorded: float, passed: bool, as_json: bool) -> None:
    facts = dataclasses.asdict(figures) | {"labeller_accuracy": recorded, "passed": passed}
    say(facts, as_json)
