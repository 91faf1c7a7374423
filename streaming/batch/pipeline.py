"""The batch protocol: eight numbered steps, each idempotent, so that a crash anywhere repairs itself.

0 open · 1 take · 2 decode · 3 store · 4 score · 5 triage · 6 alert · 7 publish · 8 close

The transactions commit of step 3 decides a batch. From there on a batch is finished from what Delta holds,
by the same code, whether it was just stored or is found unfinished after a crash.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import pyarrow as pa

from schemas.contract import EventContract
from schemas.errors import DataLossError
from schemas.spec import AgentSpec
from streaming.batch.alerting import Alerted, Asked, marks_of, tell_faults
from streaming.batch.batch_audit import BatchAudit
from streaming.batch.batch_rows import batch_row, monitoring_row
from streaming.batch.deciders import Deciders
from streaming.batch.engine import Engine, Judged
from streaming.batch.input_watch import InputWatch
from streaming.batch.late_answers import LateAnswers
from streaming.batch.outbox import Outbox
from streaming.batch.queries import stamp_of
from streaming.batch.recovery import Recovery, StreamPosition, as_pinned
from streaming.batch.store import BatchInHand, Decision, Origin, Stored, settle_rejected, store
from streaming.batch.told import told_before, without_told
from streaming.delta.lake import Lake, Stamp
from streaming.delta.pins import under_contract
from streaming.detection import checkpoints
from streaming.events.broker_clock import BrokerClock, Reading
from streaming.events.decode import Decoded, decode, median_stamp
from streaming.events.duplicates import Deduplicator
from streaming.kafka.intake import Taken
from streaming.labels.entity_labels import EntityLabels, LabelPin
from streaming.labels.label_follower import LabelFollower, LabelStream
from streaming.service.health import Health

Clock = Callable[[], datetime]
NO_MARK: Mapping[str, Any] = {}


class BatchStep(StrEnum):
    """The steps of the protocol, in order."""

    OPEN = "open"
    TAKE = "take"
    DECODE = "decode"
    STORE = "store"
    SCORE = "score"
    TRIAGE = "triage"
    ALERT = "alert"
    PUBLISH = "publish"
    CLOSE = "close"


@dataclass(frozen=True)
class ClosedBatch:
    """What a finished batch amounted to, as its row in `batches` says it."""

    row: dict[str, Any]
    seconds: float


@dataclass
class Stopwatch:
    """Seconds spent in each step of one batch; tells `reached` when a step is done."""

    reached: Callable[[BatchStep], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, step: BatchStep) -> Iterator[None]:
        """Time one step."""
        begun = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - begun, 6)
        self.reached(step)


class Pipeline:
    """Runs batches through the eight steps and finishes what a crash left open.

    Args:
        engine: what decides under the spec in force when the agent starts: contract, rules, scorer, triage.
        engine_for: builds the engine of another spec, for a batch pinned to it.
        lake: the tables, claimed by this driver.
        outbox: the alerts lane, opened by `start`.
        verdicts: derives what labels say.
        labels: the labels topic, None to know imported labels alone.
        late: asks the model after the alert, None where none is asked or all are asked in the batch.
        renew: called before each batch; gives what decides it, which may be other versions than before.
        health: what the pipeline's parts say they suffer from.
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
        verdicts: EntityLabels,
        labels: LabelStream | None = None,
        late: LateAnswers | None = None,
        renew: Callable[[Deciders], Deciders] = lambda deciders: deciders,
        health: Health | None = None,
        clock: Clock = lambda: datetime.now(UTC),
        reached: Callable[[BatchStep], None] = lambda _: None,
    ) -> None:
        self._deciders, self._engine_for = Deciders(engine), engine_for
        self._agent, self._contract = engine.spec.name, engine.contract
        self._lake, self._outbox, self._late, self._audit = lake, outbox, late, audit
        self._verdicts, self._labels = verdicts, labels
        self._renew, self._health = renew, health or Health()
        self._told: frozenset[str] = frozenset()
        self._told_to: Deciders | None = None
        self._follower: LabelFollower | None = None
        self._clock, self._reached = clock, reached
        self._duplicates = Deduplicator(engine.contract.duplicates.horizon)
        self._broker_clock, self._input = BrokerClock(), InputWatch(self._health)
        self._position, self._recovery = StreamPosition(0, 0, LabelPin(0, 0, 0)), Recovery(lake, verdicts)
        # No worker: the batch waits for both results and raises what they raised.
        self._beside = ThreadPoolExecutor(2, thread_name_prefix="beside-publishing")

    def start(self) -> None:
        """Fence predecessors, finish the batch a crash left open, restore state, publish what is pending."""
        self._audit.started(self._deciders.pins())
        newest, engine = self._recovery.newest_decision(), self._deciders.engine
        self._position = self._recovery.position(newest)
        self._broker_clock = BrokerClock(timedelta(0) if newest is None else newest.clock_ahead)
        checkpoints.drop_after(engine.checkpoints, self._position.next_sequence)
        self._outbox.open()
        if newest is not None and not self._is_closed(newest):
            self._finish_from_delta(newest)
        pins = self._recovery.label_pins()
        self._recovery.restore(engine, self._position.next_sequence, pins)
        self._duplicates.restore(*self._recovery.recently_read(newest, self._contract.duplicates.horizon))
        self._outbox.publish()
        self._follow_labels(pins)
        if self._late is not None:
            self._late.start()

    def process(
        self,
        take: Callable[[], Taken | pa.Table],
        query_id: str,
        batch_id: int,
        offsets: Callable[[], dict[str, dict[str, int]]],
        *,
        contract: EventContract | None = None,
        mark: Mapping[str, Any] = NO_MARK,
        origin: Origin = Origin(),  # noqa: B008 -- frozen
    ) -> ClosedBatch | None:
        """Run one micro-batch through the protocol; None when it was closed before.

        Args:
            take: collects the micro-batch: key, value, topic, partition, offset, timestamp; a table where
                all of it could be taken at once.
            query_id: Spark's id of the query, which names the stream.
            batch_id: Spark's number of the batch within it.
            offsets: end offsets planned for the batch.
            contract: what the records mean where that is not the agent's contract; it has the same columns.
            mark: what the batch pins besides everything else.
            origin: of the stream's records.
        """
        watch = Stopwatch(self._reached)
        with watch.step(BatchStep.OPEN):
            self.check()
            stamp = Stamp(stamp_of(self._agent, query_id), batch_id)
            if self._lake.batches.last_batch(stamp.app_id) >= batch_id:
                self._check_same(query_id, batch_id, offsets())
                return None
            opened_at = self._clock()
            self._renew_deciders()
        with watch.step(BatchStep.TAKE):
            taken = Taken.of(take())
            self.stream_time = self.stream_time if mark else median_stamp(taken.places) or self.stream_time
            batch = BatchInHand(
                stamp=stamp,
                read=taken.places.num_rows,
                query_id=query_id,
                opened_at=opened_at,
                first_sequence=self._position.next_sequence,
                watermark_us=self._position.watermark_us,
                labels=self._position.labels,
                offsets=offsets(),
                pins=self._pins(contract, mark),
                origin=origin,
                clock=self._read_clock(taken, opened_at, requeued=bool(mark)),
            )
        with watch.step(BatchStep.DECODE):
            decoded = self._decode(taken, contract or self._contract, batch)
        with watch.step(BatchStep.STORE):
            stored = store(
                self._lake, batch, decoded.valid, decoded.rejected, self._duplicates, self._take_verdicts
            )
        closed = self._complete(self._deciders, stored, watch)
        self._duplicates.commit()
        for engine in self._deciders.engines:
            engine.checkpoint_if_due()
        if not self._lake.renew():
            self._audit.renew()
        return closed

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
        self._deciders.close()
        self._outbox.close()

    def _read_clock(self, taken: Taken, opened_at: datetime, *, requeued: bool) -> Reading:
        """Requeued records are stamped here, by the stream's own time."""
        if requeued:
            at = max(opened_at, self.stream_time or opened_at)
            return Reading("machine", at, at - opened_at)
        return self._broker_clock.read(taken.places, opened_at)

    def _decode(self, taken: Taken, contract: EventContract, batch: BatchInHand) -> Decoded:
        """Decode what was taken; of further slices, and of what came before them, no rejects are held."""
        parts = [decode(taken.rows, contract, batch.now)]
        for rows in taken.more:
            settle_rejected(self._lake, batch, parts[-1].rejected)
            parts.append(decode(rows, contract, batch.now))
            parts[-2] = parts[-2].accepted()
        return Decoded.together(parts)

    def _complete(self, deciders: Deciders, stored: Stored, watch: Stopwatch) -> ClosedBatch:
        """Steps 4 to 8 over the stored rows of a decided batch."""
        decision = stored.decision
        with watch.step(BatchStep.SCORE):
            judged = deciders.judge(stored.rows, stored.verdicts)
        alerted, asked = self._alert(deciders, decision, stored.rows, judged, watch)
        told = [
            self._beside.submit(self._monitor, decision, alerted),
            self._beside.submit(self._audit.decided, decision, alerted, asked),
        ]
        with watch.step(BatchStep.PUBLISH):
            self._outbox.publish()
        with watch.step(BatchStep.CLOSE):
            for each in told:
                each.result()
            row = self._close(deciders, decision, judged, alerted, watch)
        return ClosedBatch(row, sum(watch.seconds.values()))

    def _alert(
        self,
        deciders: Deciders,
        decision: Decision,
        rows: pa.Table,
        judged: Sequence[Judged],
        watch: Stopwatch,
    ) -> tuple[Alerted, Asked]:
        stamp = self._stamp(decision)
        if self._lake.alerts.last_batch(stamp.app_id) >= stamp.batch_id:
            kept = self._lake.alerts.metadata_of(decision.query_id, decision.batch_id)
            return Alerted(**kept["alerted"]), Asked.from_metadata(kept["asked"])
        with watch.step(BatchStep.TRIAGE):
            flagged, refused = without_told(deciders.flag(rows, judged), self._told)
            chosen = zip(deciders.engines, flagged, strict=True)
            results = [engine.triage.decide(each.rows) for engine, each in chosen]
            tell_faults(self._health, results)
        with watch.step(BatchStep.ALERT):
            alerted, asked = Alerted.of(results, refused), Asked.of(results)
            if alerted.alerts:
                table = deciders.alerts(marks_of(decision), flagged, results)
                self._append_alerts(decision, table, alerted, asked)
        return alerted, asked

    def _append_alerts(self, decision: Decision, table: pa.Table, alerted: Alerted, asked: Asked) -> None:
        marks = {"query_id": decision.query_id, "batch_id": decision.batch_id}
        metadata = {**marks, "alerted": alerted.to_metadata(), "asked": asked.to_metadata()}
        self._outbox.append(table, self._stamp(decision), metadata)

    def _close(
        self,
        deciders: Deciders,
        decision: Decision,
        judged: Sequence[Judged],
        alerted: Alerted,
        watch: Stopwatch,
    ) -> dict[str, Any]:
        row = batch_row(
            self._lake,
            decision,
            alerted,
            closed_at=self._clock(),
            next_outbox_seq=self._outbox.next_seq,
            seconds=watch.seconds,
            lane=self._outbox.lane,
        )
        self._lake.batches.append(_one(row, self._lake.batches.schema), self._stamp(decision))
        deciders.commit(judged)
        self._position.next_sequence = decision.next_sequence
        self._position.watermark_us = decision.watermark_us
        self._position.labels = decision.labels
        return row

    def _monitor(self, decision: Decision, alerted: Alerted) -> None:
        tolerated = self._deciders.engine.spec.monitoring.rejected_share
        problems = self._input.problems(decision, tolerated)
        row = monitoring_row(decision, alerted, self._clock(), problems)
        self._lake.monitoring.append(_one(row, self._lake.monitoring.schema), self._stamp(decision))

    def _stamp(self, decision: Decision) -> Stamp:
        return Stamp(stamp_of(self._agent, decision.query_id), decision.batch_id)

    def _check_same(self, query_id: str, batch_id: int, planned: dict[str, dict[str, int]]) -> None:
        """A checkpoint set back plans a closed batch anew, perhaps with more records, which would be lost."""
        rows = self._lake.batches.read(
            "batch_id", batch_id, batch_id + 1, ["query_id", "offsets"]
        ).to_pylist()
        closed = [json.loads(row["offsets"]) for row in rows if row["query_id"] == query_id]
        if closed and closed[0] != planned:
            raise DataLossError(
                f"batch {batch_id} was closed at offsets {closed[0]}, Spark's checkpoint now ends it at "
                f"{planned}: the checkpoint was set back; remove it to resume from the lake's own offsets"
            )

    def _is_closed(self, decision: Decision) -> bool:
        stamp = self._stamp(decision)
        return self._lake.batches.last_batch(stamp.app_id) >= stamp.batch_id

    def _finish_from_delta(self, decision: Decision) -> None:
        """Finish a decided batch under the pins of its first attempt, whatever is in force now."""
        deciders = as_pinned(decision, self._deciders.engine, self._engine_for)
        pins = [*self._recovery.label_pins(), decision.labels]
        for engine in deciders.engines:
            self._recovery.restore(engine, decision.first_sequence, pins)
        self._know_told(deciders)
        rows = self._lake.transactions.read("sequence", decision.first_sequence, decision.next_sequence)
        verdicts = self._recovery.verdicts_of(decision)
        self._complete(deciders, Stored(decision, rows, verdicts), Stopwatch(self._reached))
        for engine in deciders.engines:
            if engine is not self._deciders.engine:
                engine.close()

    def _pins(self, contract: EventContract | None, mark: Mapping[str, Any]) -> dict[str, Any]:
        pins = self._deciders.pins()
        return {**(pins if contract is None else under_contract(pins, contract)), **mark}

    def _renew_deciders(self) -> None:
        known = [engine.scorer for engine in self._deciders.engines]
        reached = self._position.next_sequence
        renewed = self._renew(self._deciders).each(lambda engine: self._with_memory(engine, reached))
        for engine in renewed.engines:
            if not any(engine.scorer is scorer for scorer in known):
                checkpoints.drop_after(engine.checkpoints, reached)
                self._recovery.restore(engine, reached, self._recovery.label_pins())
                # They begin with the batch that pins them, whatever a shadow has seen before.
                engine.patterns.keep(self._recovery.patterns_in_force(reached))
        if renewed != self._told_to:
            self._know_told(renewed)
        self._deciders = renewed

    def _with_memory(self, engine: Engine, reached: int) -> Engine:
        """Begin anew with an engine whose state, another's, lacks what its own rules have waited for."""
        ours = {each.digest for each in engine.rules.patterns} - engine.patterns.digests
        if not ours or engine in self._deciders.engines:
            return engine
        if not ours & self._recovery.patterns_in_force(reached):
            return engine
        return replace(self._engine_for(engine.spec), checkpoints=engine.checkpoints)

    def _know_told(self, deciders: Deciders) -> None:
        self._told = told_before(self._lake.alerts, deciders.engines)
        self._told_to = deciders

    def _follow_labels(self, pins: list[LabelPin]) -> None:
        self._follower = LabelFollower(
            self._verdicts, pins, lambda: self._position.next_sequence, self._labels, self._health
        )
        self._follower.start()

    def _take_verdicts(self, first: int) -> tuple[LabelPin, pa.Table]:
        assert self._follower is not None, "start() comes first"
        return self._follower.take(first)


def _one(row: dict[str, Any], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([row], schema=schema)
