"""The command line: `flagstream`. It parses; streaming.commands does and shows."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from functools import cache
from typing import Annotated

import typer
from typer.core import TyperGroup

from schemas.errors import FlagstreamError, MachineError
from streaming.cli.agent import agent_app
from streaming.cli.audit import audit_app, cost
from streaming.cli.bench import bench_app
from streaming.cli.cases import case_app
from streaming.cli.ci import ci
from streaming.cli.completion import completion
from streaming.cli.console import console
from streaming.cli.content import labels_app, spec_app
from streaming.cli.contract import contract_app
from streaming.cli.databricks import databricks_app, deploy_app
from streaming.cli.erase import erase
from streaming.cli.history import backfill, snapshot_app
from streaming.cli.init import init
from streaming.cli.kafka import broker_app, kafka_app, produce, simulate
from streaming.cli.learning import evaluate, train
from streaming.cli.llm import llm_app
from streaming.cli.notify import notify_app
from streaming.cli.options import (
    DEFAULT_HOME,
    AsJson,
    Home,
    LlmChoice,
    LogFormat,
    MetricsPort,
    SpecName,
    agent_in,
    settings_in,
    spec_named,
)
from streaming.cli.prompts import prompts_app
from streaming.cli.quarantine import quarantine_app
from streaming.cli.registry import promote, registry_app, rollback
from streaming.cli.replay import ReplayCommand, replay, resend, what_if
from streaming.cli.serve import serve
from streaming.cli.token import token_app
from streaming.commands.own_process import within_limits
from streaming.home.placed_agent import PlacedAgent
from streaming.output.log import say_fault

_BESIDE_AGENTS = "serve"  # its pools of threads would take an agent's cores, for work that one does as soon

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Watches transactions on Kafka, stores and scores them in Delta, and raises alerts exactly once.",
    epilog="Exit codes: 0 done, 1 differences or a fault, 2 wrong configuration, 3 the machine lacks "
    "something, 4 another driver took over, 5 stopped so that nothing is lost.",
)
app.add_typer(broker_app, name="broker")
app.add_typer(kafka_app, name="kafka")
app.add_typer(spec_app, name="spec")
app.add_typer(contract_app, name="contract")
app.add_typer(labels_app, name="labels")
app.add_typer(prompts_app, name="prompts")
app.add_typer(llm_app, name="llm")
app.add_typer(notify_app, name="notify")
app.add_typer(registry_app, name="registry")
app.add_typer(audit_app, name="audit")
app.add_typer(agent_app, name="agent")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(case_app, name="case")
app.add_typer(snapshot_app, name="snapshot")
app.add_typer(deploy_app, name="deploy")
app.add_typer(databricks_app, name="databricks")
app.add_typer(token_app, name="token")
app.add_typer(bench_app, name="bench")


@cache
def program() -> TyperGroup:
    """Return the whole command line, built once: that takes a tenth of a second, and it holds no state."""
    found = typer.main.get_command(app)
    assert isinstance(found, TyperGroup)
    return found


def main() -> None:
    """Run the command line; errors raised on purpose become one line and their exit code."""
    raise SystemExit(carried_out())


def carried_out(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        words: of the command; those of the process unless given.
    """
    try:
        given = sys.argv[1:] if words is None else words
        with within_limits(is_beside=[*given[:1]] == [_BESIDE_AGENTS]):
            program()(args=words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except FlagstreamError as fault:
        say_fault(f"flagstream: {fault}")
        return fault.exit_code
    except OSError as fault:
        place = f"{fault.filename}: " if fault.filename else ""
        say_fault(f"flagstream: {place}{fault.strerror or fault}")
        return MachineError.exit_code
    except Exception:  # a fault of ours is shown whole, and like all else by what cannot steer a terminal
        say_fault(traceback.format_exc())
        return 1
    return 0


@app.command()
def doctor(
    home: Home = DEFAULT_HOME,
    spec: Annotated[
        str | None,
        typer.Option(
            help="An agent whose rights on Kafka, keys, store and cluster are tried: a spec file, or a name."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the machine and say what to do about each failure.

    Examples: `flagstream doctor --json`, `flagstream doctor --spec my-agent.yaml`
    """
    from streaming.commands.doctor import show_machine

    settings, named = (settings_in(home), None) if spec is None else agent_in(home, spec)
    raise typer.Exit(0 if show_machine(settings, named, as_json=as_json) else 3)


@app.command()
def fetch(
    home: Home = DEFAULT_HOME,
    msk: Annotated[
        bool, typer.Option("--msk", help="Only the jar with which Spark logs in to Amazon MSK.")
    ] = False,
) -> None:
    """Download the pinned jars and make what starts use again, all in the cache; `make setup` calls it.

    Examples: `flagstream fetch`, `flagstream fetch --msk`
    """
    from streaming.commands.warming import fetch as prepare
    from streaming.commands.warming import fetch_msk
    from streaming.home.settings import Settings

    # not settings_in: an installation is for every user of the machine
    settings = Settings.load(home)
    fetch_msk(settings) if msk else prepare(PlacedAgent(settings, spec_named("card-fraud")))


@app.command()
def demo(
    home: Home = DEFAULT_HOME,
    seconds: Annotated[float, typer.Option(help="Seconds for which transactions are streamed.", min=5)] = 60,
    rate: Annotated[float, typer.Option(help="Transactions per second.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the simulated stream.")] = 7,
    llm: LlmChoice = "auto",
    metrics_port: Annotated[
        str,
        typer.Option(
            help="[HOST:]PORT where metrics are served meanwhile, another where it is taken, or off."
        ),
    ] = "9464",
    console: Annotated[
        bool,
        typer.Option(
            "--console",
            help="Open the console once the agent reads, as `serve --console` does; it stays until Ctrl-C.",
        ),
    ] = False,
    log_format: LogFormat = None,
    as_json: AsJson = False,
) -> None:
    """Run everything for about a minute on simulated transactions, then show what was caught.

    State goes to the folder `demo` below --home, which is emptied first.

    Examples: `flagstream demo --console`, `flagstream demo --seconds 30 --rate 500`
    """
    from streaming.commands.launching import demo_settings, launched_ahead

    settings = demo_settings(settings_in(home, log_format, metrics_port))
    with launched_ahead(settings) as jvm:
        from streaming.commands.demo import run_demo
        from streaming.commands.demo_feed import DemoSettings

        run_demo(settings, DemoSettings(seconds, rate, seed, llm, console), jvm, as_json=as_json)


@app.command()
def run(
    spec: SpecName,
    home: Home = DEFAULT_HOME,
    until_idle: Annotated[bool, typer.Option(help="Stop once the topic holds nothing unread.")] = False,
    llm: LlmChoice = "auto",
    accept_loss: Annotated[
        str | None,
        typer.Option(
            help="Why records that left the topic unread are given up; recorded, with their offsets."
        ),
    ] = None,
    move_alerts: Annotated[
        bool, typer.Option(help="Let the next alerts leave on another topic, which the spec now names.")
    ] = False,
    warm: Annotated[
        bool,
        typer.Option(
            "--warm",
            help="First make what later starts use again, where it is missing; then say where the time went "
            "until the first batch was closed.",
        ),
    ] = False,
    metrics_port: MetricsPort = None,
    log_format: LogFormat = None,
    as_json: AsJson = False,
) -> None:
    """Run an agent until Ctrl-C: the first finishes the current batch, the second stops at once.

    Examples: `flagstream run --spec handbook --until-idle`,
    `flagstream run --spec handbook --metrics-port 9464`,
    `flagstream run --spec my-agent.yaml --accept-loss "retention overtook a long outage"`
    """
    from streaming.commands.launching import launched_ahead

    agent = agent_in(home, spec, log_format, metrics_port)
    if warm:
        from streaming.commands.warming import fill_caches

        fill_caches(agent)
    with launched_ahead(agent.settings) as jvm:
        from streaming.commands.run import run_until_stopped

        run_until_stopped(
            agent, jvm, llm=llm, until_idle=until_idle, accept_loss=accept_loss,
            move_alerts=move_alerts, as_json=as_json, report_start=warm,
        )  # fmt: skip


@app.command()
def alerts(
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the alerts a read_committed consumer sees.

    Example: `flagstream alerts --follow --json | jq .severity`
    """
    from streaming.commands.alerts import show_alerts

    show_alerts(agent_in(home, spec), follow=follow, as_json=as_json)


@app.command()
def explain(
    alert: Annotated[str, typer.Argument(help="Alert id or its first characters, or a transaction id.")],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Show why an alert was raised: the parts of its score, what is normal, and the payments most like it.

    Example: `flagstream explain 3f2a91 --spec handbook`
    """
    from streaming.commands.explain import explain_alert

    explain_alert(agent_in(home, spec), alert, as_json=as_json)


@app.command()
def status(spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Show what an agent has read, stored, quarantined and alerted so far.

    Example: `flagstream status --spec handbook --json`
    """
    from streaming.commands.status import show_status

    show_status(agent_in(home, spec), as_json=as_json)


@app.command()
def reconcile(spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Compare transactions, alerts in Delta and alerts on Kafka; exit 1 on any difference.

    Example: `flagstream reconcile --spec handbook`
    """
    from streaming.commands.reconcile import show_differences

    same = show_differences(agent_in(home, spec), as_json=as_json)
    raise typer.Exit(0 if same else 1)


@app.command()
def maintain(spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Compact the tables of a lake, clear files that no version names, shorten logs; once.

    A running agent does this by itself; the command is for lakes that nobody writes to, and for schedules.

    Example: `flagstream maintain --spec handbook`
    """
    from streaming.commands.maintain import maintain_tables

    maintain_tables(agent_in(home, spec), as_json=as_json)


app.command(cls=ReplayCommand)(replay)
for command in (init, simulate, produce, evaluate, train, what_if, resend, promote, rollback, cost, backfill):
    app.command()(command)
app.command()(serve)
app.command()(console)
app.command()(ci)
app.command()(erase)
app.command()(completion)
