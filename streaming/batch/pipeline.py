"""The batch protocol: eight numbered steps, each idempotent, so that a crash anywhere repairs itself.

0 open · 1 take · 2 decode · 3 store · 4 score · 5 triage · 6 alert · 7 publish · 8 close

The transactions commit of step 3 decides a batch. From there on a batch is finished from what Delta holds,
by the same code, whether it was just stored or is found unfinished after a crash.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from agent.model.call_watch import asking_about
from schemas.batch_key import BatchKey
from schemas.contract import EventContract
from schemas.errors import DataLossError
from schemas.instants import EPOCH, MICRO
from schemas.spec import AgentSpec
from streaming.batch.alerting import Alerted, Asked, marks_of, tell_faults
from streaming.batch.batch_audit import BatchAudit
from streaming.batch.closing import close_batch, monitor_batch, stamp_for
from streaming.batch.decider import Judged
from streaming.batch.deciders import Decided, Deciders
from streaming.batch.engine import Engine
from streaming.batch.flagging import Refuses
from streaming.batch.in_force import InForce
from streaming.batch.input_watch import InputWatch
from streaming.batch.late_answers import LateAnswers
from streaming.batch.left_behind import NOTHING_LEFT, NOTHING_ON_RECORD, LeftBehind, OnRecord
from streaming.batch.observer import UNOBSERVED, BatchObserver, BatchSeen
from streaming.batch.outbox import Outbox
from streaming.batch.queries import newest_batch, stamp_of
from streaming.batch.recovery import Recovery, StreamPosition
from streaming.batch.references import References
from streaming.batch.steps import BatchStep, Stopwatch
from streaming.batch.store import BatchInHand, Decision, Origin, Stored, settle_rejected, store
from streaming.delta.lake import Lake, Stamp
from streaming.delta.pins import under_contract
from streaming.events.broker_clock import BrokerClock, Reading
from streaming.events.decode import Decoded, decode, median_stamp
from streaming.events.duplicates import Deduplicator
from streaming.events.writer_schemas import NO_REGISTRY, SchemaSource
from streaming.kafka.intake import Taken
from streaming.labels.entity_labels import EntityLabels
from streaming.labels.label_follower import LabelFollower, LabelStream
from streaming.labels.label_pins import LabelPin, LabelPins
from streaming.service.health import Health

Clock = Callable[[], datetime]
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


@dataclass(frozen=True)
class _Wanted:
    """The batch that is asked for; see Pipeline.process."""

    query_id: str
    batch_id: int
    offsets: Callable[[], dict[str, dict[str, int]]]
    contract: EventContract | None
    mark: Mapping[str, Any]
    origin: Origin

    @property
    def key(self) -> BatchKey:
        return BatchKey(self.query_id, self.batch_id)


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
        clock: current time; a batch's own time is read once and pinned.
        reached: called after each step; crash tests inject a kill here.

    A pipeline that raised is not to be used again: build a new one, whose `start` repairs the rest.

    Attributes:
        stream_time: the broker's time of the newest batch of the stream, None before the first.
    """

    stream_time: datetime | None = None

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
        clock: Clock = lambda: datetime.now(UTC),
        reached: Callable[[BatchStep], None] = lambda _: None,
    ) -> None:
        self._agent, self._contract = engine.spec.name, engine.decider.contract
        self._lake, self._outbox, self._late, self._audit = lake, outbox, late, audit
        self._entity_labels, self._labels, self._health = entity_labels, labels, health or Health()
        self._clock, self._reached, self._schemas = clock, reached, schemas
        self._observer = observer
        self._follower: LabelFollower | None = None
        self._left_behind = NOTHING_LEFT
        self._duplicates = Deduplicator(self._contract.duplicates.horizon)
        rates = engine.spec.data_sources.rates
        self._references = References(self._contract, self._health, rates=rates)
        self._broker_clock, self._input = BrokerClock(), InputWatch(self._health, self._contract.entity_names)
        self._position, self._closed_at = StreamPosition(0, 0, LabelPin(0, 0, 0)), EPOCH
        self._recovery = Recovery(lake, entity_labels)
        self._newest: BatchKey | None = None  # that was decided here
        self._fault: Exception | None = None
        self._in_force = InForce(engine, engine_for, renew, self._recovery, lake.alerts)
        # No worker: the batch waits for both results and raises what they raised.
        self._beside = ThreadPoolExecutor(2, thread_name_prefix="beside-publishing")

    def start(self) -> None:
        """Fence predecessors, finish the batch a crash left open, restore state, publish what is pending."""
        self._audit.started(self._in_force.deciders.pins())
        newest = self._recovery.newest_decision()
        self._go_on_after(newest)
        self._outbox.open()
        if newest is not None and not self._is_closed(newest):
            self._finish_from_delta(newest)
        self._left_behind = LeftBehind.of(self._lake)
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
        watch, wanted = Stopwatch(self._reached), _Wanted(query_id, batch_id, offsets, contract, mark, origin)
        with self._observed(wanted.key, watch):
            return self._decide(wanted, take, settle, watch)

    def finish(self, unfinished: Unfinished) -> ClosedBatch:
        """Do steps 4 to 8 for a batch that was decided here, before another is."""
        stored, watch = unfinished.stored, unfinished.watch
        with self._observed(BatchKey(stored.decision.query_id, stored.decision.batch_id), watch):
            closed = self._complete(self._in_force.deciders, self._in_force.refuses, stored, watch)
            self._tidy_up()
        return closed

    def _decide(
        self, wanted: _Wanted, take: Take, settle: Callable[[], None], watch: Stopwatch
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
            batch = self._in_hand(wanted, taken, opened_at)
            decoded = self._decode(taken, wanted.contract or self._contract, batch)
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
        self._beside.shutdown()
        self._in_force.deciders.close()
        self._outbox.close()

    def _open(self, wanted: _Wanted, settle: Callable[[], None]) -> datetime | None:
        """Return when the batch was opened, None when it was closed before."""
        self.check()
        if self._newest == BatchKey(wanted.query_id, wanted.batch_id - 1):
            return self._clock()
        settle()
        if self._lake.batches.last_batch(stamp_of(self._agent, wanted.query_id)) >= wanted.batch_id:
            self._check_same(wanted)
            return None
        return self._clock()

    def _renew(self) -> None:
        self._in_force.renewed(self._position.next_sequence)
        self._references.renew()

    def _in_hand(self, wanted: _Wanted, taken: Taken, opened_at: datetime) -> BatchInHand:
        requeued = bool(wanted.mark)
        if not requeued:
            self.stream_time = median_stamp(taken.places) or self.stream_time
        return BatchInHand(
            stamp=Stamp(stamp_of(self._agent, wanted.query_id), wanted.batch_id),
            read=taken.places.num_rows,
            query_id=wanted.query_id,
            opened_at=opened_at,
            offsets=wanted.offsets(),
            origin=wanted.origin,
            clock=self._read_clock(taken, opened_at, requeued=requeued),
            on_record=self._on_record(wanted, taken, requeued=requeued),
        )

    def _placed(self, batch: BatchInHand, wanted: _Wanted) -> BatchInHand:
        """Add where the stream stands, which is known once the batch before is finished."""
        return replace(
            batch,
            first_sequence=self._position.next_sequence,
            watermark_us=self._position.watermark_us,
            labels=self._position.labels,
            pins=self._pins(wanted.contract, wanted.mark),
        )

    def _on_record(self, wanted: _Wanted, taken: Taken, *, requeued: bool) -> OnRecord:
        if requeued:
            return NOTHING_ON_RECORD
        return self._left_behind.on_record(taken.places, wanted.query_id, wanted.batch_id)

    def _read_clock(self, taken: Taken, opened_at: datetime, *, requeued: bool) -> Reading:
        """Requeued records are stamped here, by the stream's own time."""
        if requeued:
            at = max(opened_at, self.stream_time or opened_at)
            return Reading("machine", at, at - opened_at)
        return self._broker_clock.read(taken.places, opened_at)

    def _decode(self, taken: Taken, contract: EventContract, batch: BatchInHand) -> Decoded:
        """Decode what was taken; of further slices, and of what came before them, no rejects are held."""
        parts = [decode(taken.rows, contract, batch.now, self._schemas)]
        for rows in taken.more:
            settle_rejected(self._lake, batch, parts[-1].rejected)
            parts.append(decode(rows, contract, batch.now, self._schemas))
            parts[-2] = parts[-2].accepted()
        return Decoded.together(parts)

    def _store(self, batch: BatchInHand, decoded: Decoded) -> Stored:
        tables = self._references.join(decoded.valid), decoded.rejected
        return store(
            self._lake, batch, *tables, self._duplicates, self._take_labels, filtered=decoded.filtered
        )

    def _complete(
        self, deciders: Deciders, refuses: Refuses | None, stored: Stored, watch: Stopwatch
    ) -> ClosedBatch:
        """Steps 4 to 8 over the stored rows of a decided batch."""
        decision = stored.decision
        judged, alerted, asked, decided = self._alert(deciders, refuses, stored, watch)
        beside = [
            self._beside.submit(self._monitor, stored, alerted),
            self._beside.submit(self._audit.decided, decision, alerted, asked),
        ]
        with watch.step(BatchStep.PUBLISH):
            self._outbox.publish()
        with watch.step(BatchStep.CLOSE):
            for each in beside:
                each.result()
            row = self._close(decision, alerted, watch)
            self._move_on(deciders, judged, decision)
        key = BatchKey(decision.query_id, decision.batch_id)
        self._observer.closed(BatchSeen(key, decision, row, stored.rows, deciders, decided, watch.times))
        return ClosedBatch(row, sum(watch.seconds.values()))

    def _alert(
        self, deciders: Deciders, refuses: Refuses | None, stored: Stored, watch: Stopwatch
    ) -> tuple[Sequence[Judged], Alerted, Asked, Decided | None]:
        """Steps 4 to 6; what an earlier attempt has alerted stands."""
        recorded = self._alerted_before(stored.decision)
        if recorded is not None:
            with watch.step(BatchStep.SCORE):
                judged = deciders.judge(stored.rows, stored.labels)
            return judged, *recorded, None
        with asking_about([BatchKey(stored.decision.query_id, stored.decision.batch_id)]):
            decided = deciders.decide(stored.rows, stored.labels, refuses, watch.step)
        tell_faults(self._health, decided.results)
        with watch.step(BatchStep.ALERT):
            alerted, asked = Alerted.of(decided.results, decided.refused), Asked.of(decided.results)
            if alerted.alerts:
                self._append_alerts(stored.decision, decided, alerted, asked)
        return decided.judged, alerted, asked, decided

    def _alerted_before(self, decision: Decision) -> tuple[Alerted, Asked] | None:
        stamp = stamp_for(self._agent, decision)
        if self._lake.alerts.last_batch(stamp.app_id) < stamp.batch_id:
            return None
        kept = self._lake.alerts.metadata_of(decision.query_id, decision.batch_id)
        return Alerted(**kept["alerted"]), Asked.from_metadata(kept["asked"])

    def _append_alerts(self, decision: Decision, decided: Decided, alerted: Alerted, asked: Asked) -> None:
        marks = {"query_id": decision.query_id, "batch_id": decision.batch_id}
        metadata = {**marks, "alerted": alerted.to_metadata(), "asked": asked.to_metadata()}
        table = decided.alerts(marks_of(decision))
        self._outbox.append(table, stamp_for(self._agent, decision), metadata)

    def _monitor(self, stored: Stored, alerted: Alerted) -> None:
        decision, tolerated = stored.decision, self._in_force.deciders.engine.spec.monitoring
        problems = self._input.problems(decision, tolerated.rejected_share)
        self._input.look_for_placeholders(stored.rows, tolerated.entity_share)
        monitor_batch(self._lake, self._agent, decision, alerted, self._clock(), problems)

    def _close(self, decision: Decision, alerted: Alerted, watch: Stopwatch) -> dict[str, Any]:
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
        self._broker_clock = BrokerClock(timedelta(0) if newest is None else newest.clock_ahead)
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

    def _check_same(self, wanted: _Wanted) -> None:
        """A checkpoint set back plans a closed batch anew, perhaps with more records, which would be lost."""
        batch_id, planned = wanted.batch_id, wanted.offsets()
        rows = self._lake.batches.read(
            "batch_id", batch_id, batch_id + 1, ["query_id", "offsets"]
        ).to_pylist()
        closed = [json.loads(row["offsets"]) for row in rows if row["query_id"] == wanted.query_id]
        if closed and closed[0] != planned:
            raise DataLossError(
                f"batch {batch_id} was closed at offsets {closed[0]}, Spark's checkpoint now ends it at "
                f"{planned}: the checkpoint was set back; remove it to resume from the lake's own offsets"
            )

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
