"""Commands that put an agent on a Databricks workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from schemas.errors import ConfigurationError
from streaming.cli.options import AsJson, spec_named

deploy_app = typer.Typer(no_args_is_help=True, help="Put an agent on a platform.")
databricks_app = typer.Typer(no_args_is_help=True, help="See what is on a Databricks workspace.")

Bundle = Annotated[Path, typer.Option("--bundle", help="Folder of the bundle.")]
Target = Annotated[str, typer.Option("--target", "-t", help="Target of the bundle: dev, staging, prod.")]
Profile = Annotated[
    str | None, typer.Option("--profile", help="Login of .databrickscfg; the environment's if absent.")
]
Variables = Annotated[
    list[str] | None, typer.Option("--var", help="A variable of the bundle, as NAME=VALUE; repeatable.")
]
HERE = Path()
Action = Literal["submit", "canary", "promote", "rollback"]


@deploy_app.command("databricks")
def deploy_databricks(
    spec: Annotated[
        str, typer.Option("--spec", help="With --to: a spec file, or a shipped name.")
    ] = "card-fraud",
    to: Annotated[
        Path | None, typer.Option("--to", help="Write the agent's bundle into this folder.")
    ] = None,
    bundle: Bundle = HERE,
    target: Target = "dev",
    profile: Profile = None,
    var: Variables = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the requests that would be sent, and change nothing.")
    ] = False,
    submit: Annotated[
        bool, typer.Option("--submit", help="Bring this version and submit a run; the jobs stay as they are.")
    ] = False,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="The same, wait for its end, and switch the jobs where it ends well."),
    ] = False,
    canary: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=100, help="Let this version decide so large a share in percent; none if absent."
        ),
    ] = None,
    promote: Annotated[
        bool,
        typer.Option("--promote", help="Let the version in canary decide everything, and switch the jobs."),
    ] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Withdraw the version promoted last; the jobs' former version.")
    ] = False,
    job: Annotated[str, typer.Option("--job", help="Which job's task --submit and --follow run.")] = "smoke",
    why: Annotated[
        str, typer.Option(help="Why, in a line of plain words; goes to the audit log.")
    ] = "deployed",
    rate: Annotated[
        float, typer.Option(min=0.001, max=1e9, help="Events per second that the estimate assumes.")
    ] = 100.0,
    compute_price: Annotated[
        float | None,
        typer.Option(min=0, max=1e6, help="USD per hour of a node; compute_price of the spec if absent."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write an agent as a bundle, or bring a bundle to a workspace.

    A version is tried by a run that only reads; `--follow` switches the jobs to it when that run ends well.
    The exit code is the run's: 0 well, 1 failed, 2 wrongly configured, 3 the platform failed. What it would
    cost is said before anything is sent.

    Examples: `flagstream deploy databricks --spec my-agent.yaml --to my-bundle`,
    `flagstream deploy databricks --bundle my-bundle --target dev --dry-run`,
    `flagstream deploy databricks --bundle my-bundle --target prod --canary 5 --why "first a few"`
    """
    from streaming.commands import deploy as command

    given = _given(var or [])
    if to is not None:
        command.write(spec_named(spec), to, given, as_json=as_json)
        return
    chosen = _chosen(submit or follow, canary is not None, promote, rollback, dry_run)
    options = command.DeployOptions(
        chosen, follow, dry_run, job, canary or 0.0, why, rate, compute_price
    )  # fmt: skip
    at = command.BundleTarget(bundle, target, profile, given)
    raise typer.Exit(command.deploy(at, options, as_json=as_json))


@databricks_app.command("status")
def databricks_status(
    bundle: Bundle = HERE,
    target: Target = "dev",
    profile: Profile = None,
    var: Variables = None,
    as_json: AsJson = False,
) -> None:
    """Show which version a target is at, and its jobs with the newest run of each.

    Example: `flagstream databricks status --bundle my-bundle --target prod`
    """
    from streaming.commands.databricks import show_target
    from streaming.commands.deploy import BundleTarget

    show_target(BundleTarget(bundle, target, profile, _given(var or [])), as_json=as_json)


@databricks_app.command("runs")
def databricks_runs(
    bundle: Bundle = HERE,
    target: Target = "dev",
    profile: Profile = None,
    var: Variables = None,
    count: Annotated[int, typer.Option(help="How many runs, the newest of all times.", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest runs of a target's jobs.

    Example: `flagstream databricks runs --bundle my-bundle --target prod --count 5`
    """
    from streaming.commands.databricks import show_runs
    from streaming.commands.deploy import BundleTarget

    show_runs(BundleTarget(bundle, target, profile, _given(var or [])), count, as_json=as_json)


@databricks_app.command("wheel")
def databricks_wheel(
    folder: Annotated[Path, typer.Argument(help="Folder that it is written into.")],
) -> None:
    """Write the wheel that a workspace's jobs run: flagstream without a Spark of its own.

    Example: `flagstream databricks wheel dist`
    """
    from streaming.commands.databricks import write_wheel

    write_wheel(folder)


def _given(words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise ConfigurationError("expected NAME=VALUE", where=f"--var {word}")
        found[name] = value
    return found


def _chosen(submit: bool, canary: bool, promote: bool, rollback: bool, dry_run: bool) -> Action:
    named: dict[Action, bool] = {"submit": submit, "canary": canary, "promote": promote, "rollback": rollback}
    chosen = [name for name, given in named.items() if given]
    if len(chosen) > 1:
        raise ConfigurationError("one of these at a time", where=" and ".join(f"--{each}" for each in chosen))
    if not chosen and not dry_run:
        raise ConfigurationError(
            "nothing to do: --to writes a bundle, --dry-run shows requests, --submit, --follow, --canary, "
            "--promote and --rollback send them"
        )
    return chosen[0] if chosen else "submit"
