"""The brokers that a command asks for an agent: of the environment or, where it names none, of the spec."""

from __future__ import annotations

from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings


def reached_as(agent: PlacedAgent) -> Settings:
    """Return the settings with the brokers that a spec names, see streaming.home.spec_connection.

    Raises:
        ConfigurationError: its client.properties cannot be used, or the policy does not allow it.
    """
    if agent.spec.kafka is None:
        return agent.settings
    from agent.triage.triage import POLICIES  # noqa: PLC0415 -- imports much that most commands do without
    from streaming.home.spec_connection import settings_for  # noqa: PLC0415 -- as above

    return settings_for(agent, POLICIES)
