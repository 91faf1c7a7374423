"""`flagstream reconcile`: transactions, alerts in Delta and alerts on Kafka, compared."""

from __future__ import annotations

from dataclasses import asdict

from streaming.audit.access import record_read
from streaming.commands.broker import broker_of
from streaming.commands.known_agents import check_known
from streaming.definition.agent_definition import AgentDefinition
from streaming.history.reconcile import reconcile
from streaming.home.placed_agent import PlacedAgent
from streaming.output.facts import show_facts


def show_differences(agent: PlacedAgent, *, as_json: bool) -> bool:
    """Print the counts of all three and what differs; return whether nothing does.

    Raises:
        ConfigurationError: see check_known.
    """
    check_known(agent)
    contract = AgentDefinition.of(agent.spec).contract
    with broker_of(agent.settings) as bootstrap:
        found = reconcile(agent, bootstrap, contract.duplicates.horizon)
    record_read(agent, "reconcile", [agent.spec.tables.transactions, agent.spec.tables.alerts])
    show_facts({**asdict(found), "differences": found.differences}, as_json=as_json)
    return not found.differences
