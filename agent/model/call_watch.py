"""What is noted of each request to a model: whom, how long, how it ended; never what was said.

Which batches a question is about follows the thread that asks it into the client's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice

from schemas.batch_key import BatchKey

MOST_BATCHES = 32
_ABOUT: ContextVar[tuple[BatchKey, ...]] = ContextVar("batches that questions are about", default=())


@dataclass(frozen=True)
class FinishedCall:
    """A request to a model that has come to its end.

    Attributes:
        url: the API root that was asked.
        began_ns, ended_ns: nanoseconds since 1970 UTC.
        outcome: `answered`, or why there is no answer.
        most_output_tokens: what the answer was limited to.
        about: the batches whose alerts it was about, the first ones of many.
    """

    model: str
    url: str
    began_ns: int
    ended_ns: int
    outcome: str
    input_tokens: int
    output_tokens: int
    most_output_tokens: int
    about: tuple[BatchKey, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended_ns - self.began_ns) / 1e9


CallWatch = Callable[[FinishedCall], None]


def unwatched(_: FinishedCall) -> None:
    """Note nothing."""


@contextmanager
def asking_about(batches: Iterable[BatchKey]) -> Iterator[None]:
    """Have questions that are asked within noted as being about batches."""
    token = _ABOUT.set(tuple(islice(batches, MOST_BATCHES)))
    try:
        yield
    finally:
        _ABOUT.reset(token)


def asked_about() -> tuple[BatchKey, ...]:
    """Return the batches that questions are about here."""
    return _ABOUT.get()
