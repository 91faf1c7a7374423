"""What is known of entities: profiles and the detectors with memories of their own, in one pass.

advance() works on copies of what it touches, so an attempt that fails leaves everything as it was; commit()
makes the result current.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa

from schemas.event_columns import DIRECTION, REFERENCE_AMOUNT
from schemas.spec import AgentSpec
from streaming.arrays.arrow_arrays import Saved
from streaming.arrays.compilation import Flags, Floats, Ints
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
from streaming.detection.detectors import log_ratios, look, surprises
from streaming.detection.features import CALENDAR, EntityBatch, feature_columns, kind_feature_names
from streaming.detection.stateful import DetectorResult, Remembering
from streaming.detection.tails import Counts, TailFrequencies
from streaming.profiles.block_clock import BlockClock, Ticks
from streaming.profiles.currency_scales import InUnits, ScaleState
from streaming.profiles.decayed import Profiles, ProfileSnapshot
from streaming.profiles.directions import alike, entity_of, holds_refunds
from streaming.profiles.frame import Frame
from streaming.profiles.levels import Levels, LevelState
from streaming.profiles.met_currencies import MetState
from streaming.profiles.profile_kernels import NEVER

_STRIKING = np.array([6.0, 8.0, 7 * 86_400.0])
_ROWS_WORTH_THREADS = 4096
_LOOKS_PER_HORIZON = 8
# What their states are called in checkpoints: the level of payments, and that of refunds.
_LEVELS = ("level", "level-refunds")
_SCALES, _MET = "currencies", "met-currencies"

Argument = TypeVar("Argument")
Result = TypeVar("Result")


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
        findings: one per detector with a memory of its own; the multivariate one is last.
    """

    times: Ints
    log_amounts: Floats
    refunds: Flags | None
    units: InUnits | None
    reference: str
    several: Flags | None
    views: Mapping[str, EntityBatch]
    findings: tuple[DetectorResult, ...]
    ticks: Ticks
    levels: Mapping[str, LevelState]
    scales: ScaleState | None
    met: MetState | None

    def of_direction(self, kind: str) -> Flags | None:
        """Return which rows are of a kind's direction, bool[n]; None where none are known apart."""
        return None if self.refunds is None else self.refunds == holds_refunds(kind)

    @property
    def late(self) -> Flags:
        """bool[n], one of the row's entities has already had a later transaction."""
        late = np.zeros(len(self.times), np.bool_)
        for view in self.views.values():
            late |= view.advance.features.late
        return late


