"""Refuses to begin an agent anew in a store while the home holds the lake that it has had so far."""

from __future__ import annotations

from schemas.errors import ConfigurationError
from streaming.batch.backfill_mark import newest_decision
from streaming.delta.lake_reader import AgentLake, LakeReader
from streaming.delta.log_files import LOG
from streaming.home.placed_agent import PlacedAgent
from streaming.store.place import Place


def check_none_left(agent: PlacedAgent) -> None:
    """Check that no lake is left behind where an agent was given another place for it.

    Raises:
        ConfigurationError: the home holds one, and there is none at the new place.
    """
    left = agent.settings.lake_at_home(agent.name)
    former = AgentLake(Place.local(left), agent.spec)
    transactions = LakeReader.of(former).place("transactions")
    is_there = (transactions.path / LOG).is_dir()
    if not is_there or agent.lake.uri == str(left) or newest_decision(agent) is not None:
        return
    if newest_decision(former) is None and not LakeReader.of(former).count("labels"):
        return  # an agent was started there, and nothing has come
    raise ConfigurationError(
        f"it holds no lake of this agent yet, and the home does, {left}, which nobody has moved: copy it as "
        "docs/stores.md says, or move it aside to begin anew",
        where=str(agent.lake),
    )
