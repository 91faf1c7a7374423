"""What is remembered about each entity of one kind, and about that kind as a whole.

An entity's profile holds, per horizon tau, the count n of its transactions and the sums of their amounts,
log-amounts and squared log-amounts, each weighed by exp(-age / tau); at a steady rate n is the number of
transactions in one horizon. With four horizons and three memories it takes 224 bytes, beside the id. Features
of a row are taken from the profile as it stood just before that row. Statistics of a whole kind move forward
only where `sequence` is a multiple of `block_rows`, so nothing depends on how a stream was cut into batches.

A batch is worked out in two steps. The entity half moves entities past their own rows, shared out among the
cores: what one entity shows rests on nothing of another one. The population pass then moves the kind as a
whole past all rows, in `sequence` order, and reads nothing but what the entity half has found of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from streaming.arrays.arrow_arrays import kept_ids, worth_packing
from streaming.arrays.compilation import Floats, Ints, read_only
from streaming.arrays.cores import ALL_CORES, Cores
from streaming.arrays.entity_index import EncodedColumn, EntityIndex
from streaming.profiles.entity_half import (
    EntityHalf,
    KnownLabels,
    ProfileSnapshot,
    SentRows,
    blank_features,
    empty_features,
    label_events,
)
from streaming.profiles.entity_kernels import Share, fold_entities, judge, shares_of
from streaming.profiles.levels import Levels, own_levels
from streaming.profiles.population import PopulationPass, population_of
from streaming.profiles.population_kernels import fold_by_turns, fold_population
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
    gather,
    scatter,
)

_DAY = 86_400.0


class Profiles:
    """All profiles of one kind of entities.

    Args:
        horizons: ascending, in seconds.
        block_rows: rows per block.
        block_decay: what one block leaves of the population statistics before it.
        memories: time constants over which labels fade, in seconds.
        cores: among which entities are shared out.
    """

    def __init__(
        self,
        horizons: Sequence[float],
        block_rows: int,
        block_decay: float,
        memories: Sequence[float] = (_DAY,),
        cores: Cores = ALL_CORES,
    ) -> None:
        self._horizons = np.array(horizons, dtype=np.float64)
        self._memories = np.array(memories, dtype=np.float64)
        self._block_rows, self._block_decay, self._cores = block_rows, block_decay, cores
        self._index = EntityIndex(cores=cores)
        self._state = _blank_state(0, len(horizons), len(memories))

    def __len__(self) -> int:
        """Return the number of entities seen so far."""
        return len(self._index)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the profiles take, room for more included, ids and their index left out."""
        return sum(part.nbytes for part in self._state)

    def entity_half(
        self,
        column: pa.ChunkedArray,
        times: Ints,
        amounts: Floats,
        logs: Floats,
        first_sequence: int,
        known: KnownLabels | None = None,
        forgotten: Ints | None = None,
        levels: Levels | None = None,
        sent: SentRows | None = None,
    ) -> EntityHalf:
        """Work out what one batch shows of its entities, leaving the profiles as they are.

        Args:
            column: entity id of each row.
            times: int64[n], event time in microseconds since 1970, read-only.
            amounts: float64[n], read-only.
            logs: float64[n] from log_amounts.
            first_sequence: `sequence` of the batch's first row.
            known: labels that become known from here on; rows see those at or before their own position.
            forgotten: int64[blocks], microseconds; entities not seen after it are as if never seen. By
                default nobody is forgotten.
            levels: of all amounts, for the blocks of the batch; by default the kind goes by its own.
            sent: which of the batch's rows these are; all of them by default. Some are enough where they are
                all rows of their entities, and `levels` are given.

        Raises:
            ValueError: some rows are sent without levels, which would be those of these rows alone.
        """
        if sent is not None and levels is None:
            raise ValueError("some rows of a batch say nothing of its level: levels are needed")
        ids = (
            column
            if known is None
            else pa.chunked_array([*column.chunks, *known.ids(column.type)], column.type)
        )
        encoded = self._index.encode(ids)
        slots = self._index.find(encoded)
        sent = SentRows.all_of(first_sequence, len(times)) if sent is None else sent
        blocks = Blocks(first_sequence, self._block_rows, self._block_decay)
        count, codes = blocks.count(sent.batch), encoded.codes[: len(times)]
        half = EntityHalf(
            features=empty_features(len(times), len(self._horizons)),
            judged=np.empty((len(times), 1 + 2 * len(self._memories))),
            rows=Rows(sent.sequences, codes, times, amounts, logs),
            blocks=blocks,
            encoded=encoded,
            slots=slots,
            state=self._gathered(slots),
            forgotten=np.full(count, NEVER) if forgotten is None else forgotten,
            shares=shares_of(codes, len(self._cores.spans(len(times)))),
            _cores=self._cores,
        )
        self._fold(half, own_levels(count) if levels is None else levels)
        last = first_sequence + sent.batch - 1 if sent.batch else NEVER
        self._judge(half, label_events(encoded.codes[len(times) :], known), last)
        return half

    def population_pass(
        self, features: Features, logs: Floats, first_sequence: int, levels: Levels | None = None
    ) -> PopulationPass:
        """Work out what all rows of a batch say of the kind as a whole, leaving it as it is.

        Args:
            features: what the entity half has found, of all rows in `sequence` order.
            logs, first_sequence, levels: see entity_half.
        """
        blocks = Blocks(first_sequence, self._block_rows, self._block_decay)
        populations = np.empty((blocks.count(len(logs)), POPULATION_WIDTH))
        levels = own_levels(len(populations)) if levels is None else levels
        settled, pending = self._state.population.copy(), self._state.pending.copy()
        limits = levels.limits(self._horizons)
        fold_population(blocks, logs, features, limits, settled, pending, populations)
        return PopulationPass(population_of(populations, self._horizons, levels), settled, pending)

    def commit(self, half: EntityHalf, whole: PopulationPass) -> None:
        """Make the state that both steps of a batch lead to the current one."""
        self.commit_entities(half)
        self.commit_kind(half, whole)

    def commit_entities(self, half: EntityHalf) -> None:
        """Make what the entity half leads to the current state: of entities, and of all labels."""
        placed = self._index.place(half.encoded, half.slots)
        self._reserve(len(self))

        def put(span: slice) -> None:
            scatter(_entities(half.state, span), placed[span], self._state)

        self._cores.over(put, len(placed))
        self._know(half)

    def commit_kind(self, half: EntityHalf, whole: PopulationPass) -> None:
        """Make what all labels and all rows lead to the current state; entities stay as they are."""
        self._know(half)
        self._state = self._state._replace(population=whole.settled.copy(), pending=whole.pending.copy())

    def snapshot(self) -> ProfileSnapshot:
        """Return a copy that later commits leave alone."""
        known = len(self)
        state = _copied(self._state)
        return ProfileSnapshot(self._index.ids(), _entities(state, slice(known)))

    def restore(self, snapshot: ProfileSnapshot) -> None:
        """Continue from a snapshot; the snapshot itself stays as it is."""
        self._index.restore(snapshot.ids)
        self._state = _copied(snapshot.state)

    def forget(self, until: int) -> None:
        """Give back the memory of entities of which nothing after `until`, in microseconds, is known.

        They are as if never seen already, so nothing else changes.
        """
        known = len(self)
        state = _entities(self._state, slice(known))
        alive = (state.clocks[:, 2] > 0) & (state.clocks[:, 0] > until)
        alive |= (state.strikes > 0.0) & (state.struck > until)
        alive |= (state.judged[:, 0] > 0.0) & (state.judged_at > until)
        if worth_packing(alive):
            self._index.restore(kept_ids(self._index.ids(), alive))
            self._state = state._replace(**{name: getattr(state, name)[alive] for name in ENTITY_PARTS})

    def released(self) -> ProfileSnapshot:
        """Return all that is held and keep what is known of the kind as a whole alone."""
        known = len(self)
        held, blank = self._state, _blank_state(0, len(self._horizons), len(self._memories))
        found = ProfileSnapshot(self._index.ids(), _entities(held, slice(known)))
        self._index = EntityIndex(cores=self._cores)
        self._state = blank._replace(**{name: getattr(held, name).copy() for name in KIND_PARTS})
        return found

    def half_elsewhere(
        self,
        column: EncodedColumn,
        rows: tuple[Ints, Floats, Floats],
        first_sequence: int,
        known: KnownLabels | None,
        forgotten: Ints,
    ) -> EntityHalf:
        """Return the half of a whole batch that is worked out elsewhere, to be filled in.

        Features, `judged` and `strikes` are those of rows without an entity until then. What is known of all
        labels has moved on.

        Args:
            column: entity of each row.
            rows: times, amounts and log-amounts; see entity_half for these and the rest.
        """
        sequences = np.arange(first_sequence, first_sequence + len(column.codes))
        blank = _blank_state(0, len(self._horizons), len(self._memories))
        entities = len(column.hashes)
        known_of_all = {name: getattr(self._state, name).copy() for name in KIND_PARTS}
        struck: dict[str, Any] = {"strikes": np.zeros(entities), "struck": np.zeros(entities, np.int64)}
        half = EntityHalf(
            features=blank_features(len(sequences), len(self._horizons)),
            judged=np.zeros((len(sequences), 1 + 2 * len(self._memories))),
            rows=Rows(sequences, column.codes, *rows),
            blocks=Blocks(first_sequence, self._block_rows, self._block_decay),
            encoded=column,
            slots=np.full(entities, -1),
            state=blank._replace(**struck, **known_of_all),
            forgotten=forgotten,
            shares=shares_of(column.codes, len(self._cores.spans(len(sequences)))),
            _cores=self._cores,
        )
        self._know_labels(half, known, first_sequence + len(sequences) - 1 if len(sequences) else NEVER)
        return half

    def _know_labels(self, half: EntityHalf, known: KnownLabels | None, last: int) -> None:
        """Move what is known of all labels past a batch, without a row and an entity of it."""
        nobody = np.full(0 if known is None else len(known.times), -1, np.int32)
        none = np.zeros(0, np.int64)
        rows = half.rows._replace(sequences=none, codes=read_only(nobody[:0]))
        events = label_events(read_only(nobody), known)
        found = np.empty((0, half.judged.shape[1]))
        share = Share(none, 0, 1)
        judge(share, half.blocks, rows, events, half.state, self._memories, found, half.forgotten, last)

    def _know(self, half: EntityHalf) -> None:
        labels, frontier = half.state.labels.copy(), half.state.frontier.copy()
        self._state = self._state._replace(labels=labels, frontier=frontier)

    def _gathered(self, slots: Ints) -> State:
        copies = _blank_state(len(slots), len(self._horizons), len(self._memories))
        self._cores.over(lambda span: gather(self._state, slots[span], _entities(copies, span)), len(slots))
        return copies._replace(**{name: getattr(self._state, name).copy() for name in KIND_PARTS})

    def _fold(self, half: EntityHalf, levels: Levels) -> None:
        """Fill in the features; the kind moves on as well where a mean of its own has to stand in for one."""
        blocks, rows, state, features = half.blocks, half.rows, half.state, half.features
        limits, forgotten = levels.limits(self._horizons), half.forgotten
        if np.isnan(levels.means).any() and (np.isnan(rows.log_amounts) & (rows.codes >= 0)).any():
            fold_by_turns(blocks, rows, state, features, self._horizons, forgotten, limits)
            return

        def work(share: Share) -> None:
            arguments = (blocks, rows, state, features, self._horizons, forgotten)
            fold_entities(share.places, *arguments, limits.standins)

        self._cores.each(work, half.shares, len(rows.codes))

    def _judge(self, half: EntityHalf, known: LabelEvents, last: int) -> None:

        def work(share: Share) -> State:
            state = _own_labels(half.state)
            arguments = (half.blocks, half.rows, known, state, self._memories, half.judged)
            judge(share, *arguments, half.forgotten, last)
            return state

        moved = self._cores.each(work, half.shares, len(half.rows.codes))[0]
        half.state.labels[:], half.state.frontier[:] = moved.labels, moved.frontier

    def _reserve(self, count: int) -> None:
        held = len(self._state.moments)
        if count > held:
            larger = _blank_state(max(count, 2 * held), len(self._horizons), self._state.frauds.shape[1])
            for name in ENTITY_PARTS:
                getattr(larger, name)[:held] = getattr(self._state, name)
            self._state = larger


def _entities(state: State, span: slice) -> State:
    return state._replace(**{name: getattr(state, name)[span] for name in ENTITY_PARTS})


def _own_labels(state: State) -> State:
    return state._replace(labels=state.labels.copy(), frontier=state.frontier.copy())


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