class EntityStates:
    """The states of all entities of a spec, and of the clocks and levels that they go by.

    One thread calls everything but what a snapshot holds.

    Args:
        spec: profiles and detectors are used.
        kinds: of entities, those of the contract that the spec chooses, and those of refunds after them.
    """

    def __init__(self, spec: AgentSpec, kinds: tuple[str, ...]) -> None:
        self._spec, self._kinds = spec, kinds
        self._refunds = any(map(holds_refunds, kinds))
        self.detectors = tuple(stateful_detectors(spec, kinds))
        self._memories = np.array([memory.total_seconds() for memory in spec.detectors.risk.memories])
        self._horizons, self._block_rows = horizons_of(spec), spec.profiles.block_rows
        self._multivariate = multivariate_detector(spec, self.feature_names)
        blocks = (self._block_rows, block_decay(spec))
        self._profiles = {name: Profiles(self._horizons, *blocks, len(self._memories)) for name in kinds}
        self._tails = {name: TailFrequencies(*blocks) for name in kinds}
        self._clock = BlockClock(self._block_rows, idle_horizon(spec))
        self._levels = {name: amount_level(spec) for name in _LEVELS[: 1 + self._refunds]}
        self._scales, self._reference = amount_scales(spec, refunds=self._refunds), reference_currency(spec)
        self._met = met_currencies(spec)
        self._forgotten = NEVER
        # No worker: the batch waits for every part and raises what it raised.
        self._threads = ThreadPoolExecutor(max(len(kinds), 1), thread_name_prefix="profiles")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name per feature that is known of a row's entities, before any of it is weighed."""
        memories = self._memories.tolist()
        kinds = (kind_feature_names(entity, self._horizons, memories) for entity in self._kinds)
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
        return {name: (len(each), each.nbytes) for name, each in self._profiles.items()}

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
        views = self._views(frame, [levels for levels, _ in moved.values()], rows_met)
        findings = tuple(self._findings(frame, list(views.values())))
        after = {name: state for name, (_, state) in moved.items()}
        shown = (frame.times, frame.log_amounts, frame.refunds, units, self._reference, several)
        return EntityStep(*shown, views, findings, ticks, after, scales, met)

    def commit(self, step: EntityStep) -> None:
        """Make the state that advance() worked out the current one."""
        for name, view in step.views.items():
            self._profiles[name].commit(view.advance)
            self._tails[name].counts = view.counts
        for detector, finding in zip(self._remembering, step.findings, strict=True):
            detector.commit(finding)
        self._clock.ticks = step.ticks
        for name, state in step.levels.items():
            self._levels[name].state = state
        if self._scales is not None and step.scales is not None:
            self._scales.state = step.scales
        if self._met is not None and step.met is not None:
            self._met.state = step.met
        self._forget()

    def each(
        self, work: Callable[[Argument], Result], arguments: Sequence[Argument], rows: int
    ) -> list[Result]:
        """Apply work to each argument, side by side where there are rows enough."""
        if rows < _ROWS_WORTH_THREADS:
            return [work(argument) for argument in arguments]
        return list(self._threads.map(work, arguments))

    def snapshots(self) -> tuple[dict[str, ProfileSnapshot], dict[str, Counts], dict[str, Saved]]:
        """Copy all state: profiles and tails by kind of entities, memories by name of their detector."""
        parts = self._threads.map(Profiles.snapshot, self._profiles.values())
        profiles = dict(zip(self._kinds, parts, strict=True))
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
        list(self._threads.map(Profiles.restore, self._profiles.values(), profiles.values()))
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

    def _views(self, frame: Frame, levels: Sequence[Levels], rows_met: int) -> dict[str, EntityBatch]:
        """Read the profiles of all kinds, those of peers first; `levels` are of payments, then of refunds."""
        peers = self._spec.profiles.peers
        first = [kind for kind in self._kinds if entity_of(kind) not in peers]
        looked = self.each(
            lambda kind: self._look(frame, levels[holds_refunds(kind)], kind, rows_met), first, len(frame)
        )
        views = dict(zip(first, looked, strict=True))
        for kind in (kind for kind in self._kinds if kind not in views):
            usual = np.exp(frame.log_amounts - views[alike(peers[entity_of(kind)], kind)].ratios)
            views[kind] = self._look(frame, levels[holds_refunds(kind)], kind, rows_met, usual)
        return {kind: views[kind] for kind in self._kinds}

    def _findings(self, frame: Frame, views: Sequence[EntityBatch]) -> list[DetectorResult]:
        found = self.each(lambda detector: detector.advance(frame), self.detectors, len(frame))
        if self._multivariate is None:
            return found
        columns = feature_columns(frame.times, frame.log_amounts, views, found)
        return [*found, self._multivariate.advance(columns, frame.first_sequence)]

    def _look(
        self, frame: Frame, levels: Levels, entity: str, rows_met: int, peers: Floats | None = None
    ) -> EntityBatch:
        place = (frame.first_sequence, self._block_rows)
        rows = (frame.ids(entity), frame.times, frame.amounts, frame.log_amounts, place[0])
        advance = self._profiles[entity].advance(*rows, frame.known(entity), frame.forgotten, levels)
        seen = look(advance.features, advance.population, frame.log_amounts, place, peers)
        ratios = log_ratios(seen)
        nats, counts = self._tails[entity].surprises(ratios, seen.counts[:, -1], rows_met)
        memory, judged = advance.recall(nats, _STRIKING), advance.judge(self._memories)
        return EntityBatch(advance, seen, ratios, nats, surprises(seen), memory, judged, counts)

    def _forget(self) -> None:
        """Give back memory now and then: it reads every entity."""
        until, horizon = self._clock.forgotten, idle_horizon(self._spec) or 0
        if until > self._forgotten + horizon // _LOOKS_PER_HORIZON:
            for profiles in self._profiles.values():
                profiles.forget(until)
            for detector in self.detectors:
                detector.forget(until)
            self._forgotten = until
