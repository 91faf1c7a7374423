"""The command line: `flagstream`. Parses, composes, prints; the work is done elsewhere."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from schemas.contract import load_contract
from schemas.errors import ConfigurationError, FlagstreamError, MachineError
from streaming.cli.agent import agent_app
from streaming.cli.audit import audit_app, cost
from streaming.cli.bench import bench_app
from streaming.cli.ci import ci
from streaming.cli.content import labels_app, spec_app
from streaming.cli.history import backfill, snapshot_app
from streaming.cli.options import (
    DEFAULT_HOME,
    TIMES,
    AsJson,
    Home,
    LlmChoice,
    SpecName,
    broker_of,
    console,
    say,
    settings_in,
    spec_named,
)
from streaming.cli.prompts import prompts_app
from streaming.cli.registry import promote, registry_app, rollback

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Watches transactions on Kafka, stores and scores them in Delta, and raises alerts exactly once.",
    epilog="Exit codes: 0 done, 1 differences or a fault, 2 wrong configuration, 3 the machine lacks "
    "something, 4 another driver took over, 5 stopped so that nothing is lost.",
)
broker_app = typer.Typer(no_args_is_help=True, help="Start, stop and inspect the embedded Kafka broker.")
app.add_typer(broker_app, name="broker")
app.add_typer(spec_app, name="spec")
app.add_typer(labels_app, name="labels")
app.add_typer(prompts_app, name="prompts")
app.add_typer(registry_app, name="registry")
app.add_typer(audit_app, name="audit")
app.add_typer(agent_app, name="agent")
app.add_typer(snapshot_app, name="snapshot")
app.add_typer(bench_app, name="bench")
app.command()(promote)
app.command()(rollback)
app.command()(cost)
app.command()(backfill)
app.command()(ci)


def main() -> None:
    """Run the command line; errors raised on purpose become one line and their exit code."""
    try:
        app()
    except FlagstreamError as fault:
        sys.stderr.write(f"flagstream: {fault}\n")
        raise SystemExit(fault.exit_code) from None
    except OSError as fault:
        place = f"{fault.filename}: " if fault.filename else ""
        sys.stderr.write(f"flagstream: {place}{fault.strerror or fault}\n")
        raise SystemExit(MachineError.exit_code) from None


@app.command()
def doctor(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Check the machine and tell what to do about each failure.

    Example: `flagstream doctor --json`
    """
    from streaming.doctor import check_machine

    findings = check_machine(settings_in(home))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        table = Table("check", "", "found", "what to do", box=None)
        for finding in findings:
            table.add_row(finding.name, "ok" if finding.ok else "FAIL", finding.found, finding.advice)
        console.print(table)
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 3)


@app.command(hidden=True)
def fetch(home: Home = DEFAULT_HOME) -> None:
    """Download the pinned jars into the project's cache and compile the kernels; `make setup` calls it."""
    from streaming.downloads import fetch_jars
    from streaming.warmup import compile_kernels

    fetch_jars(settings_in(home))
    spec = spec_named("card-fraud")
    compile_kernels(spec, load_contract(spec.data_sources.transactions.contract))


@app.command()
def demo(
    home: Home = DEFAULT_HOME,
    seconds: Annotated[float, typer.Option(help="How long transactions are streamed.", min=5)] = 60,
    rate: Annotated[float, typer.Option(help="Transactions per second.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the simulated stream.")] = 7,
    llm: LlmChoice = "auto",
    as_json: AsJson = False,
) -> None:
    """Run everything for about a minute on simulated transactions, then show what was caught.

    State goes to the folder `demo` below --home, which is emptied first.

    Example: `flagstream demo --seconds 30 --rate 500`
    """
    from streaming.demo import DemoSettings, run_demo

    run_demo(settings_in(home), DemoSettings(seconds, rate, seed, llm), as_json=as_json)


