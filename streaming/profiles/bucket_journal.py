"""What it takes to build each bucket anew: its state at one moment, and the steps decided since.

It lies in a file without a name, which ends with the process, however that ends: it holds ids of entities,
and nobody would erase them.
"""

from __future__ import annotations

import pickle
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from streaming.profiles.bucket import BucketStep, StepOutcome
from streaming.profiles.entity_half import ProfileSnapshot


class BucketName(NamedTuple):
    """Which kind, by its place in the spec's order, and which of its buckets."""

    kind: int
    bucket: int


class DecidedStep(NamedTuple):
    """A step and what became of it."""

    step: BucketStep
    outcome: StepOutcome


class _KeptSpan(NamedTuple):
    start: int
    length: int


class BucketJournal:
    """The states and the steps of all buckets.

    Args:
        folder: of a disk with room for them.
        settled: number of the last step that the states know of.
    """

    def __init__(self, folder: Path, settled: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 -- closed with this
        self._closes = weakref.finalize(self, self._file.close)
        self._end, self.settled = 0, settled
        self._states: dict[BucketName, _KeptSpan] = {}
        self._since: dict[BucketName, list[_KeptSpan]] = {}

    def keep(self, name: BucketName, state: ProfileSnapshot) -> None:
        """Keep the state of a bucket."""
        self._states[name], self._since[name] = self._put(state), []

    def decided(self, decided: Mapping[BucketName, DecidedStep]) -> None:
        """Keep a step of each bucket."""
        for name, each in decided.items():
            self._since[name].append(self._put(each))

    def state(self, name: BucketName) -> ProfileSnapshot:
        """Return the state of a bucket, as kept."""
        found: ProfileSnapshot = self._get(self._states[name])
        return found

    def since(self, name: BucketName) -> list[DecidedStep]:
        """Return the steps of a bucket after that."""
        return [self._get(span) for span in self._since[name]]

    def nbytes(self, name: BucketName) -> int:
        """Return how much is kept of a bucket."""
        return sum(span.length for span in (self._states[name], *self._since[name]))

    def close(self) -> None:
        """Let go of all of it."""
        self._closes()

    def _put(self, what: object) -> _KeptSpan:
        content = pickle.dumps(what, pickle.HIGHEST_PROTOCOL)
        self._file.seek(self._end)
        self._file.write(content)
        span = _KeptSpan(self._end, len(content))
        self._end += len(content)
        return span

    def _get(self, span: _KeptSpan) -> Any:
        self._file.seek(span.start)
        return pickle.loads(self._file.read(span.length))
