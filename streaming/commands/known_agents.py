"""Whether a home or store has the agent that is asked about: one that is not there looks like an idle one."""

from __future__ import annotations

from agent.triage.untrusted_text import escaped
from schemas.errors import ConfigurationError, StoreError
from streaming.home.placed_agent import PlacedAgent
from streaming.store.opening import folders_of

_MOST_NAMED = 10


def check_known(agent: PlacedAgent) -> None:
    """Check that there is a lake of an agent, where there are lakes of others.

    Where there are none at all, nothing has run yet, and nobody is mistaken. Of a store that is away they who
    read its tables tell.

    Raises:
        ConfigurationError: there are only those of others.
    """
    lakes = agent.lake.parent
    try:
        there = folders_of(lakes).parts()
    except StoreError:
        return
    if there and agent.name not in there:
        more = ", …" if len(there) > _MOST_NAMED else ""
        named = escaped(", ".join(there[:_MOST_NAMED]) + more)
        kept = "store" if agent.settings.store else "home"
        raise ConfigurationError(f"no agent {agent.name} in this {kept}; there are: {named}", where="--spec")