@app.command()
def simulate(
    home: Home = DEFAULT_HOME,
    to: Annotated[Path | None, typer.Option(help="Write a .parquet or .csv file instead of Kafka.")] = None,
    topic: Annotated[str, typer.Option(help="Topic to send to.")] = "transactions",
    rate: Annotated[float, typer.Option(help="Transactions per second.", min=0.1)] = 200,
    seconds: Annotated[float, typer.Option(help="For how long.", min=0.1)] = 60,
    seed: Annotated[int, typer.Option(help="Seed of the stream.")] = 7,
    days: Annotated[
        float, typer.Option(help="Days of event time that pass meanwhile, up to now; on Kafka only.", min=0)
    ] = 3,
    as_json: AsJson = False,
) -> None:
    """Send a stream of simulated transactions to Kafka and its labels to a file, or write both to a file.

    Examples: `flagstream simulate --rate 1000 --seconds 30`,
    `flagstream simulate --to stream.parquet --seconds 600`
    """
    from streaming.kafka.feeds import simulate_to_file, simulate_to_topic

    settings = settings_in(home)
    if to is not None:
        sent = simulate_to_file(to, rate=rate, seconds=seconds, seed=seed)
    else:
        labels = settings.home / "labels" / f"{topic}-{datetime.now(UTC):%Y%m%dT%H%M%S}.parquet"
        with broker_of(settings) as bootstrap:
            compress = max(days * 86_400 / seconds, 1.0)
            sent = simulate_to_topic(
                bootstrap, topic, rate=rate, seconds=seconds, seed=seed, compress=compress, labels=labels
            )
    say({"sent": sent.events, "frauds": sent.frauds, "labels": str(sent.labels), "seed": seed}, as_json)


@app.command()
def produce(
    file: Annotated[Path, typer.Argument(help="A .parquet, .csv or .jsonl file.")],
    contract: Annotated[str, typer.Option(help="Contract file, or the name of a shipped contract.")],
    home: Home = DEFAULT_HOME,
    topic: Annotated[str | None, typer.Option(help="Topic; the contract's name unless given.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Events per second; as fast as it goes if absent.")
    ] = None,
    partitions: Annotated[int, typer.Option(help="Partitions, when the topic is created.", min=1)] = 4,
    as_json: AsJson = False,
) -> None:
    """Send a file's rows to Kafka as JSON events under a contract.

    Example: `flagstream produce payments.parquet --contract handbook --rate 1000`
    """
    from streaming.kafka.feeds import produce_with_progress

    with broker_of(settings_in(home)) as bootstrap:
        counts = produce_with_progress(
            bootstrap, file, load_contract(contract), topic=topic, rate=rate, partitions=partitions
        )
    say(counts, as_json)


@app.command()
def run(
    spec: SpecName,
    home: Home = DEFAULT_HOME,
    until_idle: Annotated[bool, typer.Option(help="Stop once the topic holds nothing unread.")] = False,
    llm: LlmChoice = "auto",
    as_json: AsJson = False,
) -> None:
    """Run an agent until Ctrl-C: the first finishes the batch in hand, the second stops at once.

    Example: `flagstream run --spec handbook --until-idle`
    """
    from streaming.driver import drive

    stop = threading.Event()
    settings, loaded = settings_in(home), spec_named(spec)
    with broker_of(settings) as bootstrap:
        drive(settings, loaded, bootstrap, llm=llm, stop=stop, until_idle=until_idle, as_json=as_json)


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
    from streaming.display import print_alerts

    with broker_of(settings_in(home)) as bootstrap:
        print_alerts(bootstrap, spec_named(spec).alerts.topic, follow=follow, as_json=as_json)


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
    from streaming.audit.access import tell_read
    from streaming.history.explain import explain as take_apart
    from streaming.history.explain import show

    settings, loaded = settings_in(home), spec_named(spec)
    contract = load_contract(loaded.data_sources.transactions.contract)
    found = take_apart(settings.lake(loaded.name), loaded, alert, contract.primary_entity)
    tell_read(settings, loaded, "explain", [loaded.tables.alerts, loaded.tables.transactions])
    if as_json:
        print(json.dumps(found.plain(), default=str))
    else:
        show(found, console)


