"""A bucket: some of the entities of one kind, held apart from the others, perhaps on another machine.

What it holds is named by a number, that of the last step settled; no state is believed without it. A step is
one batch: it is worked out first and staged, and counts once the step after it names it as decided. So what
is done twice, late or in vain changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streaming.arrays.arrow_arrays import id_column
from streaming.arrays.compilation import Codes, Flags, Floats, Ints, read_only
from streaming.arrays.cores import Cores
from streaming.arrays.entity_index import Ids
from streaming.profiles.decayed import Profiles
from streaming.profiles.entity_half import EntityHalf, KnownLabels, ProfileSnapshot, SentRows
from streaming.profiles.levels import Levels
from streaming.profiles.profile_kernels import NEVER, Features

_ONE_CORE = Cores(1)


class BucketShape(NamedTuple):
    """What profiles are made with, see Profiles; `striking` is the `most` of entity_kernels.recall."""

    horizons: tuple[float, ...]
    block_rows: int
    block_decay: float
    memories: tuple[float, ...]
    striking: Floats


class SentLabels(NamedTuple):
    """All labels that a batch is the first to know; `names` has an id where the entity is of the bucket.

    The rest is that of KnownLabels.
    """

    names: Ids
    named: Flags
    times: Ints
    blames: Floats
    firsts: Flags
    positions: Ints


class BucketStep(NamedTuple):
    """One batch as a bucket gets it: the rows of its entities, each of which names one.

    Attributes:
        number: of the step, unlike any other of the same scorer.
        first_sequence, batch: of the whole batch, where it begins and how many rows it has.
        sequences, times, amounts, logs: of the rows sent, see Profiles.entity_half.
        ids: entity of each row.
        labels: None for none.
        forgotten, levels: of the whole batch, per block.
    """

    number: int
    first_sequence: int
    batch: int
    sequences: Ints
    ids: Ids
    times: Ints
    amounts: Floats
    logs: Floats
    labels: SentLabels | None
    forgotten: Ints
    levels: Levels


class Strikes(NamedTuple):
    """What entities did strikingly, by one of their rows in a step: float64[k], and as of when; see State."""

    rows: Ints
    strikes: Floats
    struck: Ints


class StepOutcome(NamedTuple):
    """That a step was decided.

    Attributes:
        number: of the step.
        strikes: of its entities that have any after it.
        forgotten: entities not seen after it may be let go, in microseconds.
    """

    number: int
    strikes: Strikes
    forgotten: int


class Shown(NamedTuple):
    """What a step shows of its rows; `strikes` are what their entities did before it."""

    features: Features
    judged: Floats
    strikes: Strikes


@dataclass(frozen=True)
class _StagedStep:
    number: int
    half: EntityHalf


class Bucket:
    """Some of the entities of a kind.

    Args:
        shape: of their profiles.
        held: what is known of them.
        settled: number of the last step that this knows of.

    Attributes:
        settled: the same as time goes on.
    """

    def __init__(self, shape: BucketShape, held: ProfileSnapshot, settled: int) -> None:
        self._shape, self.settled = shape, settled
        self._profiles = Profiles(*shape[:4], cores=_ONE_CORE)
        self._profiles.restore(held)
        self._staged: _StagedStep | None = None

    def __len__(self) -> int:
        """Return the number of entities."""
        return len(self._profiles)

    @property
    def nbytes(self) -> int:
        """Bytes of memory of the profiles, see there."""
        return self._profiles.nbytes

    @property
    def reached(self) -> int:
        """Number of the newest step that it has seen."""
        return self.settled if self._staged is None else max(self._staged.number, self.settled)

    def settle(self, wanted: int, outcome: StepOutcome | None) -> bool:
        """Bring it to where the step `wanted` was decided, and nothing after; False where it cannot be.

        Args:
            outcome: of that step, None where it stood there to begin with.
        """
        if self.settled != wanted:
            staged = self._staged
            if staged is None or outcome is None or not staged.number == outcome.number == wanted:
                return False
            self._commit(staged.half, outcome)
            self.settled = wanted
        self._staged = None
        return True

    def advance(self, step: BucketStep) -> Shown:
        """Work out a step and stage it; what was staged before is dropped."""
        half = self._profiles.entity_half(
            pa.chunked_array([_texts(step.ids)]),
            read_only(step.times),
            read_only(step.amounts),
            step.logs,
            step.first_sequence,
            _known(step.labels),
            step.forgotten,
            step.levels,
            SentRows(step.sequences, step.batch),
        )
        before = _strikes(half)
        # Nothing strikes as yet: what the step's rows did strikingly comes with its outcome.
        half.recall(np.zeros(len(step.times)), self._shape.striking)
        self._staged = _StagedStep(step.number, half)
        return Shown(half.features, half.judged, before)

    def state(self) -> ProfileSnapshot:
        """Return a copy of what is settled."""
        return self._profiles.snapshot()

    def _commit(self, half: EntityHalf, outcome: StepOutcome) -> None:
        codes = half.rows.codes[outcome.strikes.rows]
        strikes, struck = half.strikes
        strikes[codes], struck[codes] = outcome.strikes.strikes, outcome.strikes.struck
        self._profiles.commit_entities(half)
        if outcome.forgotten != NEVER:
            self._profiles.forget(outcome.forgotten)


def first_rows(codes: Codes, entities: int) -> Ints:
    """Return the first row of each entity, int64[entities], -1 where it has none."""
    first = np.full(entities, -1)
    rows = np.flatnonzero(codes >= 0)[::-1]
    first[codes[rows]] = rows
    return first


def part_of(ids: Ids, span: slice) -> Ids:
    """Return copies of some ids in a row."""
    bounds = ids.offsets[span.start : span.stop + 1]
    return Ids(np.array(ids.data[bounds[0] : bounds[-1]]), bounds - bounds[0])


def _strikes(half: EntityHalf) -> Strikes:
    strikes, struck = half.strikes
    first = first_rows(half.rows.codes, len(strikes))
    found = np.flatnonzero((strikes > 0.0) & (first >= 0))
    return Strikes(first[found], strikes[found].copy(), struck[found].copy())


def _texts(ids: Ids) -> pa.Array:
    return id_column(ids).cast(pa.large_string())


def _known(labels: SentLabels | None) -> KnownLabels | None:
    if labels is None:
        return None
    # An id has a name, or none: those that are named stand in `names`, in their order.
    places = np.cumsum(labels.named) - 1
    taken = pa.array(places, mask=~labels.named)
    names = pa.chunked_array([_texts(labels.names).take(taken)])
    return KnownLabels(names, *map(read_only, labels[2:]))
