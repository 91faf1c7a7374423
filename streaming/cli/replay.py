"""The commands that go over stored transactions again: exactly, under another spec, to send alerts again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from schemas.errors import ConfigurationError
from streaming.cli.options import DEFAULT_HOME, AsJson, Home, SpecName, agent_in, spec_named
from streaming.cli.spans import FromTime, FromVersion, OfAlert, OfSnapshot, ToTime, ToVersion

_WHAT_IF = "what another spec would have decided is asked with `flagstream what-if CANDIDATE`"
_RESEND = "alerts are sent again with `flagstream resend TOPIC`"
_MOVED = {
    "--to-topic": _RESEND,
    **dict.fromkeys(("--candidate", "--warm-up", "--llm", "--max-usd", "--max-tokens", "--report"), _WHAT_IF),
}


class ReplayCommand(TyperCommand):
    """Says where options have gone that `replay` had once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See TyperCommand.

        Raises:
            ConfigurationError: one of the options of once was given.
        """
        for name in (each.partition("=")[0] for each in args):
            if name in _MOVED:
                raise ConfigurationError(_MOVED[name], where=name)
        return super().parse_args(ctx, args)


def replay(
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    alert: OfAlert = None,
    from_version: FromVersion = None,
    to_version: ToVersion = None,
    from_time: FromTime = None,
    to_time: ToTime = None,
    snapshot: OfSnapshot = None,
    as_json: AsJson = False,
) -> None:
    """Decide stored transactions anew, from the versions pinned then, and compare with what was published.

    Without a span all of history is replayed. Exit 1 when a difference is found; exit 6 when nothing differs
    but last bits of what another class of processors has computed, within the tolerance that is reported.

    Examples: `flagstream replay --spec handbook`,
    `flagstream replay --spec handbook --alert 3f2a9c`,
    `flagstream replay --spec handbook --snapshot before-easter`
    """
    from streaming.commands.replay import replay_exactly
    from streaming.history.replay_runs import ReplaySpan

    wanted = ReplaySpan(alert, from_version, to_version, from_time, to_time, snapshot)
    raise typer.Exit(replay_exactly(agent_in(home, spec), wanted, as_json=as_json))


def what_if(
    candidate: Annotated[str, typer.Argument(help="The other spec: a file, or the name of a shipped one.")],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    alert: OfAlert = None,
    from_version: FromVersion = None,
    to_version: ToVersion = None,
    from_time: FromTime = None,
    to_time: ToTime = None,
    snapshot: OfSnapshot = None,
    warm_up: Annotated[
        str | None,
        typer.Option(
            help="Event time before the span, such as 7d, that the candidate's profiles are to know where no "
            "checkpoint fits them; all of history unless given."
        ),
    ] = None,
    llm: Annotated[
        str,
        typer.Option(
            help="recorded asks nobody, and answers on record count where the candidate's model and prompt "
            "gave them; auto asks the candidate's endpoint, else the local model; local."
        ),
    ] = "recorded",
    max_usd: Annotated[
        float | None,
        typer.Option(
            min=0, help="USD that all new calls may cost, by the candidate's prices; no cap if absent."
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=0, help="Tokens that all new calls may take, input and output together; no cap if absent."
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="HTML file for the report.")] = None,
    as_json: AsJson = False,
) -> None:
    """Decide stored transactions under another spec, and say which alerts would have been others.

    Nothing is published. Without a span all of history is decided. The report is evidence for `promote`.

    Examples: `flagstream what-if stricter.yaml --spec handbook --from-time 2018-04-07 --report page.html`,
    `flagstream what-if other-prompt.yaml --spec handbook --llm auto --max-usd 0.50`
    """
    from streaming.commands.what_if import WhatIfOptions, ask_what_if
    from streaming.history.asking import Asking
    from streaming.history.replay_runs import ReplaySpan, warm_up_of

    wanted = ReplaySpan(alert, from_version, to_version, from_time, to_time, snapshot)
    options = WhatIfOptions(wanted, warm_up_of(warm_up), Asking(llm, max_usd, max_tokens), report)
    ask_what_if(agent_in(home, spec), spec_named(candidate), options, as_json=as_json)


def resend(
    topic: Annotated[str, typer.Argument(help="Where to; made if absent, none of the agent's own.")],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    alert: OfAlert = None,
    from_version: FromVersion = None,
    to_version: ToVersion = None,
    from_time: FromTime = None,
    to_time: ToTime = None,
    snapshot: OfSnapshot = None,
    as_json: AsJson = False,
) -> None:
    """Send published alerts to another topic once more, for a consumer that lost its state.

    The same bytes with a `replay` header, each once however often the command runs. Without a span all of
    them are sent.

    Example: `flagstream resend alerts-again --spec handbook --from-time 2018-04-07`
    """
    from streaming.commands.resend import send_alerts_again
    from streaming.history.replay_runs import ReplaySpan

    wanted = ReplaySpan(alert, from_version, to_version, from_time, to_time, snapshot)
    send_alerts_again(agent_in(home, spec), wanted, topic, as_json=as_json)
