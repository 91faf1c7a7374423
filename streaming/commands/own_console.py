"""A console for whoever has the lakes before them: with a token of its own, in a browser that is opened."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from schemas.errors import FlagstreamError
from streaming.audit.access import record_done
from streaming.commands.browser import open_in_browser
from streaming.console.sign_in_codes import CODE_SECONDS, Holder
from streaming.home.listen import ListenAddress
from streaming.home.placed_agent import PlacedAgent
from streaming.output.log import log
from streaming.output.terminal import print_json, say_line
from streaming.serve.api import Server
from streaming.tokens.bearer import NewToken, Scope, draw
from streaming.tokens.token_table import TokenTable
from streaming.versions.moving import default_author

_SCOPES: tuple[Scope, ...] = ("triage", "operate")
_LIFE, _PER_MINUTE = timedelta(hours=12), 600


@contextmanager
def own_token(agents: Sequence[PlacedAgent]) -> Iterator[NewToken]:
    """Make a token for work on cases and on agents; it ends with the block, or after half a day.

    Raises:
        FlagstreamError: a lake cannot be written.
    """
    drawn, who = draw(), default_author()
    ends_at, name = datetime.now(UTC) + _LIFE, f"console-{drawn.token_id}"
    try:
        for each in agents:
            TokenTable(each).add(drawn, name, _SCOPES, _PER_MINUTE, ends_at, who)
            record_done(each, "token-create", 1, begins_log=True)
        yield drawn
    finally:
        for each in agents:
            with suppress(FlagstreamError):
                TokenTable(each).revoke(drawn.token_id, who)
                record_done(each, "token-revoke", 1)


@dataclass(frozen=True)
class OwnConsole:
    """Where a browser of this machine signs in to a server that runs in this process.

    Attributes:
        server: that listens.
        port: where.
        token: whom a browser signs in as.
    """

    server: Server
    port: int
    token: NewToken

    def address(self) -> str:
        """Return the address with a new code, good once within a minute.

        Raises:
            FlagstreamError: the tokens cannot be read.
        """
        for each in self.server.agents.values():
            each.tokens.refresh()
        code = self.server.api.state.console.codes.draw(Holder(self.token.token_id, self.token.digest))
        return f"http://{ListenAddress(self.port)}/console/sign-in?code={code}"

    def show(self, *, as_json: bool = False) -> None:
        """Print the address, and open a browser where somebody sits before a screen.

        Raises:
            FlagstreamError: see address.
        """
        address = self.address()
        opened = open_in_browser(address, CODE_SECONDS)
        if as_json:
            print_json({"console": {"address": address, "seconds": CODE_SECONDS, "opened": opened}})
            return
        say_line(f"The console: {address}")
        say_line("It was opened in your browser." if opened else "Open it within a minute: it works once.")

    def show_soon(self, *, as_json: bool = False) -> None:
        """Do the same from a thread: whoever opens it asks the server, which calls this."""

        def show() -> None:
            try:
                self.show(as_json=as_json)
            except FlagstreamError as fault:
                log("console_failed", f"no address to sign in at: {fault}", level=logging.WARNING)

        # No worker: it is done once.
        threading.Thread(target=show, name="open-console", daemon=True).start()
