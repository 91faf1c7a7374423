"""What is remembered about each entity of one kind, and about that kind as a whole.

An entity's profile holds, per horizon tau, the count n of its transactions and the sums of their amounts,
log-amounts and squared log-amounts, each weighed by exp(-age / tau); at a steady rate n is the number of
transactions in one horizon. With four horizons and three memories it takes 224 bytes, beside the id. Features
of a row are taken from the profile as it stood just before that row. Statistics of a whole kind move forward
only where `sequence` is a multiple of `block_rows`, so nothing depends on how a stream was cut into batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streaming.arrays.arrow_arrays import kept_ids, worth_packing
from streaming.arrays.compilation import Codes, Flags, Floats, Ints
from streaming.arrays.entity_index import EncodedColumn, EntityIndex, Ids
from streaming.profiles.levels import Levels, own_levels
from streaming.profiles.profile_kernels import (
    ENTITY_PARTS,
    KIND_PARTS,
    MOMENTS,
    NEVER,
    POPULATION_WIDTH,
    Blocks,
    Features,
    LabelEvents,
    Rows,
    State,
    fold,
    gather,
    judge,
    recall,
    scatter,
)

_LEAST_VARIANCE = 1e-4
_RESIDUAL_PRIOR = 16.0


@dataclass(frozen=True)
class Population:
    """A kind of entities as a whole, one value per block.

    Attributes:
        horizons: float64[horizons], seconds, ascending.
        weights: float64[blocks], decayed number of transactions; 0 in a cold start.
        means, variances: of all log-amounts.
        within: variance of log-amounts around their own entity's mean.
        rates: transactions per second of one entity, from the gaps between its transactions; 0 if unknown.
        first_seen: share of transactions whose entity was new, with add-one smoothing.
    """

    horizons: Floats
    weights: Floats
    means: Floats
    variances: Floats
    within: Floats
    rates: Floats
    first_seen: Floats


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
class Advance:
    """Features of one batch and the state it leads to, not yet part of the profiles."""

    features: Features
    population: Population
    encoded: EncodedColumn
    slots: Ints
    state: State
    rows: Rows
    labels: LabelEvents
    blocks: Blocks
    forgotten: Ints

    def judge(self, memories: Floats) -> Floats:
        """Return what labels say of each row's entity, float64[n, 1 + 2 memories]; once per advance.

        The columns are those of profile_kernels.judge.
        """
        found = np.empty((len(self.rows.codes), 1 + 2 * len(memories)))
        judge(self.blocks, self.rows, self.labels, self.state, memories, found, self.forgotten)
        return found

    def recall(self, nats: Floats, most: Floats) -> Floats:
        """Return float64[n], what each row's entity did strikingly before, and remember the rows' own `nats`.

        Call it once per advance: it moves the state on; see profile_kernels.recall.
        """
        memory = np.empty(len(nats))
        recall(self.blocks, self.rows, nats, self.state, memory, most, self.forgotten)
        return memory


@dataclass(frozen=True)
class ProfileSnapshot:
    """Everything remembered about one kind at one moment; its arrays are never changed."""

    ids: Ids
    state: State


def _empty_features(rows: int, horizons: int, blocks: int) -> Features:
    return Features(
        counts=np.empty((rows, horizons)),
        amounts=np.empty((rows, horizons)),
        sums=np.empty(rows),
        squares=np.empty(rows),
        exposures=np.empty(rows),
        gaps=np.empty(rows),
        late=np.empty(rows, np.bool_),
        populations=np.empty((blocks, POPULATION_WIDTH)),
    )


def population_of(statistics: Floats, horizons: Floats, levels: Levels) -> Population:
    """Turn raw sums, float64[blocks, 8], into what the detectors use; `levels` go before the kind's own."""
    rows, total, squares, gaps, seconds, fresh, residuals, residual_squares = statistics.T
    counted = np.maximum(rows, 1.0)
    own = total / counted
    means = np.where(np.isnan(levels.means), own, levels.means)
    variances = np.where(np.isnan(levels.variances), squares / counted - own * own, levels.variances)
    variances = np.maximum(variances, _LEAST_VARIANCE)
    prior = _RESIDUAL_PRIOR
    within = (residual_squares + prior * variances) / (residuals + prior)
    return Population(
        horizons=horizons,
        weights=np.ascontiguousarray(rows),
        means=means,
        variances=variances,
        within=np.clip(within, _LEAST_VARIANCE, variances),
        rates=gaps / np.maximum(seconds, np.maximum(gaps, 1.0) * 1e-6),
        first_seen=(fresh + 1.0) / (rows + 2.0),
    )


