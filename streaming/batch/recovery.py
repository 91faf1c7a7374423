"""What the lake says of an agent's state: where its stream stands, and what decided its newest batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import DataLossError
from schemas.instants import MICRO
from schemas.spec import AgentSpec
from streaming.arrays.median_clock import WINDOW, MedianClock
from streaming.batch.closed_batches import ClosedBatches
from streaming.batch.deciders import Canary, Deciders
from streaming.batch.decision import Decision
from streaming.batch.engine import Engine
from streaming.delta.lake import Lake
from streaming.delta.lake_table import LakeTable
from streaming.delta.pins import CANARY, pinned_spec, pins_by_engine
from streaming.labels.entity_labels import EntityLabels
from streaming.labels.label_pins import LabelPin, LabelPins

_SEEN = ["transaction_id", "topic", "partition", "offset", "kafka_timestamp"]


@dataclass
class StreamPosition:
    """Where the stream stands: the next sequence number, the highest event time stored (µs), its labels."""

    next_sequence: int
    watermark_us: int
    labels: LabelPin


class Recovery:
    """Derives state from the lake alone.

    Args:
        lake: the tables, claimed by this driver.
        entity_labels: derives what labels say of entities.
    """

    def __init__(self, lake: Lake, entity_labels: EntityLabels) -> None:
        self._lake, self._entity_labels = lake, entity_labels
        self._batches = ClosedBatches(lake.batches)

    def newest_decision(self) -> Decision | None:
        """Return what decided the newest batch, None where none is on record."""
        kept = self._lake.transactions.newest_metadata()
        return None if kept is None else Decision.from_metadata(kept)

    def position(self, newest: Decision | None) -> StreamPosition:
        """Return where the stream stands after the newest decided batch.

        Raises:
            DataLossError: how it was decided is no longer on record, and it was not closed.
        """
        labels = self.label_pins().newest
        if newest is None:
            return StreamPosition(*self._reached_by_rows(), labels)
        return StreamPosition(newest.next_sequence, newest.watermark_us, labels)

    def label_pins(self) -> LabelPins:
        """Return which labels each closed batch knew, ascending."""
        return self._batches.label_pins()

    def labels_of(self, decision: Decision) -> pa.Table:
        """Return the labels that the rows of a decided batch are the first to know."""
        pins = self.label_pins().then(decision.labels)
        return self._entity_labels.between(pins, decision.first_sequence, decision.next_sequence)

    def restore(self, engine: Engine, next_sequence: int, pins: LabelPins) -> None:
        """Bring an engine's state to a row; see Engine.restore."""
        engine.restore(
            self._lake.transactions,
            next_sequence,
            lambda first, end: self._entity_labels.between(pins, first, end),
            self._batches.stretches,
            exactly=False,
        )

    def patterns_in_force(self, reached: int) -> frozenset[str]:
        """Return the rules over two events that were in force for the row before `reached`."""
        return self._batches.stretches(reached - 1, reached)[-1].patterns if reached else frozenset()

    def recently_read(self, newest: Decision | None, horizon: timedelta) -> tuple[pa.Table, MedianClock]:
        """Return ids and coordinates of what a redelivery may repeat; see recently_stored."""
        return recently_stored(self._lake.transactions, newest, horizon)

    def _reached_by_rows(self) -> tuple[int, int]:
        """Find the position in the rows, when Delta's log clean-up has removed the commits that noted it."""
        highest = self._lake.transactions.maximum("sequence")
        if highest is None:
            return 0, 0
        if (self._lake.batches.maximum("next_sequence") or 0) != highest + 1:
            raise DataLossError(
                "the newest batch was not closed, and how it was decided is no longer on record: restore the "
                "lake from before its log was cleaned up, or give the agent a new name"
            )
        newest = self._lake.transactions.maximum("event_time") or 0
        times = self._lake.transactions.read("event_time", newest, columns=["event_time"])["event_time"]
        return highest + 1, int(pc.max(times.cast(pa.int64())).as_py())


def recently_stored(
    transactions: LakeTable, newest: Decision | None, horizon: timedelta
) -> tuple[pa.Table, MedianClock]:
    """Return ids and coordinates of what a redelivery may repeat, and the clock they are forgotten by.

    Redeliveries may carry older timestamps, so two horizons back are read.

    Args:
        newest: what decided the newest batch, None where that is not on record.
    """
    reached = transactions.maximum("sequence")
    first = 0 if reached is None else reached + 1 - WINDOW
    latest = transactions.read("sequence", first, columns=["kafka_timestamp"])["kafka_timestamp"]
    noted = None if newest is None else newest.broker_us
    clock = MedianClock.after(latest.cast(pa.int64()).to_numpy(), noted)
    since = clock.now - 2 * horizon // MICRO
    return transactions.read("kafka_timestamp", since, columns=_SEEN), clock


def as_pinned(decision: Decision, ours: Engine, engine_for: Callable[[AgentSpec], Engine]) -> Deciders:
    """Return what decided a batch, built anew unless it is what is in force.

    Raises:
        DataLossError: the code, or a model at the same path, would decide it otherwise now.
    """
    parts = pins_by_engine(decision.pins)
    engines = [_engine_as_pinned(pins, decision.batch_id, ours, engine_for) for pins in parts]
    if len(engines) == 1:
        return Deciders(engines[0])
    return Deciders(engines[0], Canary(engines[1], decision.pins[CANARY]["percent"]))


def _engine_as_pinned(
    pins: Mapping[str, Any], batch: int, ours: Engine, engine_for: Callable[[AgentSpec], Engine]
) -> Engine:
    pinned = pinned_spec(pins)
    engine = ours if pinned.digest == ours.spec.digest else engine_for(pinned)
    if engine.decider.layout.definition != pins["scoring"]:
        raise DataLossError(
            f"batch {batch} was decided under another version of the code or another model "
            "at the same path: run what decided it once more, so that it is finished as it was begun"
        )
    return engine
