"""Commands on the tokens of the HTTP API."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from schemas.errors import ConfigurationError
from schemas.loading import parse_duration
from streaming.cli.options import DEFAULT_HOME, AsJson, Home, SpecNames, agents_in

token_app = typer.Typer(no_args_is_help=True, help="Make and end the tokens of the HTTP API.")
TokenId = Annotated[str, typer.Argument(help="A token's id, as `list` shows it.")]
FOREVER = "never"


@token_app.command("create")
def token_create(
    name: Annotated[str, typer.Option(help="Whose it is, such as night-shift; the audit log names it.")],
    scope: Annotated[
        list[str],
        typer.Option(help="What it may do: read, triage, operate or admin; repeatable."),
    ],
    spec: SpecNames = None,
    home: Home = DEFAULT_HOME,
    life: Annotated[str, typer.Option(help="How long it is good, such as 12h or 90d, or never.")] = "90d",
    per_minute: Annotated[
        int, typer.Option(help="Requests that it may make in a minute: so many times.", min=1, max=1_000_000)
    ] = 600,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, this once; the lake of each agent it may see keeps its SHA-256.

    `triage`, `operate` and `admin` may read as well; `admin` may do everything.

    Examples: `flagstream token create --spec handbook --name night-shift --scope triage`,
    `flagstream token create --spec handbook --spec card-fraud --name dashboards --scope read --life never`
    """
    from streaming.commands.token import TokenOrder, create_token

    good_for = None if life == FOREVER else _duration(life, "--life")
    order = TokenOrder.of(name, scope, good_for, per_minute)
    create_token(agents_in(home, spec), order, as_json=as_json)


@token_app.command("list")
def token_list(spec: SpecNames = None, home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """List tokens, with what each may do and when it ends; their texts are kept nowhere.

    Example: `flagstream token list --spec handbook`
    """
    from streaming.commands.token import list_tokens

    list_tokens(agents_in(home, spec), as_json=as_json)


@token_app.command("rotate")
def token_rotate(
    token: TokenId,
    spec: SpecNames = None,
    home: Home = DEFAULT_HOME,
    overlap: Annotated[
        str, typer.Option(help="How long the old one stays good beside the new one, such as 1h.")
    ] = "1d",
    as_json: AsJson = False,
) -> None:
    """Make a token in the place of one, with the same name, scopes and length of life; print it this once.

    Example: `flagstream token rotate 3f9a01c2d4e5 --spec handbook --overlap 1h`
    """
    from streaming.commands.token import rotate_token

    rotate_token(agents_in(home, spec), token, _duration(overlap, "--overlap"), as_json=as_json)


@token_app.command("revoke")
def token_revoke(
    token: TokenId, spec: SpecNames = None, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """End a token; a running server refuses it within seconds.

    Example: `flagstream token revoke 3f9a01c2d4e5 --spec handbook`
    """
    from streaming.commands.token import revoke_token

    revoke_token(agents_in(home, spec), token, as_json=as_json)


def _duration(text: str, option: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as fault:
        raise ConfigurationError(str(fault), where=option) from None