class Profiles:
    """All profiles of one kind of entities.

    Args:
        horizons: ascending, in seconds.
        block_rows: rows per block.
        block_decay: what one block leaves of the population statistics before it.
        memories: number of time constants over which labels fade.
    """

    def __init__(
        self, horizons: tuple[float, ...], block_rows: int, block_decay: float, memories: int = 1
    ) -> None:
        self._horizons = np.array(horizons, dtype=np.float64)
        self._block_rows, self._block_decay = block_rows, block_decay
        self._index = EntityIndex()
        self._state = _blank_state(0, len(horizons), memories)

    def __len__(self) -> int:
        """Return the number of entities seen so far."""
        return len(self._index)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the profiles take, room for more included, ids and their index left out."""
        return sum(part.nbytes for part in self._state)

    def advance(
        self,
        column: pa.ChunkedArray,
        times: Ints,
        amounts: Floats,
        logs: Floats,
        first_sequence: int,
        known: KnownLabels | None = None,
        forgotten: Ints | None = None,
        levels: Levels | None = None,
    ) -> Advance:
        """Work out features and the next state for one batch, leaving the profiles as they are.

        Args:
            column: entity id of each row.
            times: int64[n], event time in microseconds since 1970, read-only.
            amounts: float64[n], read-only.
            logs: float64[n] from log_amounts.
            first_sequence: `sequence` of the first row.
            known: labels that become known from here on; rows see those at or before their own position.
            forgotten: int64[blocks], microseconds; entities not seen after it are as if never seen. By
                default nobody is forgotten.
            levels: of all amounts, for the blocks that the rows touch; by default the kind goes by its own.
        """
        ids = (
            column
            if known is None
            else pa.chunked_array([*column.chunks, *known.ids(column.type)], column.type)
        )
        encoded = self._index.encode(ids)
        slots = self._index.find(encoded)
        state = gather(self._state, slots, len(self._horizons))
        blocks = Blocks(first_sequence, self._block_rows, self._block_decay)
        features = _empty_features(len(times), len(self._horizons), blocks.count(len(times)))
        rows = Rows(encoded.codes[: len(times)], times, amounts, logs)
        if forgotten is None:
            forgotten = np.full(len(features.populations), NEVER)
        if levels is None:
            levels = own_levels(len(features.populations))
        fold(blocks, rows, state, features, self._horizons, forgotten, levels.limits(self._horizons))
        population = population_of(features.populations, self._horizons, levels)
        labels = _label_events(encoded.codes[len(times) :], known)
        return Advance(features, population, encoded, slots, state, rows, labels, blocks, forgotten)

    def commit(self, advance: Advance) -> None:
        """Make the state that advance() worked out the current one."""
        placed = self._index.place(advance.encoded, advance.slots)
        self._reserve(len(self))
        scatter(advance.state, placed, self._state)
        self._state = self._state._replace(
            **{name: getattr(advance.state, name).copy() for name in KIND_PARTS}
        )

    def snapshot(self) -> ProfileSnapshot:
        """Return a copy that later commits leave alone."""
        known = len(self)
        state = _copied(self._state)
        entities = {name: getattr(state, name)[:known] for name in ENTITY_PARTS}
        return ProfileSnapshot(self._index.ids(), state._replace(**entities))

    def restore(self, snapshot: ProfileSnapshot) -> None:
        """Continue from a snapshot; the snapshot itself stays as it is."""
        self._index.restore(snapshot.ids)
        self._state = _copied(snapshot.state)

    def forget(self, until: int) -> None:
        """Give back the memory of entities of which nothing after `until`, in microseconds, is known.

        They are as if never seen already, so nothing else changes.
        """
        known = len(self)
        state = self._state._replace(**{name: getattr(self._state, name)[:known] for name in ENTITY_PARTS})
        alive = (state.clocks[:, 2] > 0) & (state.clocks[:, 0] > until)
        alive |= (state.strikes > 0.0) & (state.struck > until)
        alive |= (state.judged[:, 0] > 0.0) & (state.judged_at > until)
        if worth_packing(alive):
            self._index.restore(kept_ids(self._index.ids(), alive))
            self._state = state._replace(**{name: getattr(state, name)[alive] for name in ENTITY_PARTS})

    def _reserve(self, count: int) -> None:
        held = len(self._state.moments)
        if count > held:
            larger = _blank_state(max(count, 2 * held), len(self._horizons), self._state.frauds.shape[1])
            for name in ENTITY_PARTS:
                getattr(larger, name)[:held] = getattr(self._state, name)
            self._state = larger


def _label_events(codes: Codes, known: KnownLabels | None) -> LabelEvents:
    if known is None:
        none = np.zeros(0, np.int64)
        return LabelEvents(codes, none, np.zeros(0), np.zeros(0, np.bool_), none)
    return LabelEvents(codes, known.times, known.blames, known.firsts, known.positions)


def _copied(state: State) -> State:
    return State._make(part.copy() for part in state)


def _blank_state(entities: int, horizons: int, memories: int) -> State:
    return State(
        np.zeros((entities, horizons, MOMENTS)),
        np.zeros((entities, 3), np.int64),
        np.zeros(entities),
        np.zeros(entities, np.int64),
        np.zeros((entities, memories)),
        np.zeros((entities, memories)),
        np.zeros(entities, np.int64),
        np.zeros(2),
        np.full(1, np.iinfo(np.int64).min),
        np.zeros(POPULATION_WIDTH),
        np.zeros(POPULATION_WIDTH),
    )
