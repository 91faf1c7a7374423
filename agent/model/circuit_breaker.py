"""The circuit breaker: a server that fails again and again is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable


class CircuitBreaker:
    """Stops asking a server that fails again and again, and tries it with one question after a pause.

    The pause doubles with every trial that fails, up to ten minutes.

    Args:
        failures: consecutive failures that open the circuit.
        pause: seconds before the first trial.
        clock: monotonic seconds.
    """

    _LONGEST_PAUSE = 600.0

    def __init__(
        self, failures: int = 3, pause: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most_failures, self._first_pause, self._clock = failures, pause, clock
        self._failures, self._pause, self._opened_at = 0, pause, 0.0

    @property
    def closed(self) -> bool:
        """Whether questions flow freely."""
        return self._failures < self._most_failures

    @property
    def trial_due(self) -> bool:
        """Whether the circuit is open and the pause is over."""
        return not self.closed and self._clock() - self._opened_at >= self._pause

    def trip(self) -> None:
        """Leave the server alone at once: it has said that it will not answer for a while."""
        self._failures = max(self._failures, self._most_failures - 1)
        self.note(healthy=False)

    def note(self, healthy: bool) -> None:
        """Take in how one question went."""
        if healthy:
            self._failures, self._pause = 0, self._first_pause
            return
        if not self.closed and self.trial_due:
            self._pause = min(self._pause * 2, self._LONGEST_PAUSE)
        self._failures += 1
        self._opened_at = self._clock()
