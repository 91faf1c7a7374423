"""The steps of the batch protocol, by name, and the time that each takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class BatchStep(StrEnum):
    """The steps of the protocol, in order."""

    OPEN = "open"
    TAKE = "take"
    DECODE = "decode"
    STORE = "store"
    SCORE = "score"
    TRIAGE = "triage"
    ALERT = "alert"
    PUBLISH = "publish"
    CLOSE = "close"


InStep = Callable[[BatchStep], AbstractContextManager[None]]


class StepTime(NamedTuple):
    """When a step began and ended, in nanoseconds since 1970 UTC."""

    step: BatchStep
    began_ns: int
    ended_ns: int


@dataclass
class Stopwatch:
    """Seconds spent in each step of one batch; tells `reached` when a step is done.

    Attributes:
        times: of the steps so far; the last one may have failed.
    """

    reached: Callable[[BatchStep], None]
    seconds: dict[str, float] = field(default_factory=dict)
    times: list[StepTime] = field(default_factory=list)

    @contextmanager
    def step(self, step: BatchStep) -> Iterator[None]:
        """Time one step."""
        begun, began_ns = time.perf_counter(), time.time_ns()
        try:
            yield
        finally:
            self.times.append(StepTime(step, began_ns, time.time_ns()))
        self.seconds[step] = round(time.perf_counter() - begun, 6)
        self.reached(step)


def untimed(_: BatchStep) -> AbstractContextManager[None]:
    """Stand for a stopwatch where nobody asks how long a step takes."""
    return nullcontext()
