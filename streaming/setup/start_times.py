"""Where the time of a start goes: its parts, each from when to when since the process began."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class StartPart:
    """One part of a start.

    Attributes:
        name: what was done.
        began: seconds since the process began; parts may overlap.
        took: seconds.
    """

    name: str
    began: float
    took: float


class StartTimes:
    """Collects the parts of a start; any thread may call.

    Args:
        begun: when the process began, seconds since 1970; what the machine says of this one unless given.
        clock: current time, seconds since 1970.
        finished: called once, when the first batch is closed.
    """

    def __init__(
        self,
        begun: float | None = None,
        clock: Callable[[], float] = time.time,
        finished: Callable[[StartTimes], None] = lambda _: None,
    ) -> None:
        self._begun = psutil.Process().create_time() if begun is None else begun
        self._clock, self._lock = clock, threading.Lock()
        self._parts: dict[str, StartPart] = {}
        self._finished: Callable[[StartTimes], None] | None = finished

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Note how long the block takes; of a name that comes again the first part counts."""
        began = self.now()
        try:
            yield
        finally:
            self.note(name, began)

    def note(self, name: str, began: float = 0.0) -> None:
        """Note a part that ends now.

        Args:
            name: what was done.
            began: when, as `now` gave it.
        """
        with self._lock:
            self._parts.setdefault(name, StartPart(name, round(began, 3), round(self.now() - began, 3)))

    def finish(self) -> None:
        """Say that the start is over; only the first time counts."""
        finished, self._finished = self._finished, None
        if finished is not None:
            finished(self)

    def now(self) -> float:
        """Return the seconds since the process began."""
        return self._clock() - self._begun

    @property
    def parts(self) -> list[StartPart]:
        """The parts, in the order in which they began."""
        with self._lock:
            return sorted(self._parts.values(), key=lambda each: each.began)


def cpu_seconds() -> float:
    """Return the processor time that this process and its children have taken so far, in seconds."""
    taken = sum(os.times()[:4])
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:
            continue
        taken += times.user + times.system
    return round(taken, 2)
