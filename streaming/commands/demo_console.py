"""The console of the demo: served by a thread of the demo's own process, and ended by Ctrl-C after it."""

from __future__ import annotations

import logging
import threading

from streaming.commands.own_console import OwnConsole, own_token
from streaming.commands.serve import ServeOptions, put_together
from streaming.home.listen import ListenAddress, is_free
from streaming.home.placed_agent import PlacedAgent
from streaming.output.log import log
from streaming.output.terminal import say_line
from streaming.serve.http_server import Listening, serve_until
from streaming.service.interrupts import stop_on_interrupt
from streaming.service.worker import cause_of

_USUAL = ListenAddress(8714)
_CHECK_SECONDS = 1.0


class DemoConsole:
    """Serves the console of an agent that runs in this process. A demo goes on whatever befalls it.

    Args:
        agent: whose console it is.
        as_json: whether what is printed is for programs.
    """

    def __init__(self, agent: PlacedAgent, *, as_json: bool) -> None:
        self._agent, self._as_json = agent, as_json
        self._stop = threading.Event()
        self._own: OwnConsole | None = None
        # No worker: it serves until it is closed, or not at all.
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)

    def start(self) -> None:
        """Begin to serve; the address is printed once it is up."""
        self._thread.start()

    def stay(self) -> None:
        """Print the address once more and serve until Ctrl-C; return at once where nothing is served."""
        left = threading.Event()
        with stop_on_interrupt(left, doing="ending the console", then="nothing was open"):
            if self._own is not None and self._thread.is_alive():
                if not self._as_json:
                    say_line("The console stays until Ctrl-C.")
                self._own.show(as_json=self._as_json)
            while self._thread.is_alive() and not left.wait(_CHECK_SECONDS):
                pass

    def close(self) -> None:
        """End it, and its token."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as fault:
            log("console_failed", f"no console: {cause_of(fault)}", level=logging.WARNING)

    def _serve(self) -> None:
        listening = Listening(_USUAL if is_free(_USUAL) else ListenAddress(0))
        with own_token([self._agent]) as token:
            server = put_together([self._agent], ServeOptions(listening))

            def started(port: int) -> None:
                self._own = OwnConsole(server, port, token)
                self._own.show_soon(as_json=self._as_json)

            serve_until(server.asgi, listening, self._stop, started, server.end_streams)
