"""What one batch shows of the entities of a kind, and the state that they are left in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streaming.arrays.compilation import Codes, Flags, Floats, Ints
from streaming.arrays.cores import Cores
from streaming.arrays.entity_index import EncodedColumn, Ids
from streaming.profiles.entity_kernels import Share, recall
from streaming.profiles.profile_kernels import (
    Blocks,
    Features,
    LabelEvents,
    Rows,
    State,
)


@dataclass(frozen=True)
class KnownLabels:
    """Labels with the entity each transaction belonged to; see profile_kernels.LabelEvents for the rest.

    Attributes:
        entities: entity id of each transaction.
    """

    entities: pa.ChunkedArray
    times: Ints
    blames: Floats
    firsts: Flags
    positions: Ints

    def ids(self, kind: pa.DataType) -> list[pa.Array]:
        """Return the entity ids as chunks of an Arrow type."""
        return list(self.entities.cast(kind).chunks)


@dataclass(frozen=True)
class SentRows:
    """Which rows of a batch are at hand.

    Attributes:
        sequences: int64[n], ascending; gaps are allowed.
        batch: how many rows the whole batch has.
    """

    sequences: Ints
    batch: int

    @classmethod
    def all_of(cls, first_sequence: int, rows: int) -> SentRows:
        """Return all rows of a batch that begins there."""
        return cls(np.arange(first_sequence, first_sequence + rows), rows)


@dataclass(frozen=True)
class EntityHalf:
    """What a batch shows of the entities of one kind, each by itself, and their next state.

    Attributes:
        features: of each row that was sent, in their order.
        judged: float64[n, 1 + 2 memories], what labels say of each row's entity; see entity_kernels.judge.
        rows: what was sent.
        blocks: where the batch stands.
        encoded: the ids of its entities.
        slots: int64[m], where each entity is kept, -1 where it is new.
        state: of each entity, moved on; it is this batch's own copy.
        forgotten: int64[blocks], microseconds; entities not seen after it are as if never seen.
        shares: which rows each core takes.
    """

    features: Features
    judged: Floats
    rows: Rows
    blocks: Blocks
    encoded: EncodedColumn
    slots: Ints
    state: State
    forgotten: Ints
    shares: Sequence[Share]
    _cores: Cores

    @property
    def strikes(self) -> tuple[Floats, Ints]:
        """What each entity of `rows.codes` did strikingly, float64[m], and when, int64[m]; see State."""
        return self.state.strikes, self.state.struck

    def recall(self, nats: Floats, most: Floats) -> Floats:
        """Return float64[n], what each row's entity did strikingly before, and remember the rows' own `nats`.

        Call it once: it moves the state on; see entity_kernels.recall.
        """
        memory = np.empty(len(nats))

        def work(share: Share) -> None:
            recall(share.places, self.blocks, self.rows, nats, self.state, memory, most, self.forgotten)

        self._cores.each(work, self.shares, len(nats))
        return memory


@dataclass(frozen=True)
class ProfileSnapshot:
    """Everything remembered about one kind at one moment; its arrays are never changed."""

    ids: Ids
    state: State


def empty_features(rows: int, horizons: int) -> Features:
    """Return room for the features of rows, which hold anything."""
    return Features(
        counts=np.empty((rows, horizons)),
        amounts=np.empty((rows, horizons)),
        sums=np.empty(rows),
        squares=np.empty(rows),
        exposures=np.empty(rows),
        gaps=np.empty(rows),
        late=np.empty(rows, np.bool_),
    )


def blank_features(rows: int, horizons: int) -> Features:
    """Return those of rows that name no entity."""
    return Features(
        counts=np.zeros((rows, horizons)),
        amounts=np.zeros((rows, horizons)),
        sums=np.zeros(rows),
        squares=np.zeros(rows),
        exposures=np.full(rows, np.nan),
        gaps=np.full(rows, np.nan),
        late=np.zeros(rows, np.bool_),
    )


def label_events(codes: Codes, known: KnownLabels | None) -> LabelEvents:
    """Return labels by the places of their entities; none where none are known."""
    if known is None:
        none = np.zeros(0, np.int64)
        return LabelEvents(codes, none, np.zeros(0), np.zeros(0, np.bool_), none)
    return LabelEvents(codes, known.times, known.blames, known.firsts, known.positions)
