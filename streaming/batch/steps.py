"""The steps of the batch protocol, by name, and the time that each takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum


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


@dataclass
class Stopwatch:
    """Seconds spent in each step of one batch; tells `reached` when a step is done."""

    reached: Callable[[BatchStep], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, step: BatchStep) -> Iterator[None]:
        """Time one step."""
        begun = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - begun, 6)
        self.reached(step)


def untimed(_: BatchStep) -> AbstractContextManager[None]:
    """Stand for a stopwatch where nobody asks how long a step takes."""
    return nullcontext()
