"""The command line: `flagstream`. Parses, composes, prints; the work is done elsewhere."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from agent import SPECS
from schemas.alert import alert_json_schema
from schemas.contract import load_contract
from schemas.errors import ConfigurationError, FlagstreamError, MachineError
from schemas.label import label_json_schema
from schemas.spec import AgentSpec, load_spec, resolve_named
from streaming.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Watches transactions on Kafka, stores and scores them in Delta, and raises alerts exactly once.",
    epilog="Exit codes: 0 done, 1 differences or a fault, 2 wrong configuration, 3 the machine lacks "
    "something, 4 another driver took over, 5 stopped so that nothing is lost.",
)
broker_app = typer.Typer(no_args_is_help=True, help="Start, stop and inspect the embedded Kafka broker.")
spec_app = typer.Typer(no_args_is_help=True, help="Check agent specs and print schemas.")
labels_app = typer.Typer(no_args_is_help=True, help="Record verdicts on transactions and count them.")
bench_app = typer.Typer(no_args_is_help=True, help="Measure the figures the README quotes.")
app.add_typer(broker_app, name="broker")
app.add_typer(spec_app, name="spec")
app.add_typer(labels_app, name="labels")
app.add_typer(bench_app, name="bench")

Home = Annotated[Path, typer.Option("--home", help="Folder for all state.", envvar="FLAGSTREAM_HOME")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
SpecName = Annotated[str, typer.Option("--spec", help="A spec file, or the name of a shipped spec.")]
LlmChoice = Annotated[
    str,
    typer.Option(
        "--llm",
        help="auto: the endpoint of spec or environment, else the local model; local; none: rules alone.",
    ),
]
DEFAULT_HOME = Path("var")
TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
_console = Console()


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

    findings = check_machine(_settings(home))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        table = Table("check", "", "found", "what to do", box=None)
        for finding in findings:
            table.add_row(finding.name, "ok" if finding.ok else "FAIL", finding.found, finding.advice)
        _console.print(table)
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 3)


@app.command(hidden=True)
def fetch(home: Home = DEFAULT_HOME) -> None:
    """Download the pinned jars into the project's cache and compile the kernels; `make setup` calls it."""
    from streaming.downloads import fetch_jars
    from streaming.warmup import compile_kernels

    fetch_jars(_settings(home))
    spec = _load("card-fraud")
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

    run_demo(_settings(home), DemoSettings(seconds, rate, seed, llm), as_json=as_json)


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
    from streaming.feeds import simulate_to_file, simulate_to_topic

    settings = _settings(home)
    if to is not None:
        sent = simulate_to_file(to, rate=rate, seconds=seconds, seed=seed)
    else:
        labels = settings.home / "labels" / f"{topic}-{datetime.now(UTC):%Y%m%dT%H%M%S}.parquet"
        with _bootstrap(settings) as bootstrap:
            compress = max(days * 86_400 / seconds, 1.0)
            sent = simulate_to_topic(
                bootstrap, topic, rate=rate, seconds=seconds, seed=seed, compress=compress, labels=labels
            )
    _say({"sent": sent.events, "frauds": sent.frauds, "labels": str(sent.labels), "seed": seed}, as_json)


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
    from streaming.feeds import produce_with_progress

    with _bootstrap(_settings(home)) as bootstrap:
        counts = produce_with_progress(
            bootstrap, file, load_contract(contract), topic=topic, rate=rate, partitions=partitions
        )
    _say(counts, as_json)


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
    settings, loaded = _settings(home), _load(spec)
    with _bootstrap(settings) as bootstrap:
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

    with _bootstrap(_settings(home)) as bootstrap:
        print_alerts(bootstrap, _load(spec).alerts.topic, follow=follow, as_json=as_json)


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
    from streaming.explain import explain as take_apart
    from streaming.explain import show

    settings, loaded = _settings(home), _load(spec)
    contract = load_contract(loaded.data_sources.transactions.contract)
    found = take_apart(settings.lake(loaded.name), loaded, alert, contract.primary_entity)
    if as_json:
        print(json.dumps(found.plain(), default=str))
    else:
        show(found, _console)


