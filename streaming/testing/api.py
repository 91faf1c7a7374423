"""A server of the HTTP API in this process, asked without a socket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fastapi import APIRouter
from starlette.testclient import TestClient

from schemas.spec import AgentSpec
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve.api import Reach, Server, build_server
from streaming.serve.routers import ROUTERS
from streaming.serve.served_agent import ServedAgent
from streaming.tokens.bearer import Scope, draw
from streaming.tokens.token_table import TokenTable

URL = "http://localhost"


class ApiClient(TestClient):
    """Asks a server in this process.

    Args:
        server: put together; it runs while the client is entered.
        settings: where tokens are made.
    """

    def __init__(self, server: Server, settings: Settings) -> None:
        super().__init__(server.asgi, base_url=URL, raise_server_exceptions=False)
        self.server, self._settings = server, settings

    def bearer(
        self, spec: AgentSpec, *scopes: Scope, name: str = "tester", per_minute: int = 100_000
    ) -> dict[str, str]:
        """Make a token that the server knows, and return the header that sends it."""
        drawn = draw()
        TokenTable(PlacedAgent(self._settings, spec)).add(drawn, name, scopes, per_minute, None, "tests")
        self.server.agents[spec.name].tokens.refresh()
        return {"Authorization": f"Bearer {drawn.text.get_secret_value()}"}


def server_of(
    settings: Settings, *specs: AgentSpec, routers: Sequence[APIRouter] = ROUTERS, reach: Reach | None = None
) -> Server:
    """Put a server together that is not started."""
    return build_server(
        [ServedAgent(PlacedAgent(settings, each)) for each in specs], reach or Reach(), routers
    )


@contextmanager
def api_of(
    settings: Settings, *specs: AgentSpec, routers: Sequence[APIRouter] = ROUTERS, reach: Reach | None = None
) -> Iterator[ApiClient]:
    """Run a server and yield what asks it."""
    with ApiClient(server_of(settings, *specs, routers=routers, reach=reach), settings) as client:
        yield client
