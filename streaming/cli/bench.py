"""`flagstream bench`: the figures the README quotes, one command each."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

import streaming
from schemas.errors import ConfigurationError
from streaming.cli.options import AsJson

bench_app = typer.Typer(no_args_is_help=True)


@bench_app.callback(help="Measure the figures the README quotes.")
def find_benchmarks() -> None:
    """Find the benchmarks beside the packages: they need a clone, and an installed package has none.

    Raises:
        ConfigurationError: this is no clone.
    """
    clone = Path(streaming.__file__).parents[1]
    if not (clone / "benchmarks" / "harness.py").is_file():
        raise ConfigurationError(
            "benchmarks are not part of the installed package: clone the repository, "
            "then `make setup` and `.venv/bin/flagstream bench` there",
            where="flagstream bench",
        )
    sys.path.append(str(clone))


@bench_app.command("throughput")
def bench_throughput(
    events: Annotated[
        int, typer.Option(help="Events to measure over, after warm-up.", min=100_000)
    ] = 2_000_000,
    batch: Annotated[int, typer.Option(help="Records per micro-batch.", min=1_000)] = 500_000,
    rounds: Annotated[int, typer.Option(help="How many times the two take turns.", min=1)] = 1,
    as_json: AsJson = False,
) -> None:
    """The whole pipeline against bare Spark from Kafka to Delta, on three shapes of events in one run.

    Exit code 1 where it is not twice as fast on each of them.

    Example: `flagstream bench throughput --events 1500000`
    """
    from benchmarks.throughput import measure

    raise typer.Exit(0 if measure(events, batch, rounds, as_json=as_json) else 1)


@bench_app.command("cluster")
def bench_cluster(
    events: Annotated[
        int, typer.Option(help="Events to measure over, after warm-up.", min=100_000)
    ] = 1_600_000,
    batch: Annotated[int, typer.Option(help="Records per micro-batch.", min=1_000)] = 400_000,
    rounds: Annotated[int, typer.Option(help="How many times they take turns.", min=1)] = 1,
    customers: Annotated[
        int, typer.Option(help="Customers (entities); there is a terminal to five.", min=1_000)
    ] = 50_000,
    entities: Annotated[
        int, typer.Option(help="Entities beside which scoring is measured, and beside a tenth.", min=10_000)
    ] = 2_000_000,
    as_json: AsJson = False,
) -> None:
    """Local execution against one and two executors of a Spark cluster, with and without buckets.

    Rates, processor time and bytes an event; the driver's own share of scoring; scoring beside many entities,
    with an executor lost and with a busy customer; and a model of the rate by executor cores. Some ten
    minutes; it prints how far it is.

    Example: `flagstream bench cluster --json`
    """
    from benchmarks.cluster import measure

    measure(events, batch, rounds, customers, entities, as_json=as_json)


@bench_app.command("decode")
def bench_decode(
    events: Annotated[int, typer.Option(help="Records of each shape.", min=10_000)] = 200_000,
    as_json: AsJson = False,
) -> None:
    """Decoding alone, records of seven shapes, beside reading them one by one.

    Example: `flagstream bench decode`
    """
    from benchmarks.decoding import measure

    measure(events, as_json=as_json)


@bench_app.command("metrics")
def bench_metrics(
    events: Annotated[
        int, typer.Option(help="Events to measure over, after warm-up.", min=100_000)
    ] = 1_000_000,
    batch: Annotated[int, typer.Option(help="Records per micro-batch.", min=1_000)] = 250_000,
    rounds: Annotated[int, typer.Option(help="How many times the three take turns.", min=1)] = 15,
    as_json: AsJson = False,
) -> None:
    """Processor time of the pipeline unwatched, with metrics that are scraped, and with traces, in turns.

    Ends with exit code 1 where metrics cost more than 1 %, by the median of all pairs.

    Example: `flagstream bench metrics --rounds 30`
    """
    from benchmarks.metrics import measure

    if not measure(events, batch, rounds, as_json=as_json):
        raise typer.Exit(1)


@bench_app.command("stalled")
def bench_stalled(
    events: Annotated[
        int, typer.Option(help="Events to measure over, after warm-up.", min=100_000)
    ] = 2_000_000,
    batch: Annotated[int, typer.Option(help="Records per micro-batch.", min=1_000)] = 500_000,
    pairs: Annotated[int, typer.Option(help="How many times the two take turns.", min=1)] = 5,
    as_json: AsJson = False,
) -> None:
    """Throughput with an LLM server that never answers, against the LLM off; about five minutes.

    Example: `flagstream bench stalled --pairs 3`
    """
    from benchmarks.stalled import measure

    measure(events, batch, pairs, as_json=as_json)


@bench_app.command("latency")
def bench_latency(
    rate: Annotated[float, typer.Option(help="Events per second, open loop.", min=1)] = 1_000,
    warm_up: Annotated[float, typer.Option(help="Seconds before counting.", min=0)] = 60,
    seconds: Annotated[float, typer.Option(help="Seconds that count.", min=5)] = 120,
    store: Annotated[
        str | None,
        typer.Option(
            help="Where the lake lies: gofakes3, versitygw or azurite, started for it, or a URI; "
            "below a home of its own if absent."
        ),
    ] = None,
    request_delay: Annotated[
        float, typer.Option(help="Seconds added to each request to the store.", min=0, max=10)
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """From an event's Kafka timestamp to a read_committed consumer holding its alert.

    With a store, also the requests that a batch takes, by kind.

    Examples: `flagstream bench latency`, `flagstream bench latency --store gofakes3 --request-delay 0.02`
    """
    from benchmarks.latency import measure

    measure(rate, warm_up, seconds, store, request_delay, as_json=as_json)


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


@bench_app.command("windows")
def bench_windows(
    transactions: Annotated[Path, typer.Option(help="Folder of the handbook's transactions, Parquet.")],
    features: Annotated[Path, typer.Option(help="Folder of its 14 features, Parquet.")],
    as_json: AsJson = False,
) -> None:
    """The handbook's 14 features by streaming, against its own; exit 1 where one differs by more than 1e-6.

    Example: `flagstream bench windows --transactions DIR --features DIR`
    """
    from benchmarks.windows import measure

    raise typer.Exit(0 if measure(transactions, features, as_json=as_json) else 1)


@bench_app.command("triage")
def bench_triage(
    rows: Annotated[int, typer.Option(help="Flagged rows of the burst.", min=10)] = 1_000,
    batches: Annotated[int, typer.Option(help="Micro-batches they arrive in.", min=1)] = 10,
    local: Annotated[bool, typer.Option("--local", help="Ask the local model; takes minutes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Calls and tokens that triage of a burst takes, and of the same day run again from the ledger.

    Example: `flagstream bench triage --rows 1000`, or `--rows 40 --batches 1 --local` for the local model
    """
    from benchmarks.triage import measure

    measure(rows, batches, local=local, as_json=as_json)


