"""What is known of entities: profiles and the detectors with memories of their own, in two steps.

What each entity shows by itself is worked out first, for all kinds and detectors side by side: the entity
halves. The population passes then say how unusual that is among all entities of a kind.

advance() works on copies of what it touches, so an attempt that fails leaves everything as it was; commit()
makes the result current.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import call

import numpy as np
import pyarrow as pa

from schemas.event_columns import DIRECTION, REFERENCE_AMOUNT
from schemas.spec import AgentSpec
from streaming.arrays.arrow_arrays import Saved
from streaming.arrays.compilation import Flags, Floats, Ints
from streaming.arrays.cores import Cores
from streaming.detection.definition import (
    amount_level,
    amount_scales,
    block_decay,
    horizons_of,
    idle_horizon,
    met_currencies,
    multivariate_detector,
    reference_currency,
    stateful_detectors,
)
from streaming.detection.detectors import detector_input, log_ratios, surprises
from streaming.detection.entity_halves import EntityHalves
from streaming.detection.features import CALENDAR, EntityBatch, feature_columns, kind_feature_names
from streaming.detection.stateful import DetectorResult, Remembering
from streaming.detection.tails import Counts, TailFrequencies
from streaming.profiles.block_clock import BlockClock, Ticks
from streaming.profiles.bucket import BucketShape
from streaming.profiles.bucket_rows import AwayHalf
from streaming.profiles.currency_scales import InUnits, ScaleState
from streaming.profiles.decayed import Profiles
from streaming.profiles.directions import alike, entity_of, holds_refunds
from streaming.profiles.entity_buckets import BucketPlace
from streaming.profiles.entity_half import EntityHalf, ProfileSnapshot
from streaming.profiles.frame import Frame
from streaming.profiles.levels import Levels, LevelState
from streaming.profiles.met_currencies import MetState
from streaming.profiles.profile_kernels import NEVER

_STRIKING = np.array([6.0, 8.0, 7 * 86_400.0])
_CHECKS_PER_HORIZON = 8
# What their states are called in checkpoints: the level of payments, and that of refunds.
_LEVELS = ("level", "level-refunds")
_SCALES, _MET = "currencies", "met-currencies"


@dataclass(frozen=True)
class EntityStep:
    """What one batch shows of its entities, and the state that committing it leads to.

    Attributes:
        times, log_amounts: int64[n] and float64[n], of the rows.
        refunds: bool[n], which rows are refunds; None where none are known apart.
        units: what one unit of the log-amounts is in the row's currency; None where they are in that
            currency itself.
        reference: the currency that the log-amounts are in, empty where they are in no common one.
        several: bool[n], which amounts are compared as they stand with those of other currencies; None where
            that is not known.
        views: what the profiles of each kind of entities show, in the spec's order.
        results: one per detector with a memory of its own; the multivariate one is last.
        away: how the rows of each kind were shared out to buckets, None where they were not.
    """

    times: Ints
    log_amounts: Floats
    refunds: Flags | None
    units: InUnits | None
    reference: str
    several: Flags | None
    views: Mapping[str, EntityBatch]
    results: tuple[DetectorResult, ...]
    ticks: Ticks
    levels: Mapping[str, LevelState]
    scales: ScaleState | None
    met: MetState | None
    away: Mapping[str, AwayHalf] | None

    def of_direction(self, kind: str) -> Flags | None:
        """Return which rows are of a kind's direction, bool[n]; None where none are known apart."""
        return None if self.refunds is None else self.refunds == holds_refunds(kind)

    @property
    def late(self) -> Flags:
        """bool[n], one of the row's entities has already had a later transaction."""
        late = np.zeros(len(self.times), np.bool_)
        for view in self.views.values():
            late |= view.half.features.late
        return late


