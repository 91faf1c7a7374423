"""Scores transactions: profiles, detectors and calibration in one pass over a batch.

score() works on copies of what it touches, so an attempt that fails leaves everything as it was; commit()
makes the result current. The same rows in the same order give the same bits however they are cut.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from schemas.contract import EventContract
from schemas.errors import ConfigurationError, DataLossError, nearest
from schemas.event_columns import DIRECTION, PAYMENT, REFERENCE_AMOUNT, REFUND
from schemas.spec import FIRST_ARITHMETIC, AgentSpec
from streaming.arrays.columns import numbers
from streaming.arrays.compilation import Floats, Ints
from streaming.arrays.cores import ALL_CORES, Cores
from streaming.arrays.fingerprint import machine_fingerprint
from streaming.detection.alert_budget import AlertBudget, StreamRate
from streaming.detection.calibration import Calibration, TotalsHistogram
from streaming.detection.checkpoint_files import ScorerSnapshot
from streaming.detection.combination import total_of
from streaming.detection.definition import block_decay, chosen_entities, definition_hash
from streaming.detection.detectors import population_log_ratios
from streaming.detection.entity_states import EntityStates, EntityStep
from streaming.detection.features import EVIDENCE, features_of
from streaming.detection.model import SupervisedModel
from streaming.detection.scored import AfterBatch, ScoredBatch
from streaming.detection.tails import Counts, TailFrequencies
from streaming.detection.weighing import POPULATION, Weighing
from streaming.profiles.directions import of_refunds, with_refunds
from streaming.profiles.entity_buckets import BucketPlace

_OF_A_PAYMENT = ["amount", "currency", "event_time"]
_NOT_CONVERTED = (
    "reference needs converted amounts, and the transactions of this contract have none: name the exchange "
    "rates in data_sources.rates before they are stored"
)
_BY_TURNS = (
    "a lake of the first arithmetic is scored by the driver alone: there the mean of all rows stands in for "
    "an amount of 0. Leave cluster.buckets out"
)
# What their tails are called in checkpoints: those of payments, and those of refunds.
_POPULATIONS = (POPULATION, of_refunds(POPULATION))


class Scorer:
    """All state that scores depend on: profiles per kind of entities, populations, calibration.

    One thread calls score, commit, fold, snapshot and restore; a snapshot may be written by another.

    Args:
        spec: profiles and detectors are used; threshold, rules and LLM do not matter here.
        entities: the contract's entity columns; `spec.profiles.entities` chooses among them.
        model: says how the features add up to a score, in place of the detectors' plain sum.
        refunds: those among the transactions have profiles and populations of their own.
        cores: among which entities and rows are shared out; how many there are changes no bit.

    Attributes:
        computed_on: fingerprints of the machines that have computed its state, as far as they are known.

    Raises:
        ConfigurationError: the spec names an entity that the contract lacks, or the model reads others.
    """

    def __init__(
        self,
        spec: AgentSpec,
        entities: tuple[str, ...],
        model: SupervisedModel | None = None,
        *,
        refunds: bool = False,
        cores: Cores = ALL_CORES,
    ) -> None:
        self._spec, self._model, self._cores = spec, model, cores
        self._given, self._refunds = entities, refunds
        chosen = chosen_entities(spec, entities)
        self._kinds = with_refunds(chosen) if refunds else chosen
        self._states = EntityStates(spec, self._kinds, cores)
        read = () if model is None else model.feature_names
        self._weighing = Weighing(spec, self._kinds, self._states.detectors, read)
        self._block_rows = spec.profiles.block_rows
        blocks = (self._block_rows, block_decay(spec))
        self._tails = {name: TailFrequencies(*blocks) for name in _POPULATIONS[: 1 + refunds]}
        self._calibration = Calibration(len(self.reason_names), *blocks)
        self._budget = AlertBudget(spec.alerts_per_day or 0.0, self._block_rows)
        self._next_sequence = self._begun = 0
        self.computed_on: tuple[str, ...] = ()
        if model is not None and model.feature_names != self.feature_names:
            raise ConfigurationError("the model was trained on the features of other profiles", key="model")
        self.definition_hash = definition_hash(spec, self._kinds, model)

    @classmethod
    def under(cls, spec: AgentSpec, contract: EventContract, model: SupervisedModel | None = None) -> Scorer:
        """Return a scorer of the contract's transactions.

        Raises:
            ConfigurationError: see the class; or a detector reads a column that is no number there.
        """
        scorer = cls(spec, contract.entity_names, model, refunds=contract.has_direction)
        schema = contract.arrow_schema()
        known = [
            each.name for each in schema if pa.types.is_floating(each.type) or pa.types.is_integer(each.type)
        ]
        zones = spec.detectors.habit.zone_column
        texts = [each.name for each in schema if pa.types.is_string(each.type)]
        for name in scorer.columns:
            if name == REFERENCE_AMOUNT and name not in known:
                raise ConfigurationError(_NOT_CONVERTED, key="profiles.currencies")
            if name == zones and name not in texts:
                problem = f"no column {name!r} of text in the contract; {nearest(name, texts)}"
                raise ConfigurationError(problem, key="detectors.habit.zone_column")
            if name not in (*known, DIRECTION, zones):
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
        return (*self._states.feature_names, EVIDENCE)

    @property
    def columns(self) -> tuple[str, ...]:
        """The transactions' columns that are read besides entities, amount, currency and event_time."""
        return self._states.columns

    @property
    def profile_sizes(self) -> dict[str, tuple[int, int]]:
        """Return how many profiles there are of each kind of entities, and their bytes of memory."""
        return self._states.sizes

    def hold_in(self, place: BucketPlace) -> None:
        """Have entities held in buckets of other processes, from the next score() on.

        What is restored and folded before that is so here: both ways come to the same bits.

        Raises:
            ConfigurationError: in the first arithmetic entities go by the rows of all others.
        """
        if self._spec.arithmetic_in_force == FIRST_ARITHMETIC:
            raise ConfigurationError(_BY_TURNS, where="cluster", key="buckets")
        self._states.hold_in(place)

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
        self._states.begin_away()
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
        self._states.commit(scored.step)
        for name, counts in scored.after.tails.items():
            self._tails[name].counts = counts
        self._calibration.histogram = scored.after.histogram
        self._budget.pace = scored.after.pace
        self._next_sequence += len(scored)
        if len(scored):
            self.computed_on = (*dict.fromkeys((*self.computed_on, machine_fingerprint())),)

    def fold(self, transactions: pa.Table, labels: pa.Table | None = None) -> None:
        """Advance all state past rows that need no scores any more, as recovery does; see score()."""
        self.commit(self._score(transactions, labels, explain=False))

    def adopt(self, spec: AgentSpec) -> None:
        """Go on under the threshold or budget of another spec, which defines scores alike.

        Raises:
            DataLossError: it defines them otherwise.
        """
        if definition_hash(spec, self._kinds, self._model) != self.definition_hash:
            raise DataLossError("the state belongs to another profile definition")
        pace, self._spec = self._budget.pace, spec
        self._budget = AlertBudget(spec.alerts_per_day or 0.0, self._block_rows)
        self._budget.pace = pace

    def snapshot(self) -> ScorerSnapshot:
        """Copy the whole state; the copy may be written by another thread (checkpoints.write)."""
        profiles, tails, detectors = self._states.snapshots()
        for name, each in self._tails.items():
            tails[name] = Counts(*(part.copy() for part in each.counts))
        histogram = TotalsHistogram(*(part.copy() for part in self._calibration.histogram))
        pace = StreamRate._make(part.copy() for part in self._budget.pace)
        sequence, definition = self._next_sequence, self.definition_hash
        parts = (sequence, definition, profiles, histogram, tails, pace, detectors)
        return ScorerSnapshot(*parts, computed_on=self.computed_on)

    def restore(self, snapshot: ScorerSnapshot) -> None:
        """Continue from a snapshot.

        Raises:
            DataLossError: it was made under another profile definition.
        """
        if snapshot.definition_hash != self.definition_hash:
            raise DataLossError("the snapshot was made under another profile definition")
        self._states.restore(snapshot.profiles, snapshot.tails, snapshot.detectors)
        for name, each in self._tails.items():
            each.counts = Counts(*(np.array(part) for part in snapshot.tails[name]))
        self._calibration.histogram = TotalsHistogram(*(np.array(part) for part in snapshot.histogram))
        self._budget.pace = StreamRate._make(np.array(part) for part in snapshot.pace)
        self._next_sequence, self.computed_on = snapshot.next_sequence, snapshot.computed_on

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
    def _explained(self) -> list[str]:
        return [*_OF_A_PAYMENT, *([DIRECTION] if self._refunds else [])]

    @property
    def _rows_met(self) -> int:
        """Rows since the first one met: the first block's say nothing about later ones."""
        return self._next_sequence - self._begun

    def warm_up(self) -> None:
        """Compile all compiled code, or load it from the disk cache, on a tiny scorer like this one."""
        _warm_up(self._spec, self._given, refunds=self._refunds)

    def _score(self, transactions: pa.Table, labels: pa.Table | None, *, explain: bool) -> ScoredBatch:
        self._check_sequence(transactions["sequence"])
        step = self._states.advance(transactions, labels, self._next_sequence, self._rows_met)
        found, tails = self._weigh(step)
        thresholds, pace = self._thresholds(step.times)
        calibrated = self._calibration.calibrate(self._totals(step, found), self._rows_met)
        return ScoredBatch(
            first_sequence=self._next_sequence,
            score=calibrated.scores,
            threshold=thresholds,
            log_odds=calibrated.log_odds,
            base=calibrated.base,
            reason_names=self.reason_names,
            evidence=found,
            step=step,
            after=AfterBatch(tails, calibrated.histogram, pace),
            _payment_columns=transactions.select(self._explained if explain else []),
            _model=self._model,
        )

    def _weigh(self, step: EntityStep) -> tuple[Floats, dict[str, Counts]]:
        """Return the evidence of each reason, float64[n, reasons], and the populations' tails after it."""
        rows = len(step.times)
        population, tails = np.zeros(rows), {name: each.counts for name, each in self._tails.items()}
        for name, kind in zip(self._tails, self._first_kinds, strict=False):
            ratios, own = population_log_ratios(step.views[kind].seen, self._cores), step.of_direction(kind)
            if own is not None:
                ratios = np.where(own, ratios, np.nan)
            found, tails[name] = self._tails[name].surprises(ratios, np.full(rows, np.inf), self._rows_met)
            population = found if own is None else np.where(own, found, population)
        return self._weighing.evidence(step.views, population, step.results, self._cores), tails

    @property
    def _first_kinds(self) -> tuple[str, ...]:
        """The kinds whose levels are those of all payments, and of all refunds."""
        first = self._kinds[:1]
        return with_refunds(first) if self._refunds else first

    def _thresholds(self, times: Ints) -> tuple[Floats, StreamRate]:
        thresholds, pace = self._budget.thresholds(times, self._next_sequence)
        fixed = self._spec.alerts_per_day is None
        return np.full(len(times), self._spec.threshold) if fixed else thresholds, pace

    def _totals(self, step: EntityStep, found: Floats) -> Floats:
        if self._model is None or not len(found):
            return total_of(found, self._cores)
        return self._model.margins(features_of(list(step.views.values()), found, step.results))

    def _check_sequence(self, column: pa.ChunkedArray) -> None:
        sequence = numbers(column, pa.int64())
        expected = self._next_sequence
        gap = np.flatnonzero(sequence != np.arange(expected, expected + len(sequence)))
        if len(gap):
            row = int(gap[0])
            raise DataLossError(f"expected sequence {expected + row}, got {sequence[row]}")


def _warm_up(spec: AgentSpec, entities: tuple[str, ...], *, refunds: bool) -> None:
    rows, scorer = 3, Scorer(spec, entities, refunds=refunds)
    first = pa.table(
        {
            "sequence": pa.array(range(rows), pa.int64()),
            "event_time": pa.array([0, 1, 2], pa.timestamp("us", "UTC")),
            "amount": pa.array([1.0, 2.0, 3.0]),
            "currency": pa.array(["EUR"] * rows),
            **{entity: pa.array(["a", "a", "b"]) for entity in entities},
            **{name: pa.array([0.0] * rows) for name in scorer.columns},
            **({DIRECTION: pa.array([PAYMENT, REFUND, PAYMENT])} if refunds else {}),
        }
    )
    scored = scorer.score(first)
    scored.reasons(0)
    scorer.commit(scored)
    scorer.restore(scorer.snapshot())
