"""What the records of a spec's stream mean: its contract, with what the spec adds to it."""

from __future__ import annotations

from schemas.contract import EventContract, load_contract
from schemas.loading import parse_document
from schemas.spec import AgentSpec


def contract_of(spec: AgentSpec, name: str | None = None) -> EventContract:
    """Read the contract of a spec's stream; with exchange rates, amounts are converted as well.

    Args:
        name: another contract than the spec's, a shipped one or a file.

    Raises:
        ConfigurationError: it cannot be used.
    """
    contract, rates = load_contract(name or spec.data_sources.transactions.contract), spec.data_sources.rates
    if rates is None:
        return contract
    content = {**contract.model_dump(mode="json"), "reference_currency": rates.to}
    return parse_document(content, EventContract, where=f"contract {contract.name}")
