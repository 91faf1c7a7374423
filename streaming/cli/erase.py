"""The command that erases entities."""

from __future__ import annotations

from typing import Annotated

import typer

from streaming.cli.options import DEFAULT_HOME, AsJson, Home, SpecName, agent_in


def erase(
    entity: Annotated[list[str], typer.Option(help="Whom to erase: entity=id; may be given several times.")],
    why: Annotated[
        str, typer.Option(help="Why, in a line of plain words without the id; for the audit log.")
    ],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    dry_run: Annotated[bool, typer.Option(help="Only count what would be changed.")] = False,
    who: Annotated[str | None, typer.Option(help="Who asks; the user of this machine if absent.")] = None,
    as_json: AsJson = False,
) -> None:
    """Erase an entity: in all tables, snapshots and checkpoints a random token takes the place of its id.

    Its texts and raw records are removed; amounts and times stay, so that scores, counts and replays do. The
    agent must not run. An erasure that was interrupted is finished by the same command. The policy
    of the spec must allow it (`erasure: true`), since it cannot be undone.

    Example: `flagstream erase --entity customer=c42 --why "asked for it by letter" --spec my-agent.yaml`
    """
    from streaming.commands.erase import erase as carry_out
    from streaming.versions.moving import author_of

    agent = agent_in(home, spec)
    carry_out(agent, entity, author_of(who, why), dry_run=dry_run, as_json=as_json)
