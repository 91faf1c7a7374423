"""Commands on the model behind triage."""

from __future__ import annotations

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
from streaming.home.placed_agent import PlacedAgent

llm_app = typer.Typer(no_args_is_help=True, help="Try the model that an agent would ask.")


@llm_app.callback()
def llm() -> None:
    """Try the model that an agent would ask."""


@llm_app.command("check")
def llm_check(
    spec: SpecName = "card-fraud",
    base_url: Annotated[
        str | None, typer.Option(help="The API's root, such as https://host/v1, instead of the spec's.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model's name instead of the spec's.")] = None,
    alerts_per_day: Annotated[int, typer.Option(help="Alerts a day that the cost is for.", min=1)] = 1_000,
    llm: LlmChoice = "auto",
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Ask a model three test questions; show what it takes, how fast it is, and what a day would cost.

    The questions are made up. What the endpoint refuses is found out anew, and kept for agents of
    this home. Policy and keys count as they do in `run`. Exit 1 where a question had no answer of use, with
    the reason; 2 where nobody may be asked.

    Examples: `flagstream llm check --llm local`,
    `flagstream llm check --base-url http://127.0.0.1:11434/v1 --model qwen3 --alerts-per-day 500`
    """
    from streaming.commands.llm import check_model, with_endpoint

    chosen = with_endpoint(spec_named(spec), base_url, model)
    raise typer.Exit(
        0 if check_model(PlacedAgent(settings_in(home), chosen), llm, alerts_per_day, as_json=as_json) else 1
    )
