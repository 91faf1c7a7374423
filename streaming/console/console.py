"""Puts the console together with the server of the API that it is part of."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastapi import APIRouter

from streaming.console.alert_pages import alert_router
from streaming.console.audit_page import audit_page_router
from streaming.console.case_pages import case_router
from streaming.console.entity_page import entity_router
from streaming.console.quarantine_pages import record_router
from streaming.console.queue_pages import queue_router
from streaming.console.rule_pages import rule_router
from streaming.console.sessions import Sessions
from streaming.console.sign_in import codes_router, missing_router, sign_in_router
from streaming.console.sign_in_codes import SignInCodes
from streaming.console.system_page import system_router
from streaming.console.version_pages import version_router
from streaming.console.what_if_pages import what_if_router
from streaming.serve.api import Reach, Server, build_server
from streaming.serve.known_tokens import KnownTokens
from streaming.serve.routers import ROUTERS
from streaming.serve.served_agent import ServedAgent
from streaming.serve.watched import RequestWatch, nobody_watches

CONSOLE_ROUTERS: Sequence[APIRouter] = (
    codes_router,
    sign_in_router,
    queue_router,
    case_router,
    alert_router,
    entity_router,
    rule_router,
    what_if_router,
    version_router,
    record_router,
    system_router,
    audit_page_router,
    missing_router,
)


@dataclass(frozen=True)
class DeskConsole:
    """What signing in needs; `console` in the state of the application."""

    codes: SignInCodes
    sessions: Sessions


def server_with_console(
    agents: Sequence[ServedAgent],
    reach: Reach,
    *,
    secure: bool = False,
    seconds: Callable[[], float] = time.monotonic,
    watch: RequestWatch = nobody_watches,
) -> Server:
    """Put a server together that answers the API and shows the console.

    Args:
        agents: that it serves.
        reach: by whom it may be reached.
        secure: whether browsers reach it by TLS, its own or that of a proxy in front.
        seconds: monotonic seconds.
        watch: hears of each request.
    """
    book = KnownTokens([each.tokens for each in agents])
    console = DeskConsole(SignInCodes(seconds), Sessions(book, secure=secure, seconds=seconds))
    routers = [*ROUTERS, *CONSOLE_ROUTERS]
    server = build_server(agents, reach, routers, [console.sessions], seconds, watch)
    server.api.state.console = console
    return server
