"""Scores transactions: profiles, detectors and calibration in one pass over a batch.

score() works on copies of what it touches, so an attempt that fails leaves everything as it was; commit()
makes the result current. The same rows in the same order give the same bits however they are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from schemas.contract import EventContract
from schemas.errors import ConfigurationError, DataLossError, nearest
from schemas.spec import AgentSpec
from streaming.arrays.compilation import Flags, Floats
from streaming.detection import checkpoints
from streaming.detection.alert_budget import AlertBudget, StreamRate
from streaming.detection.calibration import Calibration, TotalsHistogram
from streaming.detection.checkpoints import ScorerSnapshot, Skipped
from streaming.detection.combination import total_of
from streaming.detection.definition import (
    amount_level,
    block_decay,
    chosen_entities,
    definition_hash,
    horizons_of,
    idle_horizon,
    multivariate_detector,
    stateful_detectors,
)
from streaming.detection.detectors import log_ratios, look, population_log_ratios, surprises
from streaming.detection.features import (
    CALENDAR,
    EVIDENCE,
    EntityBatch,
    feature_columns,
    features_of,
    kind_feature_names,
)
from streaming.detection.model import SupervisedModel
from streaming.detection.scored import ScoredBatch
from streaming.detection.stateful import DetectorResult, Remembering
from streaming.detection.tails import Counts, TailFrequencies
from streaming.detection.weighing import POPULATION, Weighing
from streaming.profiles.block_clock import BlockClock
from streaming.profiles.decayed import Profiles
from streaming.profiles.frame import Frame, numbers
from streaming.profiles.levels import Levels
from streaming.profiles.profile_kernels import NEVER

_STRIKING = np.array([6.0, 8.0, 7 * 86_400.0])
_ROWS_WORTH_THREADS = 4096
_LOOKS_PER_HORIZON = 8
_OF_A_PAYMENT = ["amount", "currency", "event_time"]

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Scorer:
    """All state that scores depend on: profiles per kind of entities, populations, calibration.

    One thread calls score, commit, fold, snapshot and restore; a snapshot may be written by another.

    Args:
        spec: profiles and detectors are used; threshold, rules and LLM do not matter here.
        entities: the contract's entity columns; `spec.profiles.entities` chooses among them.
        model: says how the features add up to a score, in place of the detectors' plain sum.

    Raises:
        ConfigurationError: the spec names an entity that the contract lacks, or the model reads others.
    """

    def __init__(
        self, spec: AgentSpec, entities: tuple[str, ...], model: SupervisedModel | None = None
    ) -> None:
        self._spec, self._model = spec, model
        self._given = entities
        self._entities = chosen_entities(spec, entities)
        self._detectors = tuple(stateful_detectors(spec, self._entities))
        read = () if model is None else model.feature_names
        self._weighing = Weighing(spec, self._entities, self._detectors, read)
        self._memories = np.array([memory.total_seconds() for memory in spec.detectors.risk.memories])
        self._horizons, self._block_rows = horizons_of(spec), spec.profiles.block_rows
        self._multivariate = multivariate_detector(spec, self.feature_names[:-1])
        blocks = (self._block_rows, block_decay(spec))
        self._profiles = {
            name: Profiles(self._horizons, *blocks, len(self._memories)) for name in self._entities
        }
        self._tails = {name: TailFrequencies(*blocks) for name in (*self._entities, POPULATION)}
        self._calibration = Calibration(len(self.reason_names), *blocks)
        self._clock = BlockClock(self._block_rows, idle_horizon(spec))
        self._level = amount_level(spec)
        self._forgotten = NEVER
        self._budget = AlertBudget(spec.alerts_per_day or 0.0, self._block_rows)
        self._next_sequence = self._begun = 0
        if model is not None and model.feature_names != self.feature_names:
            raise ConfigurationError("the model was trained on the features of other profiles", key="model")
        self.definition_hash = definition_hash(spec, self._entities, model)
        # No worker: the batch waits for every part and raises what it raised.
        self._threads = ThreadPoolExecutor(max(len(self._entities), 1), thread_name_prefix="profiles")

    @classmethod
    def under(cls, spec: AgentSpec, contract: EventContract, model: SupervisedModel | None = None) -> Scorer:
        """Return a scorer of the contract's transactions.

        Raises:
            ConfigurationError: see the class; or a detector reads a column that is no number there.
        """
        scorer, schema = cls(spec, contract.entity_names, model), contract.arrow_schema()
        known = [
            each.name for each in schema if pa.types.is_floating(each.type) or pa.types.is_integer(each.type)
        ]
        for name in scorer.columns:
            if name not in known:
                problem = f"no column {name!r} of numbers in the contract; {nearest(name, known)}"
                raise ConfigurationError(problem, key="detectors")
        return scorer

    @property
    def next_sequence(self) -> int:
        """`sequence` of the next row to be scored."""
        return self._next_sequence

    @property
    def reason_names(self) -> tuple[str, ...]:
        """`detector.entity` per column of contributions."""
        return self._weighing.reason_names

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name per column of ScoredBatch.features."""
        memories = self._memories.tolist()
        kinds = (kind_feature_names(entity, self._horizons, memories) for entity in self._entities)
        beside = (name for detector in self._detectors for name in detector.feature_names)
        return (*CALENDAR, *(name for names in kinds for name in names), *beside, EVIDENCE)

    @property
    def _remembering(self) -> tuple[Remembering, ...]:
        return self._detectors if self._multivariate is None else (*self._detectors, self._multivariate)

    @property
    def columns(self) -> tuple[str, ...]:
        """The transactions' columns that are read besides entities, amount, currency and event_time."""
        return tuple(dict.fromkeys(name for detector in self._detectors for name in detector.columns))

    def score(self, transactions: pa.Table, labels: pa.Table | None = None) -> ScoredBatch:
        """Score rows that follow the last committed ones, leaving all state as it is.

        Args:
            transactions: rows in `sequence` order with sequence, event_time, amount, currency and the
                entity columns; others are ignored.
            labels: what became known of earlier transactions, by ascending `position` (`sequence` of the
                first row that knows it), with the columns of streaming.labels.entity_labels.

        Raises:
            DataLossError: the rows are not those from next_sequence on, without a gap.
        """
        return self._score(transactions, labels, explain=True)

    def commit(self, scored: ScoredBatch) -> None:
        """Make the state after `scored` the current one.

        Raises:
            DataLossError: `scored` does not start at next_sequence, so it was scored from another state.
        """
        if scored.first_sequence != self._next_sequence:
            raise DataLossError(
                f"scored from sequence {scored.first_sequence}, but {self._next_sequence} is next"
            )
        for profiles, view in zip(self._profiles.values(), scored._views, strict=True):
            profiles.commit(view.advance)
        for detector, finding in zip(self._remembering, scored._findings, strict=True):
            detector.commit(finding)
        for name, counts in scored._tails.items():
            self._tails[name].counts = counts
        self._calibration.histogram = scored._histogram
        self._budget.pace = scored._pace
        self._clock.ticks = scored._ticks
        self._level.state = scored._level
        self._next_sequence += len(scored)
        self._forget()

    def fold(self, transactions: pa.Table, labels: pa.Table | None = None) -> None:
        """Advance all state past rows that need no scores any more, as recovery does; see score()."""
        self.commit(self._score(transactions, labels, explain=False))

    def adopt(self, spec: AgentSpec) -> None:
        """Go on under the threshold or budget of another spec, which defines scores alike.

        Raises:
            DataLossError: it defines them otherwise.
        """
        if definition_hash(spec, self._entities, self._model) != self.definition_hash:
            raise DataLossError("the state belongs to another profile definition")
        pace, self._spec = self._budget.pace, spec
        self._budget = AlertBudget(spec.alerts_per_day or 0.0, self._block_rows)
        self._budget.pace = pace

    def snapshot(self) -> ScorerSnapshot:
        """Copy the whole state; the copy may be written by another thread (checkpoints.write)."""
        parts = self._threads.map(Profiles.snapshot, self._profiles.values())
        profiles = dict(zip(self._entities, parts, strict=True))
        histogram = TotalsHistogram(*(part.copy() for part in self._calibration.histogram))
        tails = {name: Counts(*(part.copy() for part in each.counts)) for name, each in self._tails.items()}
        pace = StreamRate._make(part.copy() for part in self._budget.pace)
        detectors = {detector.name: detector.snapshot() for detector in self._remembering}
        detectors["clock"], detectors["level"] = self._clock.snapshot(), self._level.snapshot()
        sequence, definition = self._next_sequence, self.definition_hash
        return ScorerSnapshot(sequence, definition, profiles, histogram, tails, pace, detectors)

    def restore(self, snapshot: ScorerSnapshot) -> None:
        """Continue from a snapshot.

        Raises:
            DataLossError: it was made under another profile definition.
        """
        if snapshot.definition_hash != self.definition_hash:
            raise DataLossError("the snapshot was made under another profile definition")
        list(self._threads.map(Profiles.restore, self._profiles.values(), snapshot.profiles.values()))
        for detector in self._remembering:
            detector.restore(snapshot.detectors[detector.name])
        self._clock.restore(snapshot.detectors["clock"])
        self._level.restore(snapshot.detectors.get("level", {}))
        self._calibration.histogram = TotalsHistogram(*(np.array(part) for part in snapshot.histogram))
        self._budget.pace = StreamRate._make(np.array(part) for part in snapshot.pace)
        for name, counts in snapshot.tails.items():
            self._tails[name].counts = Counts(*(np.array(part) for part in counts))
        self._next_sequence = snapshot.next_sequence

    def begin(self, sequence: int) -> None:
        """Continue at a later row than the first one, knowing nothing of those before it.

        Args:
            sequence: a multiple of the block's rows.

        Raises:
            DataLossError: rows were committed already.
        """
        if self._next_sequence or sequence % self._block_rows:
            raise DataLossError(f"cannot begin at sequence {sequence} after {self._next_sequence} rows")
        self._next_sequence = self._begun = sequence

    @property
    def _rows_met(self) -> int:
        """Rows since the first one met: the first block's say nothing about later ones."""
        return self._next_sequence - self._begun

    def save(self, folder: Path) -> Path:
        """Write a checkpoint below `folder`; returns its path."""
        return checkpoints.write(self.snapshot(), folder)

    def load(self, folder: Path, *, through: int | None = None) -> tuple[Skipped, ...]:
        """Continue from the newest usable checkpoint below `folder`; without one nothing changes.

        Args:
            folder: where save() wrote.
            through: pass over checkpoints whose next_sequence is later than this.

        Returns:
            The checkpoints that were found unusable, newest first, with the reason.
        """
        found = checkpoints.newest(folder, self.definition_hash, through=through)
        if found.snapshot is not None:
            self.restore(found.snapshot)
        return found.skipped

    def warm_up(self) -> None:
        """Compile all compiled code, or load it from the disk cache, on a tiny scorer like this one."""
        _warm_up(self._spec, self._given)

    def _score(self, transactions: pa.Table, labels: pa.Table | None, *, explain: bool) -> ScoredBatch:
        self._check_sequence(transactions["sequence"])
        pairs = self._spec.profiles.pair_names
        frame, ticks = Frame.of(transactions, labels, self._next_sequence, pairs, self._clock)
        levels, level = self._level.advance(frame.log_amounts, self._next_sequence)
        views = self._views(frame, levels)
        findings = self._findings(frame, views)
        found, tails = self._weigh(views, findings, len(frame))
        thresholds, pace = self._budget.thresholds(frame.times, self._next_sequence)
        if self._spec.alerts_per_day is None:
            thresholds = np.full(len(frame), self._spec.threshold)
        totals = self._totals(views, findings, found)
        calibrated = self._calibration.calibrate(totals, self._rows_met)
        return ScoredBatch(
            first_sequence=self._next_sequence,
            score=calibrated.scores,
            threshold=thresholds,
            log_odds=calibrated.log_odds,
            base=calibrated.base,
            reason_names=self.reason_names,
            late=_any([view.advance.features.late for view in views], len(frame)),
            _payment_columns=transactions.select(_OF_A_PAYMENT if explain else []),
            _entities=self._entities,
            _views=tuple(views),
            _findings=tuple(findings),
            _evidence=found,
            _tails=tails,
            _histogram=calibrated.histogram,
            _pace=pace,
            _ticks=ticks,
            _level=level,
            _model=self._model,
        )

    def _views(self, frame: Frame, levels: Levels) -> list[EntityBatch]:
        """Read the profiles of all entities, at those of peers first."""
        peers = self._spec.profiles.peers
        first = [entity for entity in self._entities if entity not in peers]
        looked = self._each(lambda entity: self._look(frame, levels, entity), first, len(frame))
        views = dict(zip(first, looked, strict=True))
        for entity, group in peers.items():
            usual = np.exp(frame.log_amounts - views[group].ratios)
            views[entity] = self._look(frame, levels, entity, usual)
        return [views[entity] for entity in self._entities]

    def _findings(self, frame: Frame, views: Sequence[EntityBatch]) -> list[DetectorResult]:
        found = self._each(lambda detector: detector.advance(frame), self._detectors, len(frame))
        if self._multivariate is None:
            return found
        columns = feature_columns(frame.times, frame.log_amounts, views, found)
        return [*found, self._multivariate.advance(columns, self._next_sequence)]

    def _look(self, frame: Frame, levels: Levels, entity: str, peers: Floats | None = None) -> EntityBatch:
        place = (self._next_sequence, self._block_rows)
        rows = (frame.ids(entity), frame.times, frame.amounts, frame.log_amounts, place[0])
        advance = self._profiles[entity].advance(*rows, frame.known(entity), frame.forgotten, levels)
        seen = look(advance.features, advance.population, frame.log_amounts, place, peers)
        ratios = log_ratios(seen)
        nats, counts = self._tails[entity].surprises(ratios, seen.counts[:, -1], self._rows_met)
        memory, judged = advance.recall(nats, _STRIKING), advance.judge(self._memories)
        return EntityBatch(advance, seen, ratios, nats, surprises(seen), memory, judged, counts)

    def _forget(self) -> None:
        """Give back memory now and then: it reads every entity."""
        until, horizon = self._clock.forgotten, idle_horizon(self._spec) or 0
        if until > self._forgotten + horizon // _LOOKS_PER_HORIZON:
            for profiles in self._profiles.values():
                profiles.forget(until)
            for detector in self._detectors:
                detector.forget(until)
            self._forgotten = until

    def _weigh(
        self, views: Sequence[EntityBatch], findings: Sequence[DetectorResult], rows: int
    ) -> tuple[Floats, dict[str, Counts]]:
        """Return the evidence of each reason, float64[n, reasons], and the tails it leads to."""
        by_entity = dict(zip(self._entities, views, strict=True))
        tails, population = {name: view.counts for name, view in by_entity.items()}, np.zeros(rows)
        if views:
            population, tails[POPULATION] = self._tails[POPULATION].surprises(
                population_log_ratios(views[0].seen), np.full(rows, np.inf), self._rows_met
            )
        each = partial(self._each, rows=rows)
        return self._weighing.evidence(by_entity, population, findings, each), tails

    def _totals(
        self, views: Sequence[EntityBatch], findings: Sequence[DetectorResult], found: Floats
    ) -> Floats:
        if self._model is None or not len(found):
            return total_of(found)
        return self._model.margins(features_of(views, found, findings))

    def _check_sequence(self, column: pa.ChunkedArray) -> None:
        sequence = numbers(column, pa.int64())
        expected = self._next_sequence
        gap = np.flatnonzero(sequence != np.arange(expected, expected + len(sequence)))
        if len(gap):
            row = int(gap[0])
            raise DataLossError(f"expected sequence {expected + row}, got {sequence[row]}")

    def _each(
        self, work: Callable[[Argument], Result], arguments: Sequence[Argument], rows: int
    ) -> list[Result]:
        if rows < _ROWS_WORTH_THREADS:
            return [work(argument) for argument in arguments]
        return list(self._threads.map(work, arguments))


def _any(flags: list[Flags], rows: int) -> Flags:
    late = np.zeros(rows, np.bool_)
    for part in flags:
        late |= part
    return late


def _warm_up(spec: AgentSpec, entities: tuple[str, ...]) -> None:
    rows, scorer = 3, Scorer(spec, entities)
    first = pa.table(
        {
            "sequence": pa.array(range(rows), pa.int64()),
            "event_time": pa.array([0, 1, 2], pa.timestamp("us", "UTC")),
            "amount": pa.array([1.0, 2.0, 3.0]),
            "currency": pa.array(["EUR"] * rows),
            **{entity: pa.array(["a", "a", "b"]) for entity in entities},
            **{name: pa.array([0.0] * rows) for name in scorer.columns},
        }
    )
    scored = scorer.score(first)
    scored.reasons(0)
    scorer.commit(scored)
    scorer.restore(scorer.snapshot())
