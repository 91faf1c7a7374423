"""Exact replay: rebuilds decisions from pinned versions and compares them with what was published."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from schemas.alert_size import fitted
from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from schemas.instants import MICRO
from schemas.spec import AgentSpec
from streaming.arrays.fingerprint import machine_fingerprint
from streaming.batch.deciders import Canary, Deciders
from streaming.batch.engine import Engine
from streaming.batch.flagging import Refuses
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.pins import CANARY, pinned_contract, pinned_specs, pins_by_engine
from streaming.delta.stored import StoredTable
from streaming.detection import checkpoints
from streaming.history.comparison import Difference, differences_between, differences_of_late
from streaming.history.decided import DecidedHistory
from streaming.history.replayed import REPLAY_MARKS, ExactReplay, Slice
from streaming.history.spans import PinnedSpan, Span, raised_in, within
from streaming.history.tolerance import LastBits, Leeway, Tolerated
from streaming.home.settings import Settings
from streaming.labels.book import LabelBook
from streaming.labels.entity_labels import EntityLabels, at_positions

SLICE_ROWS = 100_000
_SLICES_AT_ONCE = 10

Progress = Callable[[int], None]


class Replayer:
    """Decides spans of stored transactions anew.

    Args:
        settings: where state lives.
        definition: names the tables and the labels; its contract is that of batches that have pinned none
            but a digest.
        history: what was decided.
        on_progress: called with the rows of each slice done.
        slice_rows: rows decided at a time; the outcome does not depend on it.
    """

    def __init__(
        self,
        settings: Settings,
        definition: AgentDefinition,
        history: DecidedHistory,
        on_progress: Progress = lambda _: None,
        slice_rows: int = SLICE_ROWS,
    ) -> None:
        self._slice_rows = slice_rows
        self._settings, self._contract, self._history = settings, definition.contract, history
        self._on_progress = on_progress
        place, spec = history.reader.place, definition.spec
        self._entity_labels = EntityLabels(
            LabelBook(place("labels"), retention=spec.replay_horizon),
            place("transactions"),
            place("alerts"),
            self._contract.labelled_columns,
        )

    def decide(
        self, spec: AgentSpec, transactions: StoredTable, span: Span, cold_from: int = 0
    ) -> Iterator[tuple[Span, pa.Table]]:
        """Decide a span under a spec; yields slices with their alerts, of schema `ALERTS`.

        Memory is bounded by the slice. Profiles begin at the newest checkpoint before the span, or blank at
        the row `cold_from`. No model is asked: alerts carry the classification by rules.

        Raises:
            ConfigurationError: the spec cannot be used.
        """
        for each in self.slices(spec, transactions, span, cold_from):
            yield each.span, each.decided.alerts(REPLAY_MARKS)

    def slices(
        self, spec: AgentSpec, transactions: StoredTable, span: Span, cold_from: int = 0
    ) -> Iterator[Slice]:
        """See decide, for who classifies otherwise; the spec is checked at once.

        Raises:
            ConfigurationError: the spec cannot be used.
        """
        engine = self._restored(spec, transactions, span.first, cold_from)
        return self._decided(Deciders(engine), transactions, span)

    def _decided(
        self, deciders: Deciders, transactions: StoredTable, span: Span, refuses: Refuses | None = None
    ) -> Iterator[Slice]:
        for part, rows, known in self._with_labels(transactions, span, deciders.columns()):
            decided = deciders.decide(rows, known, refuses)
            deciders.commit(decided.judged)
            yield Slice(part, rows, decided)
            self._on_progress(rows.num_rows)

    def exactly(self, span: Span) -> ExactReplay:
        """Decide a span under its pins and compare the outcome with what was published.

        Raises:
            ConfigurationError: a version, contract, model or rule that decided it is gone.
        """
        tables, late = self._history.tables(span), self._history.late_answers(span)
        recorded = self._history.recorded_labels()
        alerts, rows, differences, met = 0, 0, list[Difference](), LastBits()
        refuses = _refused_by(self._history.refused(span))
        decided = [pinned for pinned in self._history.pinned(span) if not pinned.backfilled]
        elsewhere = self._history.elsewhere_from(machine_fingerprint())
        for pinned in decided:
            self._check(pinned)
        for pinned in decided:
            rows += pinned.span.end - pinned.span.first
            deciders = self.as_pinned(pinned, tables.transactions)
            if _begins_elsewhere(deciders):
                elsewhere = min(pinned.span.first, pinned.span.first if elsewhere is None else elsewhere)
            for each in self._decided(deciders, tables.transactions, pinned.span, refuses):
                published = _fitted(deciders, raised_in(tables.alerts, each.span))
                answers = _fitted(deciders, within(late, each.span))
                alerts += published.num_rows
                leeway = None if elsewhere is None else Leeway(met, elsewhere, each.margin)
                differences += differences_between(
                    published, each.decided.alerts(REPLAY_MARKS), recorded, leeway
                )
                differences += differences_of_late(answers, published, recorded)
        passed_over, newest = span.end - span.first - rows, self._history.reads_newest
        tolerated = self._tolerated(decided, elsewhere, met)
        return ExactReplay(span, rows, passed_over, alerts, tuple(differences), newest, tolerated)

    def _tolerated(
        self, decided: Sequence[PinnedSpan], elsewhere: int | None, met: LastBits
    ) -> Tolerated | None:
        if elsewhere is None:
            return None
        ends = [self._history.batch_ends(each.span) for each in decided]
        batches = sum(int((each > elsewhere).sum()) for each in ends)
        return Tolerated.of(batches, met) if batches else None

    def cold_start(
        self, spec: AgentSpec, transactions: StoredTable, first: int, warm_up: timedelta
    ) -> int | None:
        """Return where profiles begin blank when only a span of event time before a row is to warm them up.

        Args:
            first: `sequence` of that row.

        Returns:
            The first `sequence` of a block; None when a checkpoint fits, or the span reaches back to the
            first row, so that profiles know everything.
        """
        engine = self._engine(spec)
        definition = engine.decider.layout.definition
        if checkpoints.newest(engine.checkpoints.folders, definition, through=first).snapshot is not None:
            return None
        moment = transactions.read("sequence", first, first + 1, ["event_time"])["event_time"][0]
        until = moment.cast(pa.int64()).as_py()
        since = until - warm_up // MICRO
        rows = transactions.read("event_time", since, until, ["sequence"])["sequence"]
        earliest = min(pc.min(rows).as_py(), first) if len(rows) else first
        return earliest // spec.profiles.block_rows * spec.profiles.block_rows or None

    def as_pinned(self, pinned: PinnedSpan, transactions: StoredTable) -> Deciders:
        """Return what decided a span, its state as it was before the span's first row.

        Raises:
            ConfigurationError: a contract, model or rule that decided it is gone.
        """
        self._check(pinned)
        specs = pinned_specs(pinned.pins)
        contract = pinned_contract(pinned.pins)
        engines = [self._restored(spec, transactions, pinned.span.first, contract=contract) for spec in specs]
        if len(engines) == 1:
            return Deciders(engines[0])
        return Deciders(engines[0], Canary(engines[1], pinned.pins[CANARY]["percent"]))

    def _with_labels(
        self, transactions: StoredTable, span: Span, columns: list[str]
    ) -> Iterator[tuple[Span, pa.Table, pa.Table]]:
        """Read slices in order, with the labels that their rows are the first to know."""
        labelled_through, known = span.first, self._known(span.first, span.first)
        for part, rows in self._slices(transactions, span, columns):
            if part.first == labelled_through:
                labelled_through = min(part.first + _SLICES_AT_ONCE * self._slice_rows, span.end)
                known = self._known(part.first, labelled_through)
            yield part, rows, at_positions(known, *part)

    def _slices(
        self, transactions: StoredTable, span: Span, columns: list[str]
    ) -> Iterator[tuple[Span, pa.Table]]:
        """Read slices in order, each while the one before it is decided."""
        starts = range(span.first, span.end, self._slice_rows)
        parts = [Span(first, min(first + self._slice_rows, span.end)) for first in starts]
        # No worker: a slice that cannot be read is raised where it is asked for.
        with ThreadPoolExecutor(1) as reader:
            ahead = [reader.submit(transactions.read, "sequence", *part, columns) for part in parts[:1]]
            for number, part in enumerate(parts):
                rows = ahead.pop().result()
                following = parts[number + 1 : number + 2]
                ahead += [reader.submit(transactions.read, "sequence", *each, columns) for each in following]
                yield part, rows

    def _restored(
        self,
        spec: AgentSpec,
        transactions: StoredTable,
        first: int,
        cold_from: int = 0,
        contract: EventContract | None = None,
    ) -> Engine:
        engine = self._engine(spec, contract)
        if self._history.profiles is not None:
            engine = engine.saved_in(self._history.profiles.below(engine.decider.layout.definition))
            _check_kept(engine, first)
        engine.restore(transactions, first, self._known, self._history.patterns, cold_from)
        return engine

    def _engine(self, spec: AgentSpec, contract: EventContract | None = None) -> Engine:
        artefacts = self._history.artefacts(self._settings.spool)
        pinned = AgentDefinition.pinned(spec, contract or self._contract, artefacts)
        return Engine.on_rules(self._settings, pinned)

    def _known(self, first: int, end: int) -> pa.Table:
        return self._entity_labels.between(self._history.pins, first, end)

    def _check(self, pinned: PinnedSpan) -> None:
        contract = pinned_contract(pinned.pins)
        if contract is None and pinned.pins["contract_digest"] != self._contract.digest:
            raise ConfigurationError(
                f"{pinned.span} was decided under another version of contract {self._contract.name!r}: "
                "restore the contract's file to replay it",
                key="contract",
            )
        scoring = [
            self._engine(spec, contract).decider.layout.definition for spec in pinned_specs(pinned.pins)
        ]
        if scoring != [each["scoring"] for each in pins_by_engine(pinned.pins)]:
            raise ConfigurationError(
                f"{pinned.span} was scored by another version of flagstream: replay it with that one",
                key="scoring",
            )


def _check_kept(engine: Engine, first: int) -> None:
    """A snapshot has no rows before its span, so there is nothing else to begin from."""
    folders, definition = engine.checkpoints.folders, engine.decider.layout.definition
    if checkpoints.newest(folders, definition, through=first).snapshot is None:
        raise ConfigurationError(
            "the snapshot holds no profiles of this spec's definition: replay the lake itself under it, or "
            "name in the spec the arithmetic that the snapshot was decided under",
            where="--snapshot",
        )


def _begins_elsewhere(deciders: Deciders) -> bool:
    """Whether another machine had a part in the state that a span begins from."""
    here = machine_fingerprint()
    return any(each != here for engine in deciders.engines for each in engine.memory.scorer.computed_on)


def _refused_by(refused: Sequence[tuple[Span, frozenset[str]]]) -> Refuses | None:
    """Leave out what the batch that came upon it left out; only absences are ever alerted before."""
    if not refused:
        return None
    return lambda row, passed: (
        passed is not None
        and any(batch.first <= passed < batch.end and row.alert_id in ids for batch, ids in refused)
    )


def _fitted(deciders: Deciders, published: pa.Table) -> pa.Table:
    """Cut alerts from before they had a bound as they are cut since; those that were cut stay as they are."""
    return fitted(published, max(engine.spec.alerts.max_bytes for engine in deciders.engines))
