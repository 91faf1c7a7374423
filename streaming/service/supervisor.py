"""Keeps an agent running: waits for what it needs, before it claims anything, and begins again after a fault.

What becomes of a run when an attempt fails:

| fault | what follows |
|---|---|
| FencedError, DataLossError, ConfigurationError | the run ends with it |
| MachineError | the run ends with it, unless something the agent needs is away |
| RetryableError, and any while something is away | waits until all is there, then begins again |
| any other | the same for a service; a run that has its own end passes it on |
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schemas.errors import FlagstreamError, MachineError, RetryableError
from streaming.service.health import Condition, Health
from streaming.service.worker import FATAL, cause_of, pause_after

_ENDING = (*FATAL, KeyboardInterrupt, SystemExit, GeneratorExit)
_LONGEST_WAIT_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 60.0
_SETTLED_SECONDS = 10.0


@dataclass(frozen=True)
class Need:
    """Something an agent cannot begin without.

    Attributes:
        condition: what holds while it is away.
        fault: looks for it, committing nothing; returns what is wrong, None when it is there. What it
            raises ends the run.
    """

    condition: Condition
    fault: Callable[[], str | None]


class Supervisor:
    """Runs attempts, one after the other, until one ends by itself or `stop` is set.

    Args:
        needs: looked for before each attempt; none is made while one is away.
        health: notified what is waited for.
        stop: ends a wait at once.
        patience: seconds after which a wait that has not ended becomes a fault, None to wait as long as
            it takes.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        needs: Sequence[Need],
        health: Health,
        stop: threading.Event,
        *,
        patience: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._needs, self._health, self._stop = needs, health, stop
        self._patience, self._clock = patience, clock
        self._failures = 0
        self._begun = clock()
        self._opened: float | None = None

    def run(self, attempt: Callable[[], None]) -> None:
        """Make attempts until one returns, or `stop` is set.

        Raises:
            FlagstreamError: what cannot pass, or has not passed within the patience.
        """
        while self._all_there():
            try:
                attempt()
            except BaseException as fault:
                self._weigh(fault)
            else:
                return

    def opened(self) -> None:
        """Say that the agent of this attempt is up."""
        self._opened = self._clock()

    def settle(self) -> None:
        """Call it from time to time: an agent that has been up for a while has overcome earlier faults."""
        if self._opened is not None and self._clock() - self._opened >= _SETTLED_SECONDS:
            self._failures, self._begun = 0, self._clock()
            self._health.ends(Condition.RESTARTING)

    def _all_there(self) -> bool:
        """Wait until nothing is missing; False when `stop` came first."""
        tries = 0
        while not self._stop.is_set():
            missing = self._missing()
            if missing is None:
                return True
            self._check_patience(RetryableError(missing))
            tries += 1
            self._stop.wait(pause_after(tries, _LONGEST_WAIT_SECONDS))
        return False

    def _missing(self) -> str | None:
        """Look for one need after the other, and return what is wrong with the first that is away."""
        for each in self._needs:
            cause = each.fault()
            self._health.update(each.condition, cause)
            if cause is not None:
                return cause
        return None

    def _weigh(self, fault: BaseException) -> None:
        """Raise what cannot pass; else say what happened and pause."""
        if isinstance(fault, _ENDING):
            raise fault
        self.settle()
        self._opened = None
        if self._stop.is_set():
            return
        missing = self._missing()
        if missing is None and not self._may_pass(fault):
            raise fault
        if missing is None:
            self._health.begins(Condition.RESTARTING, cause_of(fault))
        self._check_patience(fault)
        self._failures += 1
        gc.collect()  # what failed holds its batch, in a circle of a fault and its frames
        self._stop.wait(pause_after(self._failures, _LONGEST_PAUSE_SECONDS))

    def _may_pass(self, fault: BaseException) -> bool:
        if isinstance(fault, RetryableError):
            return True
        return self._patience is None and not isinstance(fault, MachineError)

    def _check_patience(self, fault: BaseException) -> None:
        if self._patience is None or self._clock() - self._begun < self._patience:
            return
        if isinstance(fault, FlagstreamError):
            raise RetryableError(f"gave up after {self._patience:g} s: {fault}") from fault
        raise fault
