"""Commands on content: specs and the schemas that follow from them, and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from streaming.cli.options import (
    DEFAULT_HOME,
    AsJson,
    DecimalSign,
    Delimiter,
    Encoding,
    Home,
    SpecName,
    agent_in,
    spec_named,
)

spec_app = typer.Typer(no_args_is_help=True, help="Check agent specs and print schemas.")
labels_app = typer.Typer(no_args_is_help=True, help="Record labels of transactions and count them.")


@spec_app.command("validate")
def spec_validate(
    file: Annotated[str, typer.Argument(help="A spec file, or the name of a shipped spec.")],
    as_json: AsJson = False,
) -> None:
    """Check a spec, its contract, rules, policy, prompt and endpoint.

    Example: `flagstream spec validate my-agent.yaml`
    """
    from streaming.commands.specs import validate

    validate(spec_named(file), file, as_json=as_json)


@spec_app.command("columns")
def spec_columns(
    spec: Annotated[str, typer.Argument(help="A spec file, or the name of a shipped spec.")],
    as_json: AsJson = False,
) -> None:
    """List what the rules of a spec can use: fields of the event, the score, and features.

    Example: `flagstream spec columns handbook`
    """
    from streaming.commands.specs import show_columns

    show_columns(spec_named(spec), as_json=as_json)


@spec_app.command("describe")
def spec_describe(
    spec: Annotated[str, typer.Argument(help="A spec file, or the name of a shipped spec.")],
    html: Annotated[Path | None, typer.Option(help="Write the page as HTML into this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show an agent on one page: data sources, permissions, prompts, models and guardrails.

    Examples: `flagstream spec describe my-agent.yaml`,
    `flagstream spec describe my-agent.yaml --html my-agent.html`
    """
    from streaming.commands.describe import describe_spec

    describe_spec(spec_named(spec), spec, html, as_json=as_json)


@spec_app.command("reference")
def spec_reference() -> None:
    """Print docs/reference.md: every key of spec, contract and policy, every command and option.

    Example: `flagstream spec reference > docs/reference.md`
    """
    from streaming.cli.root import program
    from streaming.commands.reference import show_reference

    show_reference(program())


@spec_app.command("metrics")
def spec_metrics() -> None:
    """Print the table of metrics that docs/observability.md ends with.

    Example: `flagstream spec metrics`
    """
    from streaming.commands.metrics import show_metrics

    show_metrics()


@spec_app.command("dashboard")
def spec_dashboard(
    name: Annotated[
        Literal["operation", "decisions"], typer.Argument(help="Which of the dashboards of docker/grafana.")
    ],
) -> None:
    """Print a dashboard, to be imported into Grafana.

    Example: `flagstream spec dashboard operation > docker/grafana/flagstream-operation.json`
    """
    from streaming.commands.metrics import show_dashboard

    show_dashboard(name)


@spec_app.command("event-schema")
def spec_event_schema(
    contract: Annotated[str, typer.Argument(help="Contract file, or the name of a shipped contract.")],
    ddl: Annotated[bool, typer.Option("--ddl", help="Print the decoded columns as Spark DDL.")] = False,
) -> None:
    """Print the JSON Schema of an event under a contract, for whoever sends them.

    Example: `flagstream spec event-schema handbook`
    """
    from streaming.commands.specs import show_event_schema

    show_event_schema(contract, ddl=ddl)


@spec_app.command("alert-schema")
def spec_alert_schema() -> None:
    """Print the JSON Schema of an alert on the topic.

    Example: `flagstream spec alert-schema > alert.schema.json`
    """
    from streaming.commands.specs import show_alert_schema

    show_alert_schema()


@spec_app.command("asyncapi")
def spec_asyncapi() -> None:
    """Print an AsyncAPI document of the alerts that leave, and of the labels that are taken.

    Example: `flagstream spec asyncapi > asyncapi.json`
    """
    from streaming.commands.asyncapi import show_asyncapi

    show_asyncapi()


@labels_app.command("import")
def labels_import(
    file: Annotated[
        Path,
        typer.Argument(
            help="A file or folder of CSV, JSON or Parquet, or a Delta table, also by its URI in a store."
        ),
    ],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    by: Annotated[str, typer.Option(help="Who decided, where no column says.")] = "unknown",
    id_column: Annotated[str, typer.Option(help="Column of the transaction id.")] = "transaction_id",
    fraud_column: Annotated[str, typer.Option(help="Column of the label: 0/1, yes/no …")] = "is_fraud",
    time_column: Annotated[
        str | None, typer.Option(help="Column of when it was decided; `decided_at` if there, else now.")
    ] = None,
    kind_column: Annotated[
        str | None, typer.Option(help="Column of the kind of fraud; `kind` or `fraud_type` if there.")
    ] = None,
    by_column: Annotated[
        str | None, typer.Option(help="Column of who decided; `decided_by` if there.")
    ] = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: DecimalSign = None,
    as_json: AsJson = False,
) -> None:
    """Record a file's labels of transactions, each once; works while the agent runs.

    A label may come before its transaction. Rows that hold no label are named on stderr; exit 1 when all
    are such.

    Examples: `flagstream labels import chargebacks.csv --by chargebacks`,
    `flagstream labels import tx.parquet --spec handbook --id-column TRANSACTION_ID --fraud-column TX_FRAUD`
    """
    from streaming.commands.labels import record_labels
    from streaming.files.dialect import TextOptions
    from streaming.labels.label_files import LabelColumns

    columns = LabelColumns(id_column, fraud_column, time_column, kind_column, by_column)
    options = TextOptions(encoding, delimiter, decimal)
    done = record_labels(agent_in(home, spec), file, columns, by, as_json=as_json, options=options)
    raise typer.Exit(0 if done else 1)


@labels_app.command("status")
def labels_status(spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Count labels, labelled transactions and frauds, by the labels that stand.

    Example: `flagstream labels status --spec handbook --json`
    """
    from streaming.commands.labels import show_label_status

    show_label_status(agent_in(home, spec), as_json=as_json)


@labels_app.command("schema")
def labels_schema() -> None:
    """Print the JSON Schema of a label on the topic, for whoever sends them.

    Example: `flagstream labels schema`
    """
    from streaming.commands.specs import show_label_schema

    show_label_schema()
