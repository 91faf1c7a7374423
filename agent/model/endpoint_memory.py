"""What endpoints have shown that they take, and what keeps them from answering, kept from run to run."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from agent.model.negotiation import ServerFeatures
from schemas.instants import Clock, utc_now

_VALID_FOR = timedelta(days=7)


@dataclass(frozen=True)
class EndpointState:
    """What is known of one model at one endpoint.

    Attributes:
        url: the endpoint's API root.
        learned_at: when a feature was found missing the last time; a week later all is tried again.
        trouble: what keeps it from answering and what to do about it, "" where nothing does.
    """

    url: str
    model: str
    features: ServerFeatures
    learned_at: AwareDatetime
    trouble: str = ""


@dataclass(frozen=True)
class EndpointFacts:
    """What `status` shows of one model at one endpoint.

    Attributes:
        differs: what requests do without, or get in another way than at OpenAI's own.
        trouble: what keeps it from answering and what to do about it, "" where nothing does.
    """

    url: str
    model: str
    differs: tuple[str, ...]
    learned_at: datetime
    trouble: str = ""

    @classmethod
    def of(cls, state: EndpointState) -> EndpointFacts:
        """Put what is known into words."""
        return cls(state.url, state.model, tuple(state.features.said()), state.learned_at, state.trouble)


_STATES = TypeAdapter(list[EndpointState])


class EndpointMemory:
    """A small file that processes of one home share; a disk that takes nothing costs the memory alone.

    Args:
        file: where it lies; its folder is made.
        clock: current time, timezone-aware.
    """

    def __init__(self, file: Path, clock: Clock = utc_now) -> None:
        self._file, self._clock, self._lock = file, clock, threading.Lock()

    def now(self) -> datetime:
        """Return the current time."""
        return self._clock()

    def states(self) -> tuple[EndpointState, ...]:
        """Return what is known and not too old, by address and model; nothing where the file is broken."""
        try:
            found = _STATES.validate_json(self._file.read_bytes())
        except (OSError, ValidationError):
            return ()
        oldest = self._clock() - _VALID_FOR
        fresh = (each for each in found if each.learned_at > oldest)
        return tuple(sorted(fresh, key=lambda each: (each.url, each.model)))

    def of(self, url: str, model: str) -> EndpointState | None:
        """Return what is known of a model at an endpoint."""
        return next((each for each in self.states() if (each.url, each.model) == (url, model)), None)

    def keep(self, state: EndpointState) -> None:
        """Keep what is known of a model at an endpoint instead of what was."""
        self._write(state.url, state.model, [state])

    def forget(self, url: str, model: str) -> None:
        """Keep nothing of a model at an endpoint."""
        if self.of(url, model) is not None:
            self._write(url, model, [])

    def _write(self, url: str, model: str, instead: list[EndpointState]) -> None:
        with self._lock, suppress(OSError):
            others = [each for each in self.states() if (each.url, each.model) != (url, model)]
            self._file.parent.mkdir(parents=True, exist_ok=True)
            beside = self._file.with_suffix(f".{os.getpid()}")  # several processes may write
            beside.write_bytes(_STATES.dump_json([*others, *instead]))
            beside.replace(self._file)


class Remembered:
    """What is known of one model at one endpoint: from the memory at first, and kept there as it changes.

    Args:
        memory: None to know it in this process alone.
        url: the endpoint's API root.
    """

    def __init__(self, memory: EndpointMemory | None, url: str, model: str) -> None:
        self._memory = memory
        known = None if memory is None else memory.of(url, model)
        self.features = None if known is None else known.features
        self._state = known or EndpointState(url, model, ServerFeatures(), self._now())

    @property
    def trouble(self) -> str:
        """What keeps the endpoint from answering, "" where nothing does."""
        return self._state.trouble

    def keep(self, features: ServerFeatures) -> None:
        """Keep what the endpoint takes."""
        self._become(replace(self._state, features=features, learned_at=self._now()))

    def note(self, trouble: str) -> None:
        """Keep what keeps the endpoint from answering; "" when it has answered."""
        self._become(replace(self._state, trouble=trouble))

    def _now(self) -> datetime:
        return datetime.now(UTC) if self._memory is None else self._memory.now()

    def _become(self, state: EndpointState) -> None:
        if state != self._state:
            self._state = state
            if self._memory is not None:
                self._memory.keep(state)
