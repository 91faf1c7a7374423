"""The batch protocol: eight numbered steps, each idempotent, so that a crash anywhere repairs itself.

0 open · 1 take · 2 decode · 3 store · 4 score · 5 triage · 6 alert · 7 publish · 8 close

The transactions commit of step 3 decides a batch. From there on a batch is finished from what Delta holds,
by the same code, whether it was just stored or is found unfinished after a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa

from schemas.batch_key import BatchKey
from schemas.contract import EventContract
from schemas.instants import EPOCH, MICRO, Clock, utc_now
from schemas.spec import AgentSpec
from streaming.batch.alert_step import AlertStep
from streaming.batch.alerting import Alerted
from streaming.batch.batch_audit import BatchAudit
from streaming.batch.batch_intake import BatchIntake, WantedBatch
from streaming.batch.closing import close_batch, monitor_batch, stamp_for
from streaming.batch.decider import Judged
from streaming.batch.deciders import Deciders
from streaming.batch.decision import CurrentBatch, Decision, Origin, Stored
from streaming.batch.engine import Engine
from streaming.batch.flagging import Refuses
from streaming.batch.in_force import InForce
from streaming.batch.input_watch import InputWatch
from streaming.batch.late_answers import LateAnswers
from streaming.batch.moved import MachinesOnRecord, log_if_moved
from streaming.batch.observer import UNOBSERVED, BatchObserver, BatchSeen
from streaming.batch.outbox import Outbox
from streaming.batch.queries import check_same_offsets, newest_batch, stamp_of
from streaming.batch.recovery import Recovery, StreamPosition
from streaming.batch.references import References
from streaming.batch.steps import BatchStep, Stopwatch
from streaming.batch.store import store
from streaming.batch.stream_faults import StopRequestedError
from streaming.delta.lake import Lake
from streaming.delta.pins import under_contract
from streaming.events.decode import Decoded
from streaming.events.duplicates import Deduplicator
from streaming.events.writer_schemas import NO_REGISTRY, SchemaSource
from streaming.kafka.intake import Taken
from streaming.labels.entity_labels import EntityLabels
from streaming.labels.label_follower import LabelFollower, LabelStream
from streaming.labels.label_pins import LabelPin, LabelPins
from streaming.service.health import Health
from streaming.service.last_read import LastRead

Take = Callable[[], Taken | pa.Table]
NO_MARK: Mapping[str, Any] = {}


@dataclass(frozen=True)
class ClosedBatch:
    """What a finished batch amounted to, as its row in `batches` says it."""

    row: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Unfinished:
    """A batch that is decided, and still to be scored, alerted on, published and closed."""

    stored: Stored
    watch: Stopwatch


class Pipeline:
    """Runs batches through the eight steps and finishes what a crash left open.

    Args:
        engine: what decides under the spec in force when the agent starts: contract, rules, scorer, triage.
        engine_for: builds the engine of another spec, for a batch pinned to it.
        lake: the tables, claimed by this driver.
        outbox: the alerts lane, opened by `start`.
        entity_labels: derives what labels say of entities.
        labels: the labels topic, None to know imported labels alone.
        late: asks the model after the alert, None where none is asked or all are asked in the batch.
        renew: called before each batch; gives what decides it, which may be other versions than before.
        health: what the pipeline's parts say they suffer from.
        observer: learns of each batch.
        schemas: where the schemas of records come from that name theirs by an id.
        last_read: what the run has read of reference tables before.
        clock: current time; a batch's own time is read once and pinned.
        reached: called after each step; crash tests inject a kill here.

    A pipeline that raised is not to be used again: build a new one, whose `start` repairs the rest.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        engine_for: Callable[[AgentSpec], Engine],
        lake: Lake,
        outbox: Outbox,
        audit: BatchAudit,
        entity_labels: EntityLabels,
        labels: LabelStream | None = None,
        late: LateAnswers | None = None,
        renew: Callable[[Deciders], Deciders] = lambda deciders: deciders,
        health: Health | None = None,
        observer: BatchObserver = UNOBSERVED,
        schemas: SchemaSource = NO_REGISTRY,
        last_read: LastRead | None = None,
        clock: Clock = utc_now,
        reached: Callable[[BatchStep], None] = lambda _: None,
    ) -> None:
        self._agent, self._contract = engine.spec.name, engine.decider.contract
        self._lake, self._outbox, self._late, self._audit = lake, outbox, late, audit
        self._entity_labels, self._labels, self._health = entity_labels, labels, health or Health()
        self._clock, self._reached = clock, reached
        self._observer = observer
        self._follower: LabelFollower | None = None
        self._duplicates = Deduplicator(self._contract.duplicates.horizon)
        rates = engine.spec.data_sources.rates
        self._references = References(self._contract, self._health, rates=rates, last_read=last_read)
        self._input = InputWatch(self._health, self._contract.entity_names)
        self._intake = BatchIntake(self._agent, self._contract, lake, schemas)
        self._alert_step = AlertStep(self._agent, lake.alerts, outbox, self._health)
        self._position, self._closed_at = StreamPosition(0, 0, LabelPin(0, 0, 0)), EPOCH
        self._recovery = Recovery(lake, entity_labels)
        self._newest: BatchKey | None = None  # that was decided here
        self._machines = MachinesOnRecord(lake.batches)
        self._fault: Exception | None = None
        self._in_force = InForce(engine, engine_for, renew, self._recovery, lake.alerts)
        # No worker: the batch waits for both results and raises what they raised.
        self._closing = ThreadPoolExecutor(2, thread_name_prefix="closing")

    @property
    def contract(self) -> EventContract:
        """What records of the stream mean."""
        return self._contract

    @property
    def stream_time(self) -> datetime | None:
        """The broker's time of the newest batch of the stream, None before the first."""
        return self._intake.stream_time

    def start(self) -> None:
        """Fence predecessors, finish the batch a crash left open, restore state, publish what is pending."""
        self._audit.started(self._in_force.deciders.pins())
        newest = self._recovery.newest_decision()
        self._go_on_after(newest)
        self._outbox.open()
        unfinished = None if newest is None or self._is_closed(newest) else newest
        log_if_moved(self._agent, self._lake.batches, unfinished)
        if unfinished is not None:
            self._finish_from_delta(unfinished)
        self._intake.note_what_is_left()
        pins = self._recovery.label_pins()
        self._in_force.restore(self._position.next_sequence, pins)
        self._duplicates.restore(*self._recovery.recently_read(newest, self._contract.duplicates.horizon))
        self._outbox.publish()
        self._follow_labels(pins)
        if self._late is not None:
            self._late.start()

    def process(
        self,
        take: Take,
        query_id: str,
        batch_id: int,
        offsets: Callable[[], dict[str, dict[str, int]]],
        *,
        contract: EventContract | None = None,
        mark: Mapping[str, Any] = NO_MARK,
        origin: Origin = Origin(),  # noqa: B008 -- frozen
    ) -> ClosedBatch | None:
        """Run one micro-batch through the protocol; None when it was closed before.

        Args: those of `decide`.
        """
        unfinished = self.decide(
            take, query_id, batch_id, offsets, contract=contract, mark=mark, origin=origin
        )
        return None if unfinished is None else self.finish(unfinished)

    def decide(
        self,
        take: Take,
        query_id: str,
        batch_id: int,
        offsets: Callable[[], dict[str, dict[str, int]]],
        *,
        contract: EventContract | None = None,
        mark: Mapping[str, Any] = NO_MARK,
        origin: Origin = Origin(),  # noqa: B008 -- frozen
        settle: Callable[[], None] = lambda: None,
    ) -> Unfinished | None:
        """Do steps 0 to 3 for one micro-batch; None when it was closed before.

        Args:
            take: collects the micro-batch: key, value, topic, partition, offset, timestamp; a table where
                all of it could be taken at once.
            query_id: Spark's id of the query, which names the stream.
            batch_id: Spark's number of the batch within it.
            offsets: end offsets planned for the batch.
            contract: what the records mean where that is not the agent's contract; it has the same columns.
            mark: what the batch pins besides everything else.
            origin: of the stream's records.
            settle: returns once the batch before is finished; nothing of this one is committed earlier.
        """
        watch = Stopwatch(self._reached)
        wanted = WantedBatch(query_id, batch_id, offsets, contract, mark, origin)
        with self._observed(wanted.key, watch):
            return self._decide(wanted, take, settle, watch)

    def finish(self, unfinished: Unfinished) -> ClosedBatch:
        """Do steps 4 to 8 for a batch that was decided here, before another is."""
        stored, watch = unfinished.stored, unfinished.watch
        with self._observed(BatchKey(stored.decision.query_id, stored.decision.batch_id), watch):
            closed = self._complete(self._in_force.deciders, self._in_force.refuses, stored, watch)
            with suppress(StopRequestedError):  # what is closed stays so; the next start takes longer
                self._tidy_up()
        return closed

    def _decide(
        self, wanted: WantedBatch, take: Take, settle: Callable[[], None], watch: Stopwatch
    ) -> Unfinished | None:
        with watch.step(BatchStep.OPEN):
            opened_at = self._open(wanted, settle)
        if opened_at is None:
            return None
        self._observer.begun()
        with watch.step(BatchStep.TAKE):
            taken = Taken.of(take())
        if taken.stamps is not None:  # its slices are rejected and committed one by one
            settle()
        with watch.step(BatchStep.DECODE):
            batch = self._intake.batch(wanted, taken, opened_at)
            decoded = self._intake.decoded(taken, wanted.contract or self._contract, batch)
        settle()
        self._observer.begun()  # what the batch before has closed is over
        with watch.step(BatchStep.STORE):
            self._renew()
            stored = self._store(self._placed(batch, wanted), decoded)
        self._newest = wanted.key
        return Unfinished(stored, watch)

    @contextmanager
    def _observed(self, key: BatchKey, watch: Stopwatch) -> Iterator[None]:
        """Say what has failed, once: it also keeps the next batch from being decided."""
        try:
            yield
        except StopRequestedError:
            raise
        except Exception as fault:
            if fault is not self._fault:
                self._fault = fault
                self._observer.failed(key, watch.times, fault)
            raise

    def check(self) -> None:
        """Raise what has gone wrong beside the batches, which an idle topic would hide."""
        self._outbox.check()
        if self._follower is not None:
            self._follower.check()
        if self._late is not None:
            self._late.check()

    def close(self) -> None:
        """Write what is left of checkpoints and let go of the broker and the model."""
        if self._late is not None:
            self._late.close()
        if self._follower is not None:
            self._follower.close()
        self._closing.shutdown()
        self._in_force.deciders.close()
        self._outbox.close()

    def _open(self, wanted: WantedBatch, settle: Callable[[], None]) -> datetime | None:
        """Return when the batch was opened, None when it was closed before."""
        self.check()
        if self._newest == BatchKey(wanted.query_id, wanted.batch_id - 1):
            return self._clock()
        settle()
        if self._lake.batches.last_batch(stamp_of(self._agent, wanted.query_id)) >= wanted.batch_id:
            check_same_offsets(self._lake.batches, wanted.key, wanted.offsets())
            return None
        return self._clock()

    def _renew(self) -> None:
        self._in_force.renewed(self._position.next_sequence)
        self._references.renew()

    def _placed(self, batch: CurrentBatch, wanted: WantedBatch) -> CurrentBatch:
        """Add where the stream stands, which is known once the batch before is finished."""
        return replace(
            batch,
            first_sequence=self._position.next_sequence,
            watermark_us=self._position.watermark_us,
            labels=self._position.labels,
            pins=self._pins(wanted.contract, wanted.mark),
        )

    def _store(self, batch: CurrentBatch, decoded: Decoded) -> Stored:
        tables = self._references.join(decoded.valid), decoded.rejected
        return store(
            self._lake, batch, *tables, self._duplicates, self._take_labels, filtered=decoded.filtered
        )

    def _complete(
        self, deciders: Deciders, refuses: Refuses | None, stored: Stored, watch: Stopwatch
    ) -> ClosedBatch:
        """Steps 4 to 8 over the stored rows of a decided batch."""
        decision = stored.decision
        judged, alerted, asked, decided = self._alert_step.alert(deciders, refuses, stored, watch)
        with watch.step(BatchStep.PUBLISH):
            self._outbox.publish()
        with watch.step(BatchStep.CLOSE):  # beside publishing it would take processors from the alerts
            beside = [
                self._closing.submit(self._monitor, stored, alerted),
                self._closing.submit(self._audit.decided, decision, alerted, asked),
            ]
            for each in beside:
                each.result()
            row = self._close(deciders, decision, alerted, watch)
            self._move_on(deciders, judged, decision)
        key = BatchKey(decision.query_id, decision.batch_id)
        self._observer.closed(BatchSeen(key, decision, row, stored.rows, deciders, decided, watch.times))
        return ClosedBatch(row, sum(watch.seconds.values()))

    def _monitor(self, stored: Stored, alerted: Alerted) -> None:
        decision, tolerated = stored.decision, self._in_force.deciders.engine.spec.monitoring
        problems = self._input.problems(decision, tolerated.rejected_share)
        self._input.watch_placeholders(stored.rows, tolerated.entity_share)
        monitor_batch(self._lake, self._agent, decision, alerted, self._clock(), problems)

    def _close(
        self, deciders: Deciders, decision: Decision, alerted: Alerted, watch: Stopwatch
    ) -> dict[str, Any]:
        at = self._clock()
        # Of batches that end at the same row the last one counts, also where the clock was set back.
        self._closed_at = at if decision.stored else max(at, self._closed_at + MICRO)
        return close_batch(
            self._lake,
            self._agent,
            decision,
            alerted,
            closed_at=self._closed_at,
            next_outbox_seq=self._outbox.next_seq,
            seconds=watch.seconds,
            lane=self._outbox.lane,
            computed_before=self._machines.missing(
                engine.memory.scorer.computed_on for engine in deciders.engines
            ),
        )

    def _move_on(self, deciders: Deciders, judged: Sequence[Judged], decision: Decision) -> None:
        """Only now, with the batch closed, does the state become that after it."""
        deciders.commit(judged)
        self._position.next_sequence = decision.next_sequence
        self._position.watermark_us = decision.watermark_us
        self._position.labels = decision.labels

    def _tidy_up(self) -> None:
        """Keep what makes the next start short: duplicates, checkpoints, fresh handles of the tables."""
        self._duplicates.commit()
        for engine in self._in_force.deciders.engines:
            engine.checkpoint_if_due()
        if not self._lake.renew():
            self._audit.renew()

    def _go_on_after(self, newest: Decision | None) -> None:
        self._position = self._recovery.position(newest)
        last = newest_batch(self._lake.batches, ["closed_at"])
        self._closed_at = EPOCH if last is None else last["closed_at"]
        self._intake.go_on_after(newest)
        self._in_force.drop_checkpoints_after(self._position.next_sequence)

    def _is_closed(self, decision: Decision) -> bool:
        stamp = stamp_for(self._agent, decision)
        return self._lake.batches.last_batch(stamp.app_id) >= stamp.batch_id

    def _finish_from_delta(self, decision: Decision) -> None:
        """Finish a decided batch under the pins of its first attempt, whatever is in force now."""
        deciders = self._in_force.pinned(decision)
        refuses = self._in_force.refuses_of(deciders)
        rows = self._lake.transactions.read("sequence", decision.first_sequence, decision.next_sequence)
        stored = Stored(decision, rows, self._recovery.labels_of(decision))
        self._complete(deciders, refuses, stored, Stopwatch(self._reached))
        self._in_force.let_go(deciders)

    def _pins(self, contract: EventContract | None, mark: Mapping[str, Any]) -> dict[str, Any]:
        pins = self._in_force.deciders.pins()
        read_by = pins if contract is None else under_contract(pins, contract)
        return {**read_by, **self._references.pins(), **mark}

    def _follow_labels(self, pins: LabelPins) -> None:
        self._follower = LabelFollower(
            self._entity_labels, pins, lambda: self._position.next_sequence, self._labels, self._health
        )
        self._follower.start()

    def _take_labels(self, first: int) -> tuple[LabelPin, pa.Table]:
        assert self._follower is not None, "start() comes first"
        return self._follower.take(first)
