"""Puts the server together: what is asked (FastAPI), and the layers that every request passes before."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from schemas.errors import FlagstreamError
from streaming.serve.guard import MOST_BYTES, Guard, report
from streaming.serve.idempotency import Idempotency
from streaming.serve.identity import Authenticator, BearerTokens, Identity
from streaming.serve.known_tokens import KnownTokens
from streaming.serve.problems import Problem, answer_to, documented, unfit
from streaming.serve.rates import Rates
from streaming.serve.served_agent import ServedAgent
from streaming.serve.serving import serving_router, why_not_ready
from streaming.serve.watched import RequestWatch, Watched, nobody_watches

VERSION = "1"
ALWAYS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.MISDIRECTED_REQUEST,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_ABOUT = "Alerts, entities, labels, versions and figures of flagstream agents. See docs/api.md."
_SILENT: Any = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}


@dataclass(frozen=True)
class Reach:
    """By whom the server may be reached.

    Attributes:
        hosts: names under which it is asked, without a port.
        tls: whether by TLS alone.
        most_bytes: of a body.
    """

    hosts: Collection[str] = ("127.0.0.1", "localhost", "::1")
    tls: bool = False
    most_bytes: int = MOST_BYTES


@dataclass
class Server:
    """A server that is put together.

    Attributes:
        api: routes and their description.
        asgi: what answers requests: `api` behind its layers.
        agents: by their name.
    """

    api: FastAPI
    asgi: ASGIApp
    agents: Mapping[str, ServedAgent]

    def why_not_live(self) -> str | None:
        """Return None: whoever is answered has found it alive."""
        return None

    def why_not_ready(self) -> str | None:
        """Say what was not read yet, None where all was."""
        return why_not_ready(self.agents.values())

    def start(self) -> None:
        """Begin to keep up with the lakes."""
        for each in self.agents.values():
            each.start()

    def end_streams(self) -> None:
        """Have answers that go on for ever come to their end."""
        for each in self.agents.values():
            each.end_streams()

    def close(self) -> None:
        """End it; what goes on record is appended, for each agent whatever happens to another."""
        with ExitStack() as ending:
            for each in self.agents.values():
                ending.callback(each.close)


def build_server(
    agents: Sequence[ServedAgent],
    reach: Reach,
    routers: Sequence[APIRouter] = (),
    ways: Sequence[Authenticator] = (),
    seconds: Callable[[], float] = time.monotonic,
    watch: RequestWatch = nobody_watches,
) -> Server:
    """Put a server together.

    Args:
        agents: that it serves.
        reach: by whom it may be reached.
        routers: what is served beside the health of the server itself.
        ways: in which somebody is known beside bearer tokens.
        seconds: monotonic seconds, for rates and what is kept for a while.
        watch: hears of each request.
    """
    api = _described(agents)
    for each in (serving_router, *routers):
        api.include_router(each)
    bearers = BearerTokens(KnownTokens([each.tokens for each in agents]))
    known = Identity(Idempotency(api, seconds), [bearers, *ways], Rates(seconds))
    guard = Guard(known, reach.hosts, tls=reach.tls, most_bytes=reach.most_bytes)
    server = Server(api, Watched(guard, watch), api.state.agents)
    api.state.server = server
    return server


def _described(agents: Sequence[ServedAgent]) -> FastAPI:
    api = FastAPI(
        title="flagstream", version=VERSION, description=_ABOUT, docs_url=None, redoc_url=None,
        responses=documented(*ALWAYS), lifespan=_lifespan, telemetry=_SILENT,
        redirect_slashes=False,  # behind a proxy that ends TLS it would lead to plain HTTP, token and all
    )  # fmt: skip
    api.openapi = lambda: _with_problems(api)  # type: ignore[method-assign]  # the way its manual says
    api.state.agents = {each.name: each for each in agents}
    for kind in (FlagstreamError, HTTPException):
        api.add_exception_handler(kind, _refuse)
    api.add_exception_handler(RequestValidationError, _refuse_shape)
    api.add_exception_handler(Exception, _fail)
    return api


def _with_problems(api: FastAPI) -> dict[str, Any]:
    if api.openapi_schema is None:
        described = get_openapi(
            title=api.title, version=api.version, description=api.description, routes=api.routes,
            openapi_version=api.openapi_version, tags=api.openapi_tags,
        )  # fmt: skip
        schemas = described.setdefault("components", {}).setdefault("schemas", {})
        schemas[Problem.__name__] = Problem.model_json_schema()
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        api.openapi_schema = described
    return api.openapi_schema


@asynccontextmanager
async def _lifespan(api: FastAPI) -> AsyncIterator[None]:
    server: Server = api.state.server
    await run_in_threadpool(server.start)
    try:
        yield
    finally:
        await run_in_threadpool(server.close)


async def _refuse(request: Request, fault: Exception) -> Response:
    answer = answer_to(fault)
    if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        report(fault, request.state.request_id, request.url.path)
    return answer.response(request.state.request_id)


async def _fail(request: Request, fault: Exception) -> Response:
    """What nobody caught is logged by the outermost layer."""
    return answer_to(fault).response(request.state.request_id)


async def _refuse_shape(request: Request, fault: Exception) -> Response:
    """What was sent is not quoted: it may be a secret, or an outsider's."""
    assert isinstance(fault, RequestValidationError)
    said = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in fault.errors()]
    return unfit(said).response(request.state.request_id)
