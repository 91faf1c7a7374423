"""Commands on contracts: drafted from a sample, and tried on one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streaming.cli.options import (
    DEFAULT_HOME,
    AsJson,
    DecimalSign,
    Delimiter,
    Encoding,
    Home,
    settings_in,
)

contract_app = typer.Typer(no_args_is_help=True, help="Draft contracts from samples, and try them.")

Sample = Annotated[
    Path | None,
    typer.Argument(help="A file or folder of events, or a Delta table, also by its URI in a store."),
]
File = Annotated[Path | None, typer.Option("--file", help="The same by an option.")]
Topic = Annotated[str | None, typer.Option("--topic", help="A topic of events.")]
Records = Annotated[
    int,
    typer.Option(
        "--records", help="Records of the sample: the first of a file, the newest of a topic.", min=1
    ),
]


@contract_app.command("infer")
def contract_infer(
    sample: Sample = None,
    file: File = None,
    topic: Topic = None,
    to: Annotated[Path | None, typer.Option("--to", help="Write the contract to a new file.")] = None,
    records: Records = 1_000,
    home: Home = DEFAULT_HOME,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: DecimalSign = None,
    as_json: AsJson = False,
) -> None:
    """Draft a contract from a sample: each guess with its reason and the share of records that it fits.

    Read it once, above all entities, currency and time zone, then try it with `flagstream contract check`.

    Examples: `flagstream contract infer payments.csv --to payments.yaml`,
    `flagstream contract infer --topic payments --json`
    """
    from streaming.commands.contract import SampleWanted, infer, one_file
    from streaming.files.dialect import TextOptions

    wanted = SampleWanted(one_file(sample, file), topic, records, TextOptions(encoding, delimiter, decimal))
    infer(settings_in(home), wanted, to, as_json=as_json)


@contract_app.command("check")
def contract_check(
    contract: Annotated[str, typer.Argument(help="Contract file, or the name of a shipped contract.")],
    sample: Sample = None,
    file: File = None,
    topic: Topic = None,
    records: Records = 1_000,
    max_rejected: Annotated[
        float, typer.Option(help="Share of the records that may be rejected.", min=0, max=1)
    ] = 0.0,
    home: Home = DEFAULT_HOME,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: DecimalSign = None,
    as_json: AsJson = False,
) -> None:
    """Try a contract on a sample and show what each reason rejects, with examples; nothing is stored.

    Exit 1 where more is rejected than --max-rejected allows.

    Examples: `flagstream contract check payments.yaml payments.csv`,
    `flagstream contract check handbook --topic handbook --records 10000 --max-rejected 0.01`
    """
    from streaming.commands.contract import SampleWanted, check, contract_for, one_file
    from streaming.files.dialect import TextOptions

    wanted = SampleWanted(one_file(sample, file), topic, records, TextOptions(encoding, delimiter, decimal))
    meant = contract_for(contract, wanted.file)
    passed = check(settings_in(home), meant, wanted, max_rejected, as_json=as_json)
    raise typer.Exit(0 if passed else 1)
