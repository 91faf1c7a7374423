"""Endpoints about entities: what is usual for one, its payments, and whom it has paid with, one hop away."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from streaming.serve.calls import Call, needs
from streaming.serve.entity_pages import EntityNeighbour, EntityPage, EntityPayment

entities_router = APIRouter(prefix="/v1/entities", tags=["entities"])
Reading = Annotated[Call, needs("read")]
Kind = Annotated[str, Path(pattern="^[a-z][a-z0-9_]{0,62}$", description="Kind of entity, such as customer.")]
EntityId = Annotated[str, Path(min_length=1, max_length=500, description="Its id.")]


@entities_router.get("/{kind}/{entity_id}")
def show_entity(call: Reading, kind: Kind, entity_id: EntityId) -> EntityPage:
    """Show what is usual for an entity, and its newest alerts."""
    return call.agent.entities.page(call.agent.reader(), kind, entity_id)


@entities_router.get("/{kind}/{entity_id}/history")
def list_payments(
    call: Reading,
    kind: Kind,
    entity_id: EntityId,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Payments listed, the newest first.")] = 100,
    before: Annotated[
        int | None, Query(ge=0, le=2**63 - 1, description="`sequence` before which they were stored.")
    ] = None,
) -> list[EntityPayment]:
    """List an entity's payments by order of processing, the newest first."""
    return call.agent.entities.history(call.agent.reader(), kind, entity_id, limit, before)


@entities_router.get("/{kind}/{entity_id}/neighbours")
def list_neighbours(
    call: Reading,
    kind: Kind,
    entity_id: EntityId,
    limit: Annotated[int, Query(ge=1, le=200, description="Entities of each kind.")] = 25,
) -> list[EntityNeighbour]:
    """List the entities that an entity has payments in common with, those with most first."""
    return call.agent.entities.neighbours(kind, entity_id, limit)