@app.command()
def status(spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Show what an agent has read, stored, quarantined and alerted so far.

    Example: `flagstream status --spec handbook --json`
    """
    from streaming.display import print_status
    from streaming.status import read_status, topic_ends

    settings, loaded = _settings(home), _load(spec)
    ends = topic_ends(settings, loaded.data_sources.transactions.topic)
    print_status(read_status(settings.lake(loaded.name), loaded, ends), as_json=as_json)


@app.command()
def reconcile(spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Compare transactions, alerts in Delta and alerts on Kafka; exit 1 on any difference.

    Example: `flagstream reconcile --spec handbook`
    """
    from streaming.reconcile import reconcile as compare

    settings, loaded = _settings(home), _load(spec)
    contract = load_contract(loaded.data_sources.transactions.contract)
    with _bootstrap(settings) as bootstrap:
        found = compare(settings.lake(loaded.name), loaded, bootstrap, contract.duplicates.horizon)
    _say({**asdict(found), "differences": found.differences}, as_json)
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
    from streaming.evaluate_command import run_evaluation

    found = run_evaluation(
        files, load_contract(contract), _load(spec or contract), mode,
        label_delay=label_delay, test_starts=[each.date() for each in test_start],
        alerts_per_day=alerts_per_day, plots=plots,
    )  # fmt: skip
    _say(found, as_json)


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
    candidate: Annotated[
        str | None, typer.Option(help="Another spec: says what it would have decided; publishes nothing.")
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
    `flagstream replay --spec handbook --from-time 2018-04-07 --to-topic alerts-again`
    """
    from streaming.replay_command import (
        Wanted,
        candidate_report,
        run_replay,
        run_what_if,
        send_again,
        show_replay,
        show_what_if,
    )  # fmt: skip

    wanted = Wanted(alert, from_version, to_version, from_time, to_time)
    settings, loaded = _settings(home), _load(spec)
    if to_topic is not None:
        if candidate is not None:
            raise ConfigurationError("choose one of --candidate and --to-topic")
        with _bootstrap(settings) as bootstrap:
            _say(send_again(settings, loaded, wanted, bootstrap, to_topic), as_json)
        return
    if candidate is None:
        found = run_replay(settings, loaded, wanted)
        print(json.dumps(found.facts(), default=str)) if as_json else show_replay(found, _console)
        raise typer.Exit(1 if found.differences else 0)
    changed = run_what_if(settings, loaded, _load(candidate), wanted)
    print(json.dumps(changed.facts(), default=str)) if as_json else show_what_if(changed, _console)
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
    from streaming.train_command import run_training

    _say(run_training(_settings(home), _load(spec), until, verdicts, label_delay, seed), as_json)


@broker_app.command("start")
def broker_start(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Start the embedded broker and leave it running."""
    from streaming.broker import EmbeddedBroker

    _say({"bootstrap": EmbeddedBroker.of(_settings(home)).start()}, as_json)


@broker_app.command("stop")
def broker_stop(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Stop the embedded broker; its data stays."""
    from streaming.broker import EmbeddedBroker

    _say({"stopped": EmbeddedBroker.of(_settings(home)).stop()}, as_json)


@broker_app.command("status")
def broker_status(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Say whether the embedded broker runs, and where; exit 1 when it does not."""
    from streaming.broker import EmbeddedBroker

    found = EmbeddedBroker.of(_settings(home)).status()
    _say({"running": found is not None, "bootstrap": found}, as_json)
    raise typer.Exit(0 if found is not None else 1)


@spec_app.command("validate")
def spec_validate(
    file: Annotated[str, typer.Argument(help="A spec file, or the name of a shipped spec.")],
    as_json: AsJson = False,
) -> None:
    """Check a spec, its contract, rules, policy and prompt.

    Example: `flagstream spec validate my-agent.yaml`
    """
    from streaming.compose import check_spec

    spec = _load(file)
    check_spec(spec, where=file)
    _say({"valid": True, "name": spec.name, "version": spec.version, "digest": spec.digest}, as_json)


@spec_app.command("columns")
def spec_columns(
    spec: Annotated[str, typer.Argument(help="A spec file, or the name of a shipped spec.")],
    as_json: AsJson = False,
) -> None:
    """List what the rules of a spec can look at: fields of the event, the score, and features.

    Example: `flagstream spec columns handbook`
    """
    from streaming.compose import rule_watch

    loaded = _load(spec)
    watch = rule_watch(loaded, load_contract(loaded.data_sources.transactions.contract))
    _say({field.name: str(field.type) for field in watch.schema}, as_json)


@spec_app.command("event-schema")
def spec_event_schema(
    contract: Annotated[str, typer.Argument(help="Contract file, or the name of a shipped contract.")],
    ddl: Annotated[bool, typer.Option("--ddl", help="Print the decoded columns as Spark DDL.")] = False,
) -> None:
    """Print the JSON Schema of an event under a contract, for whoever sends them.

    Example: `flagstream spec event-schema handbook`
    """
    loaded = load_contract(contract)
    print(loaded.spark_schema_ddl() if ddl else json.dumps(loaded.json_schema(), indent=2))


@spec_app.command("alert-schema")
def spec_alert_schema() -> None:
    """Print the JSON Schema of an alert on the topic."""
    print(json.dumps(alert_json_schema(), indent=2))


@labels_app.command("import")
def labels_import(
    file: Annotated[Path, typer.Argument(help="A .parquet, .csv or .jsonl file.")],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    by: Annotated[str, typer.Option(help="Who decided, where no column says.")] = "unknown",
    id_column: Annotated[str, typer.Option(help="Column of the transaction id.")] = "transaction_id",
    fraud_column: Annotated[str, typer.Option(help="Column of the verdict: 0/1, yes/no …")] = "is_fraud",
    time_column: Annotated[
        str | None, typer.Option(help="Column of when it was decided; `decided_at` if there, else now.")
    ] = None,
    kind_column: Annotated[
        str | None, typer.Option(help="Column of the kind of fraud; `kind` or `fraud_type` if there.")
    ] = None,
    by_column: Annotated[
        str | None, typer.Option(help="Column of who decided; `decided_by` if there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Record a file's verdicts on transactions, each once; works while the agent runs.

    Rows that hold no label are told on stderr; exit 1 when all are such.

    Examples: `flagstream labels import chargebacks.csv --by chargebacks`,
    `flagstream labels import tx.parquet --spec handbook --id-column TRANSACTION_ID --fraud-column TX_FRAUD`
    """
    from streaming.label_files import TOLD_REJECTS, LabelColumns, import_with_progress
    from streaming.labels import LabelBook

    loaded = _load(spec)
    table = _settings(home).lake(loaded.name) / loaded.tables.labels
    columns = LabelColumns(id_column, fraud_column, time_column, kind_column, by_column)
    done = import_with_progress(file, LabelBook(table, retention=loaded.replay_horizon), columns, by)
    counts = {"read": done.read, "stored": done.stored, "repeated": done.repeated, "rejected": done.rejected}
    told = {"rejects": done.rejects.slice(0, TOLD_REJECTS).to_pylist()} if as_json else {}
    _say({**counts, **told}, as_json)
    raise typer.Exit(1 if done.rejected and done.rejected == done.read else 0)


@labels_app.command("status")
def labels_status(spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Count labels, labelled transactions and frauds, by the verdicts that stand.

    Example: `flagstream labels status --spec handbook --json`
    """
    from streaming.labels import label_status

    loaded = _load(spec)
    table = _settings(home).lake(loaded.name) / loaded.tables.labels
    _say(label_status(table, loaded.replay_horizon).facts(), as_json)


@labels_app.command("schema")
def labels_schema() -> None:
    """Print the JSON Schema of a label on the topic, for whoever sends them.

    Example: `flagstream labels schema`
    """
    print(json.dumps(label_json_schema(), indent=2))


@bench_app.command("throughput")
def bench_throughput(
    events: Annotated[
        int, typer.Option(help="Events to measure over, after warm-up.", min=100_000)
    ] = 2_000_000,
    batch: Annotated[int, typer.Option(help="Micro-batch size.", min=1_000)] = 500_000,
    rounds: Annotated[int, typer.Option(help="How often the two take turns.", min=1)] = 1,
    as_json: AsJson = False,
) -> None:
    """The whole pipeline against bare Spark from Kafka to Delta, in one run on one topic."""
    from benchmarks.throughput import measure

    measure(events, batch, rounds, as_json=as_json)


@bench_app.command("latency")
def bench_latency(
    rate: Annotated[float, typer.Option(help="Events per second, open loop.", min=1)] = 1_000,
    warm_up: Annotated[float, typer.Option(help="Seconds before counting.", min=0)] = 60,
    seconds: Annotated[float, typer.Option(help="Seconds that count.", min=5)] = 120,
    as_json: AsJson = False,
) -> None:
    """From an event's Kafka timestamp to a read_committed consumer holding its alert."""
    from benchmarks.latency import measure

    measure(rate, warm_up, seconds, as_json=as_json)


@bench_app.command("detection")
def bench_detection(
    transactions: Annotated[Path, typer.Option(help="Folder of the handbook's transactions, Parquet.")],
    features: Annotated[Path, typer.Option(help="Folder of its features, Parquet; the amount is the 15th.")],
    week: Annotated[
        list[datetime], typer.Option(formats=["%Y-%m-%d"], help="First day of a test week; repeatable.")
    ],
    adbench: Annotated[Path | None, typer.Option(help="A Parquet file of labelled points.")] = None,
    amlsim: Annotated[Path | None, typer.Option(help="Folder of AMLSim's transfers and accounts.")] = None,
    jobs: Annotated[int, typer.Option(help="Threads where a library offers them.", min=1)] = 2,
    as_json: AsJson = False,
) -> None:
    """How well the scores rank frauds, beside what others reach on the same rows; about two minutes.

    Example: `flagstream bench detection --transactions DIR --features DIR --week 2018-07-04`
    """
    from benchmarks.detection import measure

    days = [each.date() for each in week]
    measure(transactions, features, days, adbench=adbench, amlsim=amlsim, jobs=jobs, as_json=as_json)


@bench_app.command("replay")
def bench_replay(
    events: Annotated[int, typer.Option(help="Events to store live, then replay.", min=100_000)] = 2_000_000,
    batch: Annotated[int, typer.Option(help="Micro-batch size.", min=1_000)] = 500_000,
    as_json: AsJson = False,
) -> None:
    """An exact replay of stored events against the live pipeline that stored them, in one run."""
    from benchmarks.replay import measure

    measure(events, batch, as_json=as_json)


@bench_app.command("recovery")
def bench_recovery(
    entities: Annotated[int, typer.Option(help="Entities remembered.", min=1_000)] = 2_000_000,
    as_json: AsJson = False,
) -> None:
    """From a profiles checkpoint and the rows stored since to a scorer that goes on."""
    from benchmarks.recovery import measure

    measure(entities, as_json=as_json)


def _settings(home: Path) -> Settings:
    return Settings.load(home, os.environ)


def _load(name: str) -> AgentSpec:
    return load_spec(resolve_named(name, SPECS, "spec"))


@contextmanager
def _bootstrap(settings: Settings) -> Iterator[str]:
    from streaming.broker import bootstrap_for

    if settings.kafka == "docker":
        raise ConfigurationError(
            "a container lives as long as one command, so only the demo and the tests can use one; "
            "give the address of a broker that stays",
            where="FLAGSTREAM_KAFKA",
        )
    with bootstrap_for(settings) as bootstrap:
        yield bootstrap


def _say(facts: dict[str, object], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts))
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        _console.print(f"{name:<{width}}  {value}", highlight=False)
