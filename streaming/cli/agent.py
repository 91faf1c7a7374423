"""Commands of the planning agent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streaming.cli.options import DEFAULT_HOME, AsJson, Home, LlmChoice, SpecName, agent_in

agent_app = typer.Typer(
    no_args_is_help=True, help="Give the agent a goal; it plans and acts under its policy."
)


@agent_app.callback()
def agent() -> None:
    """Give the agent a goal; it plans and acts under its policy."""


@agent_app.command("run")
def agent_run(
    goal: Annotated[str, typer.Option(help="What you want to know, in your words.")],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    plan: Annotated[
        Path | None, typer.Option(help="A plan of your own, in JSON, instead of one that the model makes.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the plan, print it, and run nothing.")
    ] = False,
    run_name: Annotated[
        str | None,
        typer.Option(help="Of a run that may be repeated: it starts no job and posts no finding twice."),
    ] = None,
    llm: LlmChoice = "auto",
    as_json: AsJson = False,
) -> None:
    """Plan how to reach a goal, check the plan against the spec's policy, carry it out, write a finding.

    Exit 0 when everything was done, 1 when something was refused or failed, with the rule or the reason.
    Without a model (`--llm none`, or `llm: {provider: none}`) a plan must be given.

    Examples: `flagstream agent run --goal "why did terminal m12 alert so often today?"`,
    `flagstream agent run --goal "alerts by hour" --plan plan.json --llm none --dry-run`
    """
    from streaming.commands.agent import carry_out, read_order

    order = read_order(goal, plan, dry_run, run_name)
    ok = carry_out(agent_in(home, spec), order, llm, as_json=as_json)
    raise typer.Exit(0 if ok else 1)
