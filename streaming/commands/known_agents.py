"""Whether a home or store has the agent that is asked about: one that is not there looks like an idle one."""

from __future__ import annotations

from agent.triage.untrusted_text import escaped
from schemas.errors import ConfigurationError, StoreError
from streaming.home.placed_agent import PlacedAgent
from streaming.service.health import is_running
from streaming.store.opening import folders_of

_MOST_NAMED = 10


def check_known(agent: PlacedAgent, *, among_others: bool = False) -> None:
    """Check that there is a lake of an agent, or that it is about to make one.

    Of a store that is away they who read its tables tell.

    Args:
        among_others: no lake at all is nothing to complain of, as the caller says what is missing.

    Raises:
        ConfigurationError: there is none, or only those of others.
    """
    lakes = agent.lake.parent
    try:
        there = folders_of(lakes).parts()
    except StoreError:
        return
    if agent.name in there or is_running(agent.settings.health(agent.name)):
        return
    kept = "store" if agent.settings.store else "home"
    if not there and among_others:
        return
    if not there:
        raise ConfigurationError(
            f"no agent has run in this {kept} yet: `flagstream run` starts one; --home or FLAGSTREAM_HOME "
            "names another home",
            where=escaped(str(lakes)),
        )
    more = ", …" if len(there) > _MOST_NAMED else ""
    named = escaped(", ".join(there[:_MOST_NAMED]) + more)
    raise ConfigurationError(f"no agent {agent.name} in this {kept}; there are: {named}", where="--spec")