class EntityStates:
    """The states of all entities of a spec, and of the clocks and levels that they go by.

    One thread calls everything but what a snapshot holds.

    Args:
        spec: profiles and detectors are used.
        kinds: of entities, those of the contract that the spec chooses, and those of refunds after them.
        cores: among which kinds, entities and rows are shared out.
    """

    def __init__(self, spec: AgentSpec, kinds: tuple[str, ...], cores: Cores) -> None:
        self._spec, self._kinds, self._cores = spec, kinds, cores
        self._refunds = any(map(holds_refunds, kinds))
        self.detectors = tuple(stateful_detectors(spec, kinds))
        self._memories = [memory.total_seconds() for memory in spec.detectors.risk.memories]
        self._horizons, self._block_rows = horizons_of(spec), spec.profiles.block_rows
        self._multivariate = multivariate_detector(spec, self.feature_names)
        blocks = (self._block_rows, block_decay(spec))
        self._profiles = {name: Profiles(self._horizons, *blocks, self._memories, cores) for name in kinds}
        self._halves = EntityHalves(self._profiles, cores)
        self._tails = {name: TailFrequencies(*blocks) for name in kinds}
        self._clock = BlockClock(self._block_rows, idle_horizon(spec))
        self._levels = {name: amount_level(spec) for name in _LEVELS[: 1 + self._refunds]}
        self._scales, self._reference = amount_scales(spec, refunds=self._refunds), reference_currency(spec)
        self._met = met_currencies(spec)
        self._forgotten = NEVER

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name per feature that is known of a row's entities, before any of it is weighed."""
        kinds = (kind_feature_names(entity, self._horizons, self._memories) for entity in self._kinds)
        beside = (name for detector in self.detectors for name in detector.feature_names)
        return (*CALENDAR, *(name for names in kinds for name in names), *beside)

    @property
    def columns(self) -> tuple[str, ...]:
        """The transactions' columns that are read besides entities, amount, currency and event_time."""
        beside = (name for detector in self.detectors for name in detector.columns)
        own = {DIRECTION: self._refunds, REFERENCE_AMOUNT: bool(self._reference)}
        return tuple(dict.fromkeys((*(name for name, read in own.items() if read), *beside)))

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return how many profiles there are of each kind of entities, and their bytes of memory."""
        return self._halves.sizes

    def hold_in(self, place: BucketPlace) -> None:
        """Have entities held in buckets elsewhere, from the next begin_away() on."""
        blocks = (self._block_rows, block_decay(self._spec))
        shape = BucketShape(tuple(self._horizons), *blocks, tuple(self._memories), _STRIKING)
        self._halves.hold_in(place, shape)

    def begin_away(self) -> None:
        """Hand entities over to buckets, where there are any that do not hold them yet."""
        self._halves.begin_away()

    def advance(
        self, transactions: pa.Table, labels: pa.Table | None, first_sequence: int, rows_met: int
    ) -> EntityStep:
        """Work out what a batch shows of its entities, leaving all state as it is.

        Args:
            transactions, labels: see Scorer.score.
            first_sequence: `sequence` of the first row.
            rows_met: how many rows came before it.
        """
        pairs = self._spec.profiles.pair_names
        rows = (transactions, labels, first_sequence, pairs, self._clock)
        frame, ticks = Frame.of(*rows, refunds=self._refunds)
        units, scales = None, None
        if self._scales is not None:
            units, scales = self._scales.advance(transactions, frame.amounts, frame.log_amounts)
            frame = frame.in_units(units)
        several, met = (None, None) if self._met is None else self._met.advance(transactions)
        moved = {
            name: level.advance(frame.logs_of(refunds=name == _LEVELS[1]), first_sequence)
            for name, level in self._levels.items()
        }
        levels = {kind: moved[_LEVELS[holds_refunds(kind)]][0] for kind in self._kinds}
        beside = [partial(each.advance, frame) for each in self.detectors]
        found = self._halves.work_out(frame, levels, beside)
        views, results = self._population_passes(frame, levels, found.halves, rows_met), found.beside
        results += self._joint(frame, list(views.values()), results)
        after = {name: state for name, (_, state) in moved.items()}
        shown = (frame.times, frame.log_amounts, frame.refunds, units, self._reference, several)
        return EntityStep(*shown, views, results, ticks, after, scales, met, found.away)

    def commit(self, step: EntityStep) -> None:
        """Make the state that advance() worked out the current one."""
        profiles = self._halves.commits(step.views, step.away)
        beside = zip(self._remembering, step.results, strict=True)
        work: list[Callable[[], object]] = [
            *profiles,
            *(partial(detector.commit, result) for detector, result in beside),
        ]
        self._cores.each(call, work, len(step.times))
        for name, view in step.views.items():
            self._tails[name].counts = view.counts
        self._clock.ticks = step.ticks
        for name, state in step.levels.items():
            self._levels[name].state = state
        if self._scales is not None and step.scales is not None:
            self._scales.state = step.scales
        if self._met is not None and step.met is not None:
            self._met.state = step.met
        self._forget()

    def snapshots(self) -> tuple[dict[str, ProfileSnapshot], dict[str, Counts], dict[str, Saved]]:
        """Copy all state: profiles and tails by kind of entities, memories by name of their detector."""
        profiles = self._halves.snapshots()
        tails = {name: Counts(*(part.copy() for part in each.counts)) for name, each in self._tails.items()}
        detectors = {detector.name: detector.snapshot() for detector in self._remembering}
        detectors["clock"] = self._clock.snapshot()
        detectors |= {name: level.snapshot() for name, level in self._levels.items()}
        named = {_SCALES: self._scales, _MET: self._met}
        detectors |= {name: each.snapshot() for name, each in named.items() if each is not None}
        return profiles, tails, detectors

    def restore(
        self,
        profiles: Mapping[str, ProfileSnapshot],
        tails: Mapping[str, Counts],
        detectors: Mapping[str, Saved],
    ) -> None:
        """Continue from snapshots, which stay as they are."""
        self._halves.restore(profiles)
        for name, each in self._tails.items():
            each.counts = Counts(*(np.array(part) for part in tails[name]))
        for detector in self._remembering:
            detector.restore(detectors[detector.name])
        self._clock.restore(detectors["clock"])
        for name, level in self._levels.items():
            level.restore(detectors.get(name, {}))
        if self._scales is not None:
            self._scales.restore(detectors[_SCALES])
        if self._met is not None:
            self._met.restore(detectors[_MET])

    @property
    def _remembering(self) -> tuple[Remembering, ...]:
        return self.detectors if self._multivariate is None else (*self.detectors, self._multivariate)

    def _population_passes(
        self, frame: Frame, levels: Mapping[str, Levels], halves: Mapping[str, EntityHalf], rows_met: int
    ) -> dict[str, EntityBatch]:
        """Say how unusual the rows are among all entities of each kind, those of peers first."""
        peers = self._spec.profiles.peers
        first = [kind for kind in self._kinds if entity_of(kind) not in peers]
        alone = [
            partial(self._population_pass, frame, levels[kind], kind, halves[kind], rows_met)
            for kind in first
        ]
        views = dict(zip(first, self._cores.each(call, alone, len(frame)), strict=True))
        for kind in (kind for kind in self._kinds if kind not in views):
            usual = np.exp(frame.log_amounts - views[alike(peers[entity_of(kind)], kind)].ratios)
            views[kind] = self._population_pass(frame, levels[kind], kind, halves[kind], rows_met, usual)
        return {kind: views[kind] for kind in self._kinds}

    def _population_pass(
        self,
        frame: Frame,
        levels: Levels,
        kind: str,
        half: EntityHalf,
        rows_met: int,
        peers: Floats | None = None,
    ) -> EntityBatch:
        place, logs = (frame.first_sequence, self._block_rows), frame.log_amounts
        whole = self._profiles[kind].population_pass(half.features, logs, frame.first_sequence, levels)
        seen = detector_input(half.features, whole.population, logs, place, peers)
        ratios = log_ratios(seen, self._cores)
        nats, counts = self._tails[kind].surprises(ratios, seen.counts[:, -1], rows_met)
        memory = half.recall(nats, _STRIKING)
        return EntityBatch(half, whole, seen, ratios, nats, surprises(seen, self._cores), memory, counts)

    def _joint(
        self, frame: Frame, views: Sequence[EntityBatch], results: Sequence[DetectorResult]
    ) -> tuple[DetectorResult, ...]:
        """Return what the multivariate detector finds in all features together, where it is switched on."""
        if self._multivariate is None:
            return ()
        columns = feature_columns(frame.times, frame.log_amounts, views, results)
        return (self._multivariate.advance(columns, frame.first_sequence),)

    def _forget(self) -> None:
        """Give back memory now and then: it reads every entity."""
        until, horizon = self._clock.forgotten, idle_horizon(self._spec) or 0
        if until > self._forgotten + horizon // _CHECKS_PER_HORIZON:
            self._halves.forget(until)
            for detector in self.detectors:
                detector.forget(until)
            self._forgotten = until
