"""How far an agent's topics go: a broker is asked beside the request, for one may be away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from streaming.run.input_now import InputNow

_PAUSE_SECONDS, _WAIT_SECONDS = 5.0, 1.0


@dataclass(frozen=True)
class SeenInput:
    """What a broker has said last.

    Attributes:
        found: None where no broker has answered.
        seconds: since it was asked.
    """

    found: InputNow | None
    seconds: float


class BrokerWatch:
    """Asks at most every five seconds, one question at a time. Safe to use from several threads.

    Args:
        ask: see streaming.run.input_now.read_input.
        seconds: monotonic seconds.
    """

    def __init__(
        self, ask: Callable[[], InputNow | None], seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask, self._seconds, self._lock = ask, seconds, threading.Lock()
        self._found: InputNow | None = None
        self._ended_at: float | None = None
        self._asking: threading.Thread | None = None

    def newest(self) -> SeenInput | None:
        """Return what a broker has said last, after a second at most; None before the first has."""
        with self._lock:
            if self._asking is None and self._is_due():
                # No worker: it asks once, and whoever comes later begins anew.
                self._asking = threading.Thread(target=self._try, name="input", daemon=True)
                self._asking.start()
            asking = self._asking
        if asking is not None:
            asking.join(_WAIT_SECONDS)
        with self._lock:
            return (
                None if self._ended_at is None else SeenInput(self._found, self._seconds() - self._ended_at)
            )

    def _is_due(self) -> bool:
        return self._ended_at is None or self._seconds() - self._ended_at >= _PAUSE_SECONDS

    def _try(self) -> None:
        """A broker that cannot be asked is one that does not answer."""
        found = None
        try:
            found = self._ask()
        finally:
            with self._lock:
                self._found, self._ended_at, self._asking = found, self._seconds(), None
