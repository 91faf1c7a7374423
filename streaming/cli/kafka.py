"""Commands on Kafka: the embedded broker, and events to send."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schemas.contract import load_contract
from streaming.cli.options import (
    DEFAULT_HOME,
    AsJson,
    DecimalSign,
    Delimiter,
    Encoding,
    Home,
    SpecName,
    agent_in,
    settings_in,
)

broker_app = typer.Typer(no_args_is_help=True, help="Start, stop and inspect the embedded Kafka broker.")
kafka_app = typer.Typer(no_args_is_help=True, help="What an agent needs of a Kafka that is not ours.")


def simulate(
    home: Home = DEFAULT_HOME,
    to: Annotated[Path | None, typer.Option(help="Write a .parquet or .csv file instead of Kafka.")] = None,
    topic: Annotated[str, typer.Option(help="Topic to send to.")] = "transactions",
    rate: Annotated[float, typer.Option(help="Transactions per second.", min=0.1)] = 200,
    seconds: Annotated[float, typer.Option(help="Seconds for which they are sent.", min=0.1)] = 60,
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
    from streaming.commands.feeds import Simulation
    from streaming.commands.feeds import simulate as run

    run(settings_in(home), Simulation(rate, seconds, seed, days), topic, to, as_json=as_json)


def produce(
    file: Annotated[
        Path,
        typer.Argument(
            help="A file or folder of CSV, JSON or Parquet, or a Delta table, also by its URI in a store."
        ),
    ],
    contract: Annotated[str, typer.Option(help="Contract file, or the name of a shipped contract.")],
    home: Home = DEFAULT_HOME,
    topic: Annotated[str | None, typer.Option(help="Topic; the contract's name unless given.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Events per second; as fast as it goes if absent.")
    ] = None,
    partitions: Annotated[int, typer.Option(help="Partitions, when the topic is created.", min=1)] = 4,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: DecimalSign = None,
    as_json: AsJson = False,
) -> None:
    """Send a file's rows to Kafka as JSON events under a contract.

    Reads CSV and TSV of any delimiter, JSON and Parquet, also in gzip or zstd, folders of such files, and
    Delta tables.

    Example: `flagstream produce payments.parquet --contract handbook --rate 1000`
    """
    from streaming.commands.feeds import produce as run
    from streaming.files.dialect import TextOptions

    run(
        settings_in(home), file, load_contract(contract),
        topic=topic, rate=rate, partitions=partitions, as_json=as_json,
        options=TextOptions(encoding, delimiter, decimal),
    )  # fmt: skip


@broker_app.command("start")
def broker_start(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Start the embedded broker and leave it running.

    Example: `flagstream broker start`
    """
    from streaming.commands.broker import start_broker

    start_broker(settings_in(home), as_json=as_json)


@broker_app.command("stop")
def broker_stop(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Stop the embedded broker; its data stays.

    Example: `flagstream broker stop`
    """
    from streaming.commands.broker import stop_broker

    stop_broker(settings_in(home), as_json=as_json)


@broker_app.command("status")
def broker_status(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Say whether the embedded broker runs, and where; exit 1 when it does not.

    Example: `flagstream broker status --json`
    """
    from streaming.commands.broker import show_broker

    raise typer.Exit(0 if show_broker(settings_in(home), as_json=as_json) else 1)


@kafka_app.command("acls")
def kafka_acls(
    spec: SpecName,
    principal: Annotated[
        str, typer.Option(help="Whom to grant it to: User:NAME, or User:CN=… of a certificate.")
    ],
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Print the rights an agent needs as `kafka-acls` commands; no broker is asked.

    They are for whoever administrates the cluster, who may have to add `--command-config FILE`.

    Example: `flagstream kafka acls --spec handbook --principal User:payments`
    """
    from streaming.commands.kafka_acls import show_grants

    show_grants(agent_in(home, spec), principal, as_json=as_json)
