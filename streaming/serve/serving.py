"""Endpoints about the server itself: whether it lives, whether it is ready, and what a token may do.

The first two are answered in the event loop, by memory alone: also while every thread is busy.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from streaming.serve.calls import caller
from streaming.serve.served_agent import ServedAgent
from streaming.tokens.principal import Principal

serving_router = APIRouter(tags=["server"])


class TokenAccess(BaseModel):
    """What whoever asks may do."""

    name: str = Field(description="as the audit log names them")
    agents: dict[str, list[str]] = Field(description="agent → scopes")
    per_minute: int = Field(description="requests that may be made in a minute")


def why_not_ready(agents: Iterable[ServedAgent]) -> str | None:
    """Say of which agents what is served was not read yet, None where all was."""
    missing = [each.name for each in agents if not each.is_ready]
    return f"not read yet: {', '.join(missing)}" if missing else None


@serving_router.get("/livez", response_class=PlainTextResponse)
async def live() -> str:
    """Say that the server answers."""
    return "ok\n"


@serving_router.get("/readyz", response_class=PlainTextResponse)
async def ready(request: Request) -> PlainTextResponse:
    """Say whether the server has read what it serves, and which conditions it stands under.

    Pages and endpoints answer while alerts and payments are being copied.
    """
    server = request.app.state.server
    missing = why_not_ready(server.agents.values())
    if missing is not None:
        return PlainTextResponse(f"{missing}\n", HTTPStatus.SERVICE_UNAVAILABLE)
    held = [state.condition for each in server.agents.values() for state in each.health.active]
    copied = [(each.name, each.copies.progress) for each in server.agents.values()]
    lines = [*held, *(f"copying {name}: {progress}" for name, progress in copied if progress)]
    return PlainTextResponse("".join(f"{each}\n" for each in lines) or "ok\n")


@serving_router.get("/v1/me")
def access(principal: Annotated[Principal, Depends(caller)]) -> TokenAccess:
    """Say what whoever asks may do."""
    agents = {name: sorted(scopes) for name, scopes in principal.scopes.items()}
    return TokenAccess(name=principal.name, agents=agents, per_minute=principal.per_minute)
