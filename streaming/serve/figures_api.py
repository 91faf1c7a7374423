"""Endpoints about an agent as a whole: how it is, and what it costs."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from streaming.history.cost import booked
from streaming.run.status import read_status
from streaming.serve.calls import Call, needs
from streaming.serve.served_system import SystemFigures

figures_router = APIRouter(prefix="/v1", tags=["figures"])
Reading = Annotated[Call, needs("read")]
CostBy = Literal["batch", "day", "model", "prompt"]
_NEWEST_ROWS = 1_000


class CostTable(BaseModel):
    """What an agent has cost."""

    rows: list[dict[str, Any]] = Field(description="in order of time, the newest at most")
    total: dict[str, Any] = Field(description="over all batches")
    unpriced: list[str] = Field(description="models without a price, counted as free")


@figures_router.get("/status")
def show_status(call: Reading) -> dict[str, Any]:
    """Show an agent's totals, its newest batch, and the conditions it stands under; no broker is asked."""
    agent = call.agent.placed
    found = read_status(agent, None).with_health(agent.settings.health(agent.name), agent.lake)
    plain: dict[str, Any] = json.loads(found.to_json())
    return plain


@figures_router.get("/system")
def show_system(call: Reading) -> SystemFigures:
    """Show how an agent is: conditions, lag by partition, latency, seconds by step, budget, drift, sizes.

    A broker is asked where the settings name one; while the lake is away, what is known without it is shown.
    """
    return call.agent.system.figures()


@figures_router.get("/cost")
def show_cost(
    call: Reading, by: Annotated[CostBy, Query(description="What a row is about.")] = "day"
) -> CostTable:
    """Show what an agent has cost: tokens, money for models, and the machine's time."""
    found = booked(call.agent.placed, by, None)
    return CostTable(**{**found, "rows": _plain(found["rows"][-_NEWEST_ROWS:])})


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(json.dumps(rows, default=str))
    return found
