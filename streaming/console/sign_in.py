"""Signing in and out, and the files that pages are made of."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from schemas.errors import NotFoundError
from streaming.console.rendering import FOLDER, STATIC, PageRoute, page
from streaming.console.sessions import SIGN_IN
from streaming.console.sign_in_codes import CODE_SECONDS, Holder
from streaming.serve.calls import caller
from streaming.serve.problems import RequestRefusedError
from streaming.tokens.bearer import digest_of
from streaming.tokens.principal import Principal

codes_router = APIRouter(prefix="/v1/console", tags=["server"])
sign_in_router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)
missing_router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)
Known = Annotated[Principal, Depends(caller)]
_MOST_CODE, _MOST_FORM = 200, 1_000


class ConsoleCode(BaseModel):
    """A code with which a browser signs in, once."""

    code: str
    seconds: int = Field(description="how long it is good")


@codes_router.post("/codes")
def draw_code(request: Request, principal: Known) -> ConsoleCode:
    """Draw a code for the console's sign-in page, whose session has the token's name and scopes."""
    _, _, sent = request.headers.get("authorization", "").partition(" ")
    if not sent:  # a session that could make another would never end
        raise RequestRefusedError(HTTPStatus.FORBIDDEN, "a code takes a bearer token, and no session")
    holder = Holder(principal.key, digest_of(sent.strip()))
    return ConsoleCode(code=request.app.state.console.codes.draw(holder), seconds=int(CODE_SECONDS))


@sign_in_router.get("/sign-in", response_class=HTMLResponse)
def show_sign_in(request: Request, code: Annotated[str, Query(max_length=_MOST_CODE)] = "") -> HTMLResponse:
    """Ask for the code; nothing is used up by that."""
    return page(request, "sign_in.html", code=code, said="")


@sign_in_router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """Exchange a code for a session."""
    _check_origin(request)
    console = request.app.state.console
    form = (await request.body())[:_MOST_FORM].decode("utf-8", "replace")
    sent = parse_qs(form).get("code", [""])[0]
    holder = console.codes.take(sent)
    principal = None if holder is None else console.sessions.principal(holder)
    if holder is None or principal is None:
        said = "This code is used, older than a minute, or none: `flagstream console` prints another."
        return page(request, "sign_in.html", HTTPStatus.UNAUTHORIZED, code="", said=said)
    answer = RedirectResponse("/console", HTTPStatus.SEE_OTHER)
    console.sessions.begin(holder, request, answer)
    for name in principal.agents:
        request.app.state.agents[name].trail.wrote(principal.name, "console/sign-in", 1)
    return answer


@sign_in_router.post("/sign-out")
def sign_out(request: Request, _: Known) -> Response:
    """End the session."""
    answer = Response(status_code=HTTPStatus.NO_CONTENT)
    request.app.state.console.sessions.end(request, answer)
    return answer


@sign_in_router.get("", response_class=HTMLResponse)
@sign_in_router.get("/", response_class=HTMLResponse)
def show_agents(request: Request, principal: Known) -> Response:
    """Go to the queue of the agent, or ask which is meant."""
    agents = [each for each in principal.agents if each in request.app.state.agents]
    if len(agents) == 1:
        return RedirectResponse("/console/cases", HTTPStatus.SEE_OTHER)
    return page(request, "agents.html", agents=agents)


@sign_in_router.get("/static/{name}")
def show_file(name: str) -> Response:
    """Return a file that pages are made of; its address changes with it."""
    if name not in STATIC:
        raise NotFoundError("there is no such file", where="name")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response((FOLDER / "static" / name).read_bytes(), 200, headers, STATIC[name])


@missing_router.get("/{path:path}")
def show_nothing(path: str, _: Known) -> Response:
    """Say that there is no such page."""
    raise NotFoundError("there is no such page", where=path[:100])


def _check_origin(request: Request) -> None:
    """Let no page of another site sign somebody in as somebody else.

    Raises:
        RequestRefusedError: 403.
    """
    said = request.headers.get("sec-fetch-site")
    origin, host = request.headers.get("origin", ""), request.headers.get("host", "")
    if said == "same-origin" or (said is None and origin and urlsplit(origin).netloc == host):
        return
    raise RequestRefusedError(HTTPStatus.FORBIDDEN, f"{SIGN_IN} is asked by its own page alone")
