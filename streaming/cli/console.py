"""The command that opens the console."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from schemas.errors import ConfigurationError
from streaming.cli.options import AsJson


def console(
    address: Annotated[
        str, typer.Option(help="Where `flagstream serve` is reached.")
    ] = "http://127.0.0.1:8714",
    token: Annotated[
        str,
        typer.Option(
            envvar="FLAGSTREAM_TOKEN", show_envvar=False,
            help="Better given as FLAGSTREAM_TOKEN, or entered when it is asked for: others see options.",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Print the address at which a browser signs in to the console, good once within a minute.

    Who signs in may do what their token may; see docs/console.md.

    Example: `flagstream console --address https://desk.bank:8714`
    """
    from streaming.commands.console import show_sign_in_address

    show_sign_in_address(address, token or _asked_for(), as_json=as_json)


def _asked_for() -> str:
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "there is no terminal to enter a token on: give it as FLAGSTREAM_TOKEN; `flagstream token "
            "create` makes one, and `flagstream serve --console` needs none",
            where="console",
        )
    return str(typer.prompt("Your token", hide_input=True))
