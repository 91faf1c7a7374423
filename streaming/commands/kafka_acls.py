"""`flagstream kafka acls`: the rights that an agent needs, as commands that grant them."""

from __future__ import annotations

from dataclasses import asdict

from schemas.errors import ConfigurationError
from streaming.home.placed_agent import PlacedAgent
from streaming.kafka.grants import grants_of
from streaming.output.terminal import print_json, say_line

_NO_ADDRESS = "localhost:9092"


def show_grants(agent: PlacedAgent, principal: str, *, as_json: bool) -> None:
    """Print one command per grant; no broker is asked.

    Raises:
        ConfigurationError: the principal is none.
    """
    kind, colon, name = principal.partition(":")
    if not (kind and colon and name):
        raise ConfigurationError("expected a type and a name, such as User:payments", where="--principal")
    bootstrap = agent.settings.kafka if ":" in agent.settings.kafka else _NO_ADDRESS
    grants = grants_of(agent.spec)
    if as_json:
        print_json([{**asdict(each), "command": each.command(principal, bootstrap)} for each in grants])
        return
    for each in grants:
        say_line(f"# {each.use}")
        say_line(each.command(principal, bootstrap))