@bench_app.command("replay")
def bench_replay(
    events: Annotated[int, typer.Option(help="Events to store live, then replay.", min=100_000)] = 2_000_000,
    batch: Annotated[int, typer.Option(help="Records per micro-batch.", min=1_000)] = 500_000,
    as_json: AsJson = False,
) -> None:
    """An exact replay of stored events against the live pipeline that stored them, in one run.

    Example: `flagstream bench replay`
    """
    from benchmarks.replay import measure

    measure(events, batch, as_json=as_json)


@bench_app.command("recovery")
def bench_recovery(
    entities: Annotated[int, typer.Option(help="Entities remembered.", min=1_000)] = 2_000_000,
    as_json: AsJson = False,
) -> None:
    """From a profiles checkpoint and the rows stored since to a scorer that goes on.

    Example: `flagstream bench recovery`
    """
    from benchmarks.recovery import measure

    measure(entities, as_json=as_json)


@bench_app.command("growth")
def bench_growth(
    batches: Annotated[int, typer.Option(help="Batches of 20 payments.", min=10)] = 2_000,
    as_json: AsJson = False,
) -> None:
    """What lies on disk, and what a batch takes, over many batches.

    Example: `flagstream bench growth --batches 20000`
    """
    from benchmarks.growth import measure

    measure(batches, as_json=as_json)


@bench_app.command("history")
def bench_history(
    rows: Annotated[int, typer.Option(help="Transactions of the largest lake.", min=100_000)] = 2_000_000,
    as_json: AsJson = False,
) -> None:
    """What a start and a look-up cost in lakes of growing size.

    Example: `flagstream bench history --rows 50000000`
    """
    from benchmarks.history import measure

    measure(rows, as_json=as_json)


@bench_app.command("desk")
def bench_desk(
    alerts: Annotated[int, typer.Option(help="Alerts in the lake.", min=1_000)] = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """How long lists, alerts, cases, entities, pages and scores take over HTTP, and what pages weigh.

    Scores are measured beside an agent that runs. It takes some minutes and prints how far it is.

    Example: `flagstream bench desk --alerts 100000`
    """
    from benchmarks.desk import measure

    measure(alerts, as_json=as_json)


@bench_app.command("beside")
def bench_beside(
    alerts: Annotated[int, typer.Option(help="Alerts in the server's other lake.", min=1_000)] = 100_000,
    pairs: Annotated[int, typer.Option(help="How many times the two take turns.", min=1)] = 7,
    seconds: Annotated[float, typer.Option(help="Seconds that count, of each turn.", min=5)] = 25,
    as_json: AsJson = False,
) -> None:
    """Latency of a running agent's alerts with and without a server that answers 20 requests/s beside it.

    Requests are lists, pages of alerts, entities and scores; at the end scores alone, 20/s. Ends with exit
    code 1 where the p99 of the alerts is more than 10 % longer with the server, by the median of all pairs.

    Example: `flagstream bench beside --pairs 9`
    """
    from benchmarks.beside import measure

    if not measure(alerts, pairs, seconds, as_json=as_json):
        raise typer.Exit(1)


@bench_app.command("cases")
def bench_cases(
    alerts: Annotated[int, typer.Option(help="Alerts in the lake.", min=1_000)] = 1_000_000,
    entities: Annotated[
        int, typer.Option(help="Entities that they are about; a hundred thousand cases by default.", min=10)
    ] = 26_000,
    as_json: AsJson = False,
) -> None:
    """What it takes in CPU time to group alerts, to open a case book, to list cases and to act on one.

    Example: `flagstream bench cases --alerts 100000`
    """
    from benchmarks.cases import measure

    measure(alerts, entities, as_json=as_json)


@bench_app.command("start")
def bench_start(
    runs: Annotated[int, typer.Option(help="How many times a run is started, each in its home.", min=1)] = 5,
    as_json: AsJson = False,
) -> None:
    """From the start of the process to its first alert, everything cached; some twenty seconds a start.

    Example: `flagstream bench start --runs 3`
    """
    from benchmarks.start import measure

    measure(runs, as_json=as_json)
