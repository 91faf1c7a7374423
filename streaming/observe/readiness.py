"""Whether an agent lives, and whether it is ready: what a supervisor of processes asks again and again."""

from __future__ import annotations

import time
from collections.abc import Callable

from streaming.service.health import WAITING, ActiveCondition, Health

LONGEST_ROUND_SECONDS, LONGEST_STEP_SECONDS = 120.0, 900.0


class Readiness:
    """Alive as long as its query's loop, or a batch, moves; ready while it runs and waits for nothing.

    Before the query runs, while what it needs is waited for or its state is restored, an agent is alive: both
    take as long as they take, and beginning anew would not be faster.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._health = clock, Health()
        self._moved, self._longest = clock(), LONGEST_ROUND_SECONDS
        self.is_running, self.looped_at = False, 0.0

    def watch(self, health: Health) -> None:
        """Go by these conditions from now on."""
        self._health = health

    def looped(self) -> None:
        """The loop has moved."""
        self._moved, self.looped_at = self._clock(), time.time()
        self._longest = LONGEST_ROUND_SECONDS

    def stepped(self) -> None:
        """A batch has begun, or come further: the loop waits for it, however long it takes as a whole."""
        self._moved, self._longest = self._clock(), LONGEST_STEP_SECONDS

    @property
    def conditions(self) -> tuple[ActiveCondition, ...]:
        """What holds, the longest first."""
        return self._health.active

    def why_not_live(self) -> str | None:
        """Say why the process should be ended and begun anew, None where it should not."""
        silent = self._clock() - self._moved
        if self.is_running and silent > self._longest:
            return f"the loop has not moved for {silent:.0f} s"
        return None

    def why_not_ready(self) -> str | None:
        """Say what the agent waits for, None where it decides what comes."""
        waits = [each for each in self.conditions if each.condition in WAITING]
        if waits:
            return "; ".join(f"{each.condition} since {each.since:%Y-%m-%dT%H:%M:%SZ}" for each in waits)
        return None if self.is_running else "the agent is being opened"
