"""Endpoints about entities: what is usual for one, its payments, and whom it has paid with, one hop away."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from streaming.serve.calls import Call, needs
from streaming.serve.entity_pages import EntityNeighbour, EntityPage, EntityPayment

entities_router = APIRouter(prefix="/v1", tags=["entities"])
Reading = Annotated[Call, needs("read")]
_KIND = "^[a-z][a-z0-9_]{0,62}$"
_OF_WHICH = "Kind of entity, such as customer."
Kind = Annotated[str, Path(pattern=_KIND, description=_OF_WHICH)]
NamedKind = Annotated[str, Query(alias="kind", pattern=_KIND, description=_OF_WHICH)]
MOST_ID = 4_000
EntityId = Annotated[
    str, Path(min_length=1, max_length=MOST_ID, description="Its id, percent-encoded; it may hold slashes.")
]
NamedId = Annotated[str, Query(alias="id", max_length=MOST_ID, description="Its id, whatever it is.")]
Payments = Annotated[int, Query(ge=1, le=1_000, description="Payments listed, the newest first.")]
Before = Annotated[
    int | None, Query(ge=0, le=2**63 - 1, description="`sequence` before which they were stored.")
]
Neighbours = Annotated[int, Query(ge=1, le=200, description="Entities of each kind.")]


@entities_router.get("/entity")
def show_named_entity(call: Reading, kind: NamedKind, entity_id: NamedId) -> EntityPage:
    """Show what is usual for an entity, whatever its id is: clients and proxies change some in a path."""
    return call.agent.entities.of(kind, entity_id).page()


@entities_router.get("/entity/history")
def list_payments_of_named(
    call: Reading, kind: NamedKind, entity_id: NamedId, limit: Payments = 100, before: Before = None
) -> list[EntityPayment]:
    """List the payments of an entity, whatever its id is, the newest first."""
    return call.agent.entities.of(kind, entity_id).history(limit, before)


@entities_router.get("/entity/neighbours")
def list_neighbours_of_named(
    call: Reading, kind: NamedKind, entity_id: NamedId, limit: Neighbours = 25
) -> list[EntityNeighbour]:
    """List whom an entity has payments in common with, whatever its id is."""
    return call.agent.entities.of(kind, entity_id).neighbours(limit)


@entities_router.get("/entities/{kind}/{entity_id:path}/history")
def list_payments(
    call: Reading, kind: Kind, entity_id: EntityId, limit: Payments = 100, before: Before = None
) -> list[EntityPayment]:
    """List an entity's payments by order of processing, the newest first."""
    return call.agent.entities.of(kind, entity_id).history(limit, before)


@entities_router.get("/entities/{kind}/{entity_id:path}/neighbours")
def list_neighbours(
    call: Reading, kind: Kind, entity_id: EntityId, limit: Neighbours = 25
) -> list[EntityNeighbour]:
    """List the entities that an entity has payments in common with, those with most first."""
    return call.agent.entities.of(kind, entity_id).neighbours(limit)


@entities_router.get("/entities/{kind}/{entity_id:path}")
def show_entity(call: Reading, kind: Kind, entity_id: EntityId) -> EntityPage:
    """Show what is usual for an entity, and its newest alerts; its id may hold slashes."""
    return call.agent.entities.of(kind, entity_id).page()
