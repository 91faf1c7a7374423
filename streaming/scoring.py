"""Scores transactions: profiles, detectors and calibration in one pass over a batch.

score() works on copies of what it touches, so an attempt that fails leaves everything as it was; commit()
makes the result current. The same rows in the same order give the same bits however they are cut.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.alert import Reason
from schemas.errors import ConfigurationError, DataLossError, nearest
from schemas.spec import AgentSpec
from streaming import checkpoints
from streaming.alert_budget import AlertBudget, Pace
from streaming.calibration import Calibration, Histogram
from streaming.checkpoints import ScorerSnapshot, Skipped
from streaming.combination import independent, remembered, strongest, total_of
from streaming.compilation import Flags, Floats, Ints, read_only
from streaming.counterparties import PAIR, Counterparties, Encounters
from streaming.detectors import (
    AMOUNT,
    COUNTERPARTIES,
    DETECTORS,
    NOVELTY,
    RATE,
    RECURRENCE,
    RISK,
    Evidence,
    evidence,
    log_ratios,
    look,
    population_log_ratios,
    surprises,
)
from streaming.features import (
    CALENDAR,
    EVIDENCE,
    Features,
    View,
    encounter_feature_names,
    features_of,
    kind_feature_names,
    reason_of,
)
from streaming.model import SupervisedModel
from streaming.profile_kernels import log_amounts
from streaming.profiles import EntityProfile, KnownVerdicts, Profiles
from streaming.reasons import Meeting, Payment, sentence
from streaming.tails import Counts, TailFrequencies

_ALGORITHM = 2
POPULATION = "population"
_BETWEEN = "\x1f"  # between the ids of a pair; a control character that ids do not hold
_STRIKING = np.array([6.0, 8.0, 7 * 86_400.0])
_HALF_LIFE_ROWS = 65_536
_ROWS_WORTH_THREADS = 4096

Result = TypeVar("Result")


@dataclass(frozen=True)
class ScoredBatch:
    """Scores of one batch, and the state that committing it leads to.

    Attributes:
        first_sequence: `sequence` of the first row.
        score: float64[n] in (0, 1); 0.99 means about 1 in 100 transactions score that high.
        threshold: float64[n], a row at or above it is flagged.
        log_odds: float64[n], ln(score / (1 - score)) = base + sum of contributions, within 1e-9.
        base: float64[n], log-odds of a transaction without any evidence.
        reason_names: `detector.entity` per column of contributions.
        late: bool[n], one of the row's entities has already had a later transaction.
    """

    first_sequence: int
    score: Floats
    threshold: Floats
    log_odds: Floats
    base: Floats
    reason_names: tuple[str, ...]
    late: Flags
    _payment_columns: pa.Table
    _entities: tuple[str, ...]
    _views: tuple[View, ...]
    _encounters: Encounters | None
    _evidence: Floats
    _tails: dict[str, Counts]
    _histogram: Histogram
    _pace: Pace
    _model: SupervisedModel | None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.score)

    def reasons(self, row: int) -> list[Reason]:
        """Return the reasons of one row; for many rows reasons_of is faster."""
        return self.reasons_of(np.array([row], np.int64))[0]

    def reasons_of(self, rows: Ints) -> list[list[Reason]]:
        """Return each row's reasons, largest contribution first, zero ones left out.

        Args:
            rows: int64[m], positions within the batch.
        """
        numbers: dict[str, Sequence[Evidence | Meeting]] = {
            entity: evidence(view.seen, rows)
            for entity, view in zip(self._entities, self._views, strict=True)
        }
        if self._encounters is not None:
            numbers |= self._encounters.evidence(rows)
        payments, parts = self._payments(rows), self.contributions_of(rows).tolist()
        nats = self._evidence[rows].tolist()
        seen = [{kind: each[place] for kind, each in numbers.items()} for place in range(len(rows))]
        return list(map(self._reasons, payments, parts, nats, seen))

    @property
    def evidence(self) -> Floats:
        """Evidence of each reason, nats, float64[n, reasons]; a row's sum is what its score stands for."""
        return self._evidence

    @property
    def contributions(self) -> Floats:
        """Contributions of all rows, float64[n, reasons]."""
        return self.contributions_of(np.arange(len(self)))

    def contributions_of(self, rows: Ints) -> Floats:
        """Return what each reason adds to the log-odds of `rows`, float64[m, reasons]; see `log_odds`."""
        parts = self._evidence[rows]
        if self._model is not None:
            parts = self._model.contributions(self.features()[rows], parts, self.reason_names)
        wholes, rise = parts.sum(axis=1), (self.log_odds - self.base)[rows]
        slopes: Floats = np.divide(rise, wholes, out=np.zeros(len(rows)), where=wholes != 0.0)
        return parts * slopes[:, None]

    def features(self) -> Features:
        """Return the features of each row as they stood when it was scored, float32[n, features]."""
        return features_of(self._views, self._evidence, self._encounters)

    def own_evidence(self) -> Floats:
        """Return the nats that each transaction shows by itself, whatever its entities are known for."""
        own = [not name.startswith(f"{RISK}.") for name in self.reason_names]
        return np.asarray(self._evidence[:, np.flatnonzero(own)].sum(axis=1))

    def _reasons(
        self, payment: Payment, parts: list[float], nats: list[float], seen: dict[str, Evidence | Meeting]
    ) -> list[Reason]:
        found = []
        for column in sorted(range(len(parts)), key=parts.__getitem__, reverse=True):
            if parts[column] != 0.0:
                name = self.reason_names[column]
                detector, entity = name.split(".", 1)
                text = sentence(detector, entity, payment, seen.get(name, seen.get(entity)), nats[column])
                found.append(Reason(name, parts[column], text))
        return found

    def _payments(self, rows: Ints) -> list[Payment]:
        longest = float(self._views[0].seen.horizons[-1]) if self._views else 0.0
        chosen = self._payment_columns.take(pa.array(rows))
        return [
            Payment(row["amount"] or 0.0, row["currency"] or "", longest, f"{row['event_time']:%A %H:%M} UTC")
            for row in chosen.to_pylist()
        ]


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
        self._given, self._pairs = entities, spec.profiles.pair_names
        self._entities = _chosen_entities(spec, entities)
        self._weights = {name: getattr(spec.detectors, name) for name in DETECTORS}
        self._detectors = tuple(name for name in DETECTORS if self._weights[name].enabled)
        self._block_rows = spec.profiles.block_rows
        self._memories = np.array([memory.total_seconds() for memory in spec.detectors.risk.memories])
        horizons = tuple(horizon.total_seconds() for horizon in spec.profiles.horizons)
        decay = 0.5 ** (self._block_rows / _HALF_LIFE_ROWS)
        self._profiles = {
            name: Profiles(horizons, self._block_rows, decay, len(self._memories)) for name in self._entities
        }
        self._tails = {
            name: TailFrequencies(self._block_rows, decay) for name in (*self._entities, POPULATION)
        }
        self._counterparties: Counterparties | None = None
        if self._between:
            cells = spec.detectors.counterparties.cells
            self._counterparties = Counterparties(self._between, horizons, cells, self._block_rows, decay)
        self._calibration = Calibration(len(self.reason_names), self._block_rows, decay)
        self._budget = AlertBudget(spec.alerts_per_day or 0.0, self._block_rows)
        self._next_sequence = 0
        if model is not None and model.feature_names != self.feature_names:
            raise ConfigurationError("the model was trained on the features of other profiles", key="model")
        self.definition_hash = _hash_definition(spec, self._entities, model)
        self._threads = ThreadPoolExecutor(max(len(self._entities), 1), thread_name_prefix="profiles")

    @property
    def next_sequence(self) -> int:
        """`sequence` of the next row to be scored."""
        return self._next_sequence

    @property
    def reason_names(self) -> tuple[str, ...]:
        """`detector.entity` per column of contributions."""
        names = [
            f"{detector}.{entity}"
            for entity in self._entities
            for detector in self._detectors
            if self._looks_at(detector, entity)
        ]
        population = [f"{AMOUNT}.{POPULATION}"] if self._entities and AMOUNT in self._detectors else []
        pair = [f"{COUNTERPARTIES}.{PAIR}"] if self._between else []
        read = () if self._model is None else self._model.feature_names
        return tuple(
            dict.fromkeys(
                (*names, *population, *pair, *(reason_of(name) for name in read if name != EVIDENCE))
            )
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name per column of ScoredBatch.features."""
        horizons = tuple(horizon.total_seconds() for horizon in self._spec.profiles.horizons)
        kinds = (kind_feature_names(entity, horizons, self._memories.tolist()) for entity in self._entities)
        met = encounter_feature_names(self._between, horizons) if self._between else ()
        return (*CALENDAR, *(name for names in kinds for name in names), *met, EVIDENCE)

    @property
    def _between(self) -> tuple[str, ...]:
        chosen = self._spec.detectors.counterparties
        return chosen.entities if chosen.enabled else ()

    def _looks_at(self, detector: str, entity: str) -> bool:
        chosen = self._weights[detector]
        return chosen.enabled and (not chosen.entities or entity in chosen.entities)

    def score(self, transactions: pa.Table, verdicts: pa.Table | None = None) -> ScoredBatch:
        """Score rows that follow the last committed ones, leaving all state as it is.

        Args:
            transactions: rows in `sequence` order with sequence, event_time, amount, currency and the
                entity columns; others are ignored.
            verdicts: what became known of earlier transactions, by ascending `position` (`sequence` of the
                first row that knows it), with the columns of streaming.verdicts.

        Raises:
            DataLossError: the rows are not those from next_sequence on, without a gap.
        """
        return self._score(transactions, verdicts, explain=True)

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
        if self._counterparties is not None and scored._encounters is not None:
            self._counterparties.commit(scored._encounters)
        for name, counts in scored._tails.items():
            self._tails[name].counts = counts
        self._calibration.histogram = scored._histogram
        self._budget.pace = scored._pace
        self._next_sequence += len(scored)

    def fold(self, transactions: pa.Table, verdicts: pa.Table | None = None) -> None:
        """Advance all state past rows that need no scores any more, as recovery does; see score()."""
        self.commit(self._score(transactions, verdicts, explain=False))

    def profile(self, kind: str, entity: str) -> EntityProfile | None:
        """Return what is remembered about one entity, None if it is unknown."""
        profiles = self._profiles.get(kind)
        return profiles.find(entity) if profiles else None

    def snapshot(self) -> ScorerSnapshot:
        """Copy the whole state; the copy may be written by another thread (checkpoints.write)."""
        parts = self._threads.map(Profiles.snapshot, self._profiles.values())
        profiles = dict(zip(self._entities, parts, strict=True))
        histogram = Histogram(*(part.copy() for part in self._calibration.histogram))
        tails = {name: Counts(*(part.copy() for part in each.counts)) for name, each in self._tails.items()}
        pace = Pace._make(part.copy() for part in self._budget.pace)
        met = None if self._counterparties is None else self._counterparties.snapshot()
        sequence, definition = self._next_sequence, self.definition_hash
        return ScorerSnapshot(sequence, definition, profiles, histogram, tails, pace, met)

    def restore(self, snapshot: ScorerSnapshot) -> None:
        """Continue from a snapshot.

        Raises:
            DataLossError: it was made under another profile definition.
        """
        if snapshot.definition_hash != self.definition_hash:
            raise DataLossError("the snapshot was made under another profile definition")
        list(self._threads.map(Profiles.restore, self._profiles.values(), snapshot.profiles.values()))
        if self._counterparties is not None and snapshot.counterparties is not None:
            self._counterparties.restore(snapshot.counterparties)
        self._calibration.histogram = Histogram(*(np.array(part) for part in snapshot.histogram))
        self._budget.pace = Pace._make(np.array(part) for part in snapshot.pace)
        for name, counts in snapshot.tails.items():
            self._tails[name].counts = Counts(*(np.array(part) for part in counts))
        self._next_sequence = snapshot.next_sequence

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

    def _score(self, transactions: pa.Table, verdicts: pa.Table | None, *, explain: bool) -> ScoredBatch:
        self._check_sequence(transactions["sequence"])
        amounts = read_only(_numbers(transactions["amount"], pa.float64()))
        times = read_only(_numbers(_microseconds(transactions["event_time"]), pa.int64()))
        views = self._look(transactions, verdicts, times, amounts)
        encounters = self._meet(transactions, times)
        evidence_found, tails = self._weigh(views, encounters, len(times))
        totals = self._totals(views, encounters, evidence_found)
        thresholds, pace = self._budget.thresholds(times, self._next_sequence)
        if self._spec.alerts_per_day is None:
            thresholds = np.full(len(times), self._spec.threshold)
        calibrated = self._calibration.calibrate(totals, self._next_sequence)
        return ScoredBatch(
            first_sequence=self._next_sequence,
            score=calibrated.scores,
            threshold=thresholds,
            log_odds=calibrated.log_odds,
            base=calibrated.base,
            reason_names=self.reason_names,
            late=_any([view.advance.features.late for view in views], len(times)),
            _payment_columns=transactions.select(["amount", "currency", "event_time"])
            if explain
            else transactions.select([]),
            _entities=self._entities,
            _views=tuple(views),
            _encounters=encounters,
            _evidence=evidence_found,
            _tails=tails,
            _histogram=calibrated.histogram,
            _pace=pace,
            _model=self._model,
        )

    def _meet(self, transactions: pa.Table, times: Ints) -> Encounters | None:
        if self._counterparties is None:
            return None
        payers, payees = (transactions[entity] for entity in self._between)
        return self._counterparties.advance(payers, payees, times, self._next_sequence)

    def _totals(self, views: list[View], encounters: Encounters | None, evidence_found: Floats) -> Floats:
        if self._model is None or not len(evidence_found):
            return total_of(evidence_found)
        return self._model.margins(features_of(tuple(views), evidence_found, encounters))

    def _check_sequence(self, column: pa.ChunkedArray) -> None:
        sequence = _numbers(column, pa.int64())
        expected = self._next_sequence
        gap = np.flatnonzero(sequence != np.arange(expected, expected + len(sequence)))
        if len(gap):
            row = int(gap[0])
            raise DataLossError(f"expected sequence {expected + row}, got {sequence[row]}")

    def _look(
        self, transactions: pa.Table, verdicts: pa.Table | None, times: Ints, amounts: Floats
    ) -> list[View]:
        logs = log_amounts(amounts)

        def look_at(entity: str) -> View:
            profiles = self._profiles[entity]
            known = None if verdicts is None else _known(verdicts, self._ids(verdicts, entity))
            ids = self._ids(transactions, entity)
            advance = profiles.advance(ids, times, amounts, logs, self._next_sequence, known)
            seen = look(advance.features, advance.population, logs, (self._next_sequence, self._block_rows))
            tails = self._tails[entity]
            ratios = log_ratios(seen)
            nats, counts = tails.surprises(ratios, seen.counts[:, -1], self._next_sequence)
            memory, judged = advance.recall(nats, _STRIKING), advance.judge(self._memories)
            return View(advance, seen, ratios, nats, surprises(seen), memory, judged, counts)

        return self._each(look_at, len(times))

    def _ids(self, rows: pa.Table, entity: str) -> pa.ChunkedArray:
        """Return the ids of one kind of entities; a pair without one of its two is none."""
        if entity not in self._pairs:
            return rows[entity]
        return pc.binary_join_element_wise(*(rows[name] for name in self._pairs[entity]), _BETWEEN)

    def _each(self, work: Callable[[str], Result], rows: int) -> list[Result]:
        if rows < _ROWS_WORTH_THREADS:
            return [work(entity) for entity in self._entities]
        return list(self._threads.map(work, self._entities))

    def _weigh(
        self, views: list[View], encounters: Encounters | None, rows: int
    ) -> tuple[Floats, dict[str, Counts]]:
        """Return the evidence of each reason, float64[n, reasons], and the tails it leads to."""
        found = np.zeros((rows, len(self.reason_names)))
        tails = {name: view.counts for name, view in zip(self._entities, views, strict=True)}
        if views:
            nats, tails[POPULATION] = self._tails[POPULATION].surprises(
                population_log_ratios(views[0].seen), np.full(rows, np.inf), self._next_sequence
            )
            if AMOUNT in self._detectors:
                self._weigh_amounts(views, nats, found)
        by_entity = dict(zip(self._entities, views, strict=True))
        self._each(lambda entity: self._weigh_kind(entity, by_entity[entity], encounters, found), rows)
        if encounters is not None:
            independent(encounters.relation_nats[:, None], self._columns(COUNTERPARTIES, (PAIR,)), found)
        return self._weighted(found), tails

    def _weigh_amounts(self, views: list[View], population: Floats, found: Floats) -> None:
        compared = [place for place, entity in enumerate(self._entities) if self._looks_at(AMOUNT, entity)]
        nats = np.column_stack([*(views[place].amounts for place in compared), population])
        names = (*(self._entities[place] for place in compared), POPULATION)
        strongest(nats, self._columns(AMOUNT, names), found)

    def _weigh_kind(self, entity: str, view: View, encounters: Encounters | None, found: Floats) -> None:
        self._weigh_bursts(entity, view, encounters, found)
        if self._looks_at(NOVELTY, entity):
            independent(view.others[:, 1:], self._columns(NOVELTY, (entity,)), found)
        if self._looks_at(RISK, entity):
            found[:, int(self._columns(RISK, (entity,))[0])] = view.verdicts[:, 0]
        if self._looks_at(RECURRENCE, entity):
            remembered(view.amounts, view.memory, int(self._columns(RECURRENCE, (entity,))[0]), found)

    def _weigh_bursts(self, entity: str, view: View, encounters: Encounters | None, found: Floats) -> None:
        """Transfers and counterparties are two views of one burst: the more surprising one counts."""
        bursts = {RATE: view.others[:, 0]} if self._looks_at(RATE, entity) else {}
        if encounters is not None and entity in self._between:
            bursts[COUNTERPARTIES] = encounters.fan_nats[:, self._between.index(entity)]
        columns = [int(self._columns(detector, (entity,))[0]) for detector in bursts]
        if bursts:
            strongest(np.column_stack(list(bursts.values())), np.array(columns, np.int64), found)

    def _columns(self, detector: str, entities: Iterable[str]) -> Ints:
        names = self.reason_names
        return np.array([names.index(f"{detector}.{entity}") for entity in entities], np.int64)

    def _weighted(self, found: Floats) -> Floats:
        detectors = [name.partition(".")[0] for name in self.reason_names]
        weights = [self._weights[name].weight if name in self._weights else 1.0 for name in detectors]
        if any(weight != 1.0 for weight in weights):
            found *= np.array(weights)
        return found


def _chosen_entities(spec: AgentSpec, entities: tuple[str, ...]) -> tuple[str, ...]:
    profiles = spec.profiles
    for key, names in (("entities", profiles.entities), ("pairs", sum(profiles.pairs, ()))):
        for name in names:
            if name not in entities:
                problem = f"no entity {name!r} in the contract; {nearest(name, entities)}"
                raise ConfigurationError(problem, key=f"profiles.{key}")
    chosen = (*(profiles.entities or entities), *profiles.pair_names)
    for detector in DETECTORS:
        for name in getattr(spec.detectors, detector).entities:
            if name not in chosen:
                raise ConfigurationError(
                    f"no entity {name!r} has a profile; {nearest(name, chosen)}",
                    key=f"detectors.{detector}.entities",
                )
    return chosen


def _hash_definition(spec: AgentSpec, entities: tuple[str, ...], model: SupervisedModel | None) -> str:
    detectors = spec.detectors.model_dump(mode="json")
    definition = {
        "algorithm": _ALGORITHM,
        "half_life_rows": _HALF_LIFE_ROWS,
        "entities": entities,
        "horizons": [horizon.total_seconds() for horizon in spec.profiles.horizons],
        "block_rows": spec.profiles.block_rows,
        # Of what is switched off nothing counts, so that a new detector leaves older lakes as they are.
        "detectors": {name: each for name, each in detectors.items() if each["enabled"]},
        "memories": detectors["risk"]["memories"],
        "model": None if model is None else model.digest,
    }
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()


def _numbers(column: pa.ChunkedArray, kind: pa.DataType) -> Any:
    return column.cast(kind).to_numpy()


def _microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.timestamp("us", tz=column.type.tz))


def _known(verdicts: pa.Table, ids: pa.ChunkedArray) -> KnownVerdicts:
    return KnownVerdicts(
        ids,
        read_only(_numbers(_microseconds(verdicts["event_time"]), pa.int64())),
        read_only(_numbers(verdicts["blame"], pa.float64())),
        read_only(_numbers(verdicts["first"], pa.bool_())),
        read_only(_numbers(verdicts["position"], pa.int64())),
    )


def _any(flags: list[Flags], rows: int) -> Flags:
    late = np.zeros(rows, np.bool_)
    for part in flags:
        late |= part
    return late


def _warm_up(spec: AgentSpec, entities: tuple[str, ...]) -> None:
    rows = 3
    first = pa.table(
        {
            "sequence": pa.array(range(rows), pa.int64()),
            "event_time": pa.array([0, 1, 2], pa.timestamp("us", "UTC")),
            "amount": pa.array([1.0, 2.0, 3.0]),
            "currency": pa.array(["EUR"] * rows),
            **{entity: pa.array(["a", "a", "b"]) for entity in entities},
        }
    )
    scorer = Scorer(spec, entities)
    scored = scorer.score(first)
    scored.reasons(0)
    scorer.commit(scored)
    scorer.restore(scorer.snapshot())
