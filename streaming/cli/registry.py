"""Commands on the registry of spec versions."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from streaming.cli.options import DEFAULT_HOME, AsJson, Home, SpecName, agent_in

registry_app = typer.Typer(no_args_is_help=True, help="Keep the versions of an agent's spec.")
Who = Annotated[str | None, typer.Option(help="Who decides it; the user of this machine if absent.")]
Why = Annotated[str, typer.Option(help="Why, in a line of plain words; goes to the audit log.")]


@registry_app.command("add")
def registry_add(
    file: Annotated[str, typer.Argument(help="A spec file, or the name of a shipped spec.")],
    home: Home = DEFAULT_HOME,
    who: Who = None,
    why: Why = "registered",
    after: Annotated[
        str | None,
        typer.Option(help="The spec that decides now: registered first where no version is yet."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Register a version of a spec, with the rules of its file, in the sandbox.

    The first version of an agent is active at once, since nothing decides beside it; with --after that is the
    one that decides already.

    Example: `flagstream registry add stricter.yaml --why "fewer false alarms at night"`
    """
    from streaming.commands.registry import register

    before = None if after is None else (agent_in(home, after), after)
    register(agent_in(home, file), file, who, why, as_json=as_json, after=before)


@registry_app.command("list")
def registry_list(spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """List the versions of an agent's spec and where each stands.

    Example: `flagstream registry list --spec card-fraud`
    """
    from streaming.commands.registry import list_versions

    list_versions(agent_in(home, spec), as_json=as_json)


def promote(
    version: Annotated[str, typer.Argument(help="A registered version, such as 1.1.0.")],
    why: Why,
    who: Who = None,
    allow_endpoint_change: Annotated[
        str | None,
        typer.Option(help="Why another policy, model, endpoint or key variable is meant, in plain words."),
    ] = None,
    to: Annotated[
        Literal["shadow", "canary", "active"] | None,
        typer.Option(
            "--to", help="Stage by stage up to this one, nothing where it stands there; the next if absent."
        ),
    ] = None,
    percent: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=100,
            help="Share in percent that it decides in canary; canary_percent of the active spec if absent.",
        ),
    ] = None,
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Move a version one stage along: sandbox, shadow, canary, active; exit 1 with the reasons if it may not.

    Asked for are a replay report, precision on matured labels, alerts within the budget, and for another
    prompt or model an evaluation that passed; how much of each the active spec's `promotion` says. A version
    with another policy, model, endpoint or key needs `--allow-endpoint-change` at each stage.

    Examples: `flagstream promote 1.1.0 --why "replay of May looks good"`,
    `flagstream promote 1.1.0 --to canary --percent 5 --why "first a few"`
    """
    from streaming.commands.registry import move_along
    from streaming.versions.moving import PromotionOptions, author_of

    agent = agent_in(home, spec)
    options = PromotionOptions(to, percent, allow_endpoint_change)
    move_along(agent, version, author_of(who, why), options, as_json=as_json)


def rollback(
    why: Why,
    who: Who = None,
    if_any: Annotated[
        bool, typer.Option("--if-any", help="Exit 0 where no promotion stands that could be withdrawn.")
    ] = False,
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Withdraw the version promoted last; the one it replaced is active again from the next batch on.

    Example: `flagstream rollback --why "too many alerts on new terminals"`
    """
    from streaming.commands.registry import withdraw
    from streaming.versions.moving import author_of

    author = author_of(who, why)
    withdraw(agent_in(home, spec), author, if_any=if_any, as_json=as_json)
