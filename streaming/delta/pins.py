"""What a batch pinned, engine by engine: the version in force and, where there was one, a canary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.contract import EventContract
from schemas.loading import parse_document
from schemas.spec import AgentSpec

CANARY = "canary"
FINGERPRINT = "fingerprint"  # of the machine that stored the batch, see streaming.arrays.fingerprint
_PINNED = "what the batch has pinned"


def pins_by_engine(pins: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a batch's pins for each engine that decided it, the version in force first."""
    return [pins, pins[CANARY]] if CANARY in pins else [pins]


def pinned_specs(pins: Mapping[str, Any]) -> list[AgentSpec]:
    """Return the specs that decided a batch, that of the version in force first."""
    return [pinned_spec(each) for each in pins_by_engine(pins)]


def pinned_spec(pins: Mapping[str, Any]) -> AgentSpec:
    """Return the spec of one engine's pins.

    Raises:
        ConfigurationError: it is none, or one of a later version of the code.
    """
    return parse_document(pins.get("spec"), AgentSpec, where=_PINNED)


def pinned_contract(pins: Mapping[str, Any]) -> EventContract | None:
    """Return the contract that a batch was decided under, None in lakes that keep its digest alone."""
    return parse_document(pins["contract"], EventContract, where=_PINNED) if "contract" in pins else None


def under_contract(pins: Mapping[str, Any], contract: EventContract) -> dict[str, Any]:
    """Return pins as they are where a batch is decoded under another contract, which has the same columns."""
    read_by = {"contract": contract.model_dump(mode="json"), "contract_digest": contract.digest}
    canary = {CANARY: {**pins[CANARY], **read_by}} if CANARY in pins else {}
    return {**pins, **read_by, **canary}