@app.command()
def status(spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Show what an agent has read, stored, quarantined and alerted so far.

    Example: `flagstream status --spec handbook --json`
    """
    from streaming.display import print_status
    from streaming.status import read_status, topic_ends

    settings, loaded = settings_in(home), spec_named(spec)
    ends = topic_ends(settings, loaded.data_sources.transactions.topic)
    print_status(read_status(settings.lake(loaded.name), loaded, ends), as_json=as_json)


@app.command()
def reconcile(spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Compare transactions, alerts in Delta and alerts on Kafka; exit 1 on any difference.

    Example: `flagstream reconcile --spec handbook`
    """
    from streaming.audit.access import tell_read
    from streaming.reconcile import reconcile as compare

    settings, loaded = settings_in(home), spec_named(spec)
    contract = load_contract(loaded.data_sources.transactions.contract)
    with broker_of(settings) as bootstrap:
        found = compare(settings.lake(loaded.name), loaded, bootstrap, contract.duplicates.horizon)
    tell_read(settings, loaded, "reconcile", [loaded.tables.transactions, loaded.tables.alerts])
    say({**asdict(found), "differences": found.differences}, as_json)
    raise typer.Exit(1 if found.differences else 0)


@app.command()
def evaluate(
    files: Annotated[list[Path], typer.Argument(help="Labelled .parquet, .csv or .jsonl files.")],
    contract: Annotated[str, typer.Option(help="Contract file, or the name of a shipped contract.")],
    test_start: Annotated[
        list[datetime], typer.Option(formats=["%Y-%m-%d"], help="First day of a test week; repeatable.")
    ],
    spec: Annotated[
        str | None, typer.Option(help="Spec; by default the shipped one named as the contract.")
    ] = None,
    mode: Annotated[str, typer.Option(help="unlabelled, delayed or trained.")] = "unlabelled",
    label_delay: Annotated[str, typer.Option(help="From a transaction to its verdict.")] = "7d",
    alerts_per_day: Annotated[int, typer.Option(help="Budget for precision and recall.", min=1)] = 100,
    plots: Annotated[Path | None, typer.Option(help="Folder for the plots.")] = None,
    as_json: AsJson = False,
) -> None:
    """Stream labelled files through the live scorer and judge its scores by the handbook's protocol.

    Example: `flagstream evaluate tx*.parquet --contract handbook --mode delayed --test-start 2018-07-04`,
    where tx*.parquet are your own labelled files.
    """
    from streaming.commands.evaluate import run_evaluation

    found = run_evaluation(
        files, load_contract(contract), spec_named(spec or contract), mode,
        label_delay=label_delay, test_starts=[each.date() for each in test_start],
        alerts_per_day=alerts_per_day, plots=plots,
    )  # fmt: skip
    say(found, as_json)


@app.command()
def replay(
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    alert: Annotated[
        str | None, typer.Option(help="An alert's id, its first characters, or its transaction.")
    ] = None,
    from_version: Annotated[int | None, typer.Option(help="Of the transactions table, exclusive.")] = None,
    to_version: Annotated[int | None, typer.Option(help="Inclusive.")] = None,
    from_time: Annotated[
        datetime | None, typer.Option(formats=TIMES, help="Event time in UTC, inclusive.")
    ] = None,
    to_time: Annotated[datetime | None, typer.Option(formats=TIMES, help="Exclusive.")] = None,
    snapshot: Annotated[
        str | None, typer.Option(help="A snapshot's name: its span, from its own copies alone.")
    ] = None,
    candidate: Annotated[
        str | None, typer.Option(help="Another spec: says what it would have decided; publishes nothing.")
    ] = None,
    warm_up: Annotated[
        str | None,
        typer.Option(
            help="With --candidate: event time before the span, such as 7d, that its profiles are to know "
            "where no checkpoint fits them; all of history unless given."
        ),
    ] = None,
    llm: Annotated[
        str,
        typer.Option(
            help="With --candidate: recorded asks nobody, and answers on record count where the candidate's "
            "model and prompt gave them; auto asks the candidate's endpoint, else the local model; local."
        ),
    ] = "recorded",
    max_usd: Annotated[
        float | None, typer.Option(min=0, help="Cap on all new calls, by the candidate's prices.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=0, help="Cap on all new calls, input and output together.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="HTML file for the candidate's report.")] = None,
    to_topic: Annotated[
        str | None, typer.Option(help="Send the published alerts of the span to this topic once more.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Decide stored transactions anew, from the versions pinned then, and compare with what was published.

    Without a span all of history is replayed. Exit 1 when an exact replay finds a difference.

    Examples: `flagstream replay --spec handbook --alert 3f2a9c`,
    `flagstream replay --spec handbook --from-time 2018-04-07 --to-time 2018-04-08 --candidate stricter.yaml`,
    `flagstream replay --spec handbook --candidate other-prompt.yaml --llm auto --max-usd 0.50`,
    `flagstream replay --spec handbook --from-time 2018-04-07 --to-topic alerts-again`,
    `flagstream replay --spec handbook --snapshot before-easter`
    """
    from streaming.audit.access import tell_read
    from streaming.commands.registry import note_replay
    from streaming.history.asking import Asking
    from streaming.history.replay_command import (
        Wanted,
        candidate_report,
        check_report,
        run_replay,
        run_what_if,
        send_again,
        show_replay,
        warm_up_of,
    )  # fmt: skip
    from streaming.history.what_if_view import show_what_if

    asking = Asking(llm, max_usd, max_tokens)
    if candidate is None and (asking != Asking() or report is not None):
        raise ConfigurationError("--llm, --max-usd, --max-tokens and --report go with --candidate")
    check_report(report)
    warmth = warm_up_of(warm_up, candidate)
    wanted = Wanted(alert, from_version, to_version, from_time, to_time, snapshot)
    settings, loaded = settings_in(home), spec_named(spec)
    read = [loaded.tables.transactions, loaded.tables.alerts, loaded.tables.labels]
    if to_topic is not None:
        if candidate is not None:
            raise ConfigurationError("choose one of --candidate and --to-topic")
        with broker_of(settings) as bootstrap:
            sent = send_again(settings, loaded, wanted, bootstrap, to_topic)
        tell_read(settings, loaded, "replay-to-topic", [loaded.tables.alerts])
        say(sent, as_json)
        return
    if candidate is None:
        found = run_replay(settings, loaded, wanted)
        tell_read(settings, loaded, "replay", read)
        print(json.dumps(found.facts(), default=str)) if as_json else show_replay(found, console)
        raise typer.Exit(1 if found.differences else 0)
    other = spec_named(candidate)
    changed = run_what_if(settings, loaded, other, wanted, warmth, asking)
    tell_read(settings, loaded, "replay-candidate", read)
    note_replay(settings, loaded, other, changed)
    print(json.dumps(changed.facts(), default=str)) if as_json else show_what_if(changed, console)
    if report is not None:
        sys.stderr.write(f"report: {candidate_report(changed, report)}\n")


@app.command()
def train(
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    until: Annotated[
        datetime | None,
        typer.Option(formats=TIMES, help="UTC; later events and labels are left out."),
    ] = None,
    verdicts: Annotated[
        str,
        typer.Option(
            help="recorded: rows know the verdicts that they knew when scored; decided: those decided by "
            "their own time, for labels imported after the fact."
        ),
    ] = "recorded",
    label_delay: Annotated[
        str | None,
        typer.Option(help="Rows this much older than --until that nobody labelled count as genuine."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sampling of rows and features.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Fit the supervised model to stored transactions and labels; the artefact is not put in force.

    To use it, name its folder in the spec: `model: {path: FOLDER, sha256: HASH}`.

    Example: `flagstream train --spec handbook --until 2018-07-01 --verdicts decided --label-delay 7d`
    """
    from streaming.audit.access import tell_read
    from streaming.commands.train import run_training

    settings, loaded = settings_in(home), spec_named(spec)
    trained = run_training(settings, loaded, until, verdicts, label_delay, seed)
    tell_read(settings, loaded, "train", [loaded.tables.transactions, loaded.tables.labels])
    say(trained, as_json)


@broker_app.command("start")
def broker_start(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Start the embedded broker and leave it running."""
    from streaming.kafka.broker import EmbeddedBroker

    say({"bootstrap": EmbeddedBroker.of(settings_in(home)).start()}, as_json)


@broker_app.command("stop")
def broker_stop(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Stop the embedded broker; its data stays."""
    from streaming.kafka.broker import EmbeddedBroker

    say({"stopped": EmbeddedBroker.of(settings_in(home)).stop()}, as_json)


@broker_app.command("status")
def broker_status(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Say whether the embedded broker runs, and where; exit 1 when it does not."""
    from streaming.kafka.broker import EmbeddedBroker

    found = EmbeddedBroker.of(settings_in(home)).status()
    say({"running": found is not None, "bootstrap": found}, as_json)
    raise typer.Exit(0 if found is not None else 1)
