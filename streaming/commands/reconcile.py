"""`flagstream reconcile`: transactions, alerts in Delta and alerts on Kafka, compared."""

from __future__ import annotations

from dataclasses import asdict

from schemas.spec import AgentSpec
from streaming.audit.access import tell_read
from streaming.commands.broker import broker_of
from streaming.commands.known_agents import check_known
from streaming.definition.agent_definition import AgentDefinition
from streaming.history.reconcile import reconcile
from streaming.home.settings import Settings
from streaming.output.facts import show_facts


def show_differences(settings: Settings, spec: AgentSpec, *, as_json: bool) -> bool:
    """Print the counts of all three and what differs; return whether nothing does.

    Raises:
        ConfigurationError: see check_known.
    """
    check_known(settings, spec)
    contract = AgentDefinition.of(spec).contract
    with broker_of(settings) as bootstrap:
        found = reconcile(settings.lake(spec.name), spec, bootstrap, contract.duplicates.horizon)
    tell_read(settings, spec, "reconcile", [spec.tables.transactions, spec.tables.alerts])
    show_facts({**asdict(found), "differences": found.differences}, as_json=as_json)
    return not found.differences
