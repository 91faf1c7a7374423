"""What an endpoint gets: who calls, and the agent that they call about, both checked.

    def list_cases(call: Annotated[Call, needs("read")]) -> ...

`needs` answers 401 where nobody is known, 404 where they may not see the agent, 403 where their scopes do not
suffice. It notes the call for the audit log: what reads when it begins, what writes once that was done, and
before the answer is sent: who has it finds the write wherever they look next.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated

from fastapi import Header, Query
from fastapi.params import Depends
from starlette.requests import Request

from schemas.errors import ConfigurationError, NotFoundError
from streaming.audit.case_notes import notes_of
from streaming.serve.idempotency import HEADER, KEY_PATTERN
from streaming.serve.problems import RequestRefusedError
from streaming.serve.served_agent import ServedAgent
from streaming.tokens.bearer import Scope
from streaming.tokens.principal import Principal

AgentName = Annotated[
    str | None,
    Query(description="The agent it is about; may be left out where the token sees one alone."),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=HEADER,
        pattern=KEY_PATTERN,
        description="Sent again with the same key, the request is answered as before and done once.",
    ),
]


@dataclass
class Call:
    """One request of somebody about an agent.

    Attributes:
        principal: who calls.
        agent: what it is about.
        request_id: under which the log has it.
        command: what it is called in the audit log.
        ask_again: finds out anew who calls.
        write_key: the same whenever a write is sent again under its key; None without a key.
        rows: how many rows it has written, as the endpoint says.
        cases: those that it has changed, as the endpoint says; each is a row written.
        noted: what else the audit log is to have of it, as the endpoint says.
    """

    principal: Principal
    agent: ServedAgent
    request_id: str
    command: str
    ask_again: Callable[[], Awaitable[Principal | None]]
    write_key: str | None = None
    rows: int = 0
    cases: Sequence[str] = ()
    noted: dict[str, str] = field(default_factory=dict)

    @property
    def who(self) -> str:
        """Who calls, as tables and the audit log name them."""
        return self.principal.name

    def check(self, scope: Scope) -> None:
        """Check that whoever calls may do something more.

        Raises:
            RequestRefusedError: 403, which names the scope.
        """
        _check_scope(self.principal, self.agent.name, scope)


async def is_still_allowed(call: Call, scope: Scope) -> bool:
    """Say whether whoever calls may do something as yet: a token ends while its answer goes on."""
    principal = await call.ask_again()
    return principal is not None and scope in principal.scopes.get(call.agent.name, frozenset())


def caller(request: Request) -> Principal:
    """Return who calls.

    Raises:
        RequestRefusedError: 401, nobody is known.
    """
    principal: Principal | None = getattr(request.state, "principal", None)
    if principal is None:
        raise RequestRefusedError(
            HTTPStatus.UNAUTHORIZED,
            "send a token that is good: Authorization: Bearer …; `flagstream token create` makes one",
            headers={"WWW-Authenticate": 'Bearer realm="flagstream"'},
        )
    return principal


def needs(scope: Scope) -> Depends:
    """Return a dependency that gives the endpoint its call, for whoever has a scope.

    Args:
        scope: what they must be allowed.
    """

    # Nothing is waited for, so it takes no thread: each change of threads costs a call milliseconds.
    async def call(request: Request, agent: AgentName = None) -> AsyncIterator[Call]:
        with _noted(request, agent, scope) as found:
            yield found

    async def write(
        request: Request,
        agent: AgentName = None,
        idempotency_key: IdempotencyKey = None,  # noqa: ARG001 -- it is described here and used before
    ) -> AsyncIterator[Call]:
        with _noted(request, agent, scope) as found:
            yield found

    # Of scope "request", what follows `yield` would run after the answer was sent.
    return Depends(call if scope == "read" else write, scope="function")


@contextmanager
def _noted(request: Request, agent: str | None, scope: Scope) -> Iterator[Call]:
    principal = caller(request)
    served = chosen(principal, request.app.state.agents, agent)
    request.state.agent = served.name  # for whoever watches
    _check_scope(principal, served.name, scope)
    command = request.scope["route"].name.replace("_", "-")
    state = request.state
    write_key = getattr(state, "write_key", None)
    found = Call(principal, served, state.request_id, f"api/{command}", state.ask_again, write_key)
    if scope == "read":
        served.trail.read(found.who, found.command)
        yield found
        return
    try:
        yield found
    finally:
        served.wrote()
    # Reached only where the endpoint raised nothing.
    for named in notes_of(found.cases) if found.cases else [{"rows": found.rows}]:
        noted = {**found.noted, **named}
        served.trail.wrote(found.who, found.command, noted.pop("rows"), noted)


def chosen(principal: Principal, agents: Mapping[str, ServedAgent], name: str | None) -> ServedAgent:
    """Return the agent that is meant.

    Raises:
        ConfigurationError: none is named, and there are several.
        NotFoundError: there is no such agent, or whoever calls may not see it.
    """
    seen = [each for each in principal.agents if each in agents]
    if name is None and len(seen) == 1:
        return agents[seen[0]]
    if name is None:
        raise ConfigurationError(f"say which agent is meant: {', '.join(seen)}", where="agent")
    if name not in seen:
        raise NotFoundError("there is no such agent that this token may see", where="agent")
    return agents[name]


def _check_scope(principal: Principal, agent: str, scope: Scope) -> None:
    if scope not in principal.scopes.get(agent, frozenset()):
        raise RequestRefusedError(
            HTTPStatus.FORBIDDEN, f"this needs the scope {scope!r}", {"missing_scope": scope}
        )
