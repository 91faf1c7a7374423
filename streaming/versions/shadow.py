"""The shadow: versions that decide every closed batch beside the agent, and publish nothing.

A thread reads what the agent has stored, decides it under the versions that stand in shadow, and
appends one row per batch to `shadow`. The stream never waits for it; where it falls behind, it catches up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.instants import Clock
from schemas.spec import AgentSpec
from schemas.tables import SHADOW
from streaming.batch.closed_batches import ClosedBatches
from streaming.batch.deciders import Deciders
from streaming.batch.engine import Engine
from streaming.delta.lake_table import Stamp
from streaming.delta.maintenance import at_low_priority
from streaming.delta.shared_table import SharedTable
from streaming.delta.stored import StoredTable
from streaming.labels.entity_labels import EntityLabels
from streaming.service.health import Condition, Health
from streaming.service.worker import Worker
from streaming.store.place import Place
from streaming.versions.registry_watch import RegistryState, RegistryWatch
from streaming.versions.stages import Stage, VersionStage

_MOVING_UP: tuple[Stage, ...] = ("canary", "active")
_ROUND_SECONDS = 0.3
_BATCH_COLUMNS = ["query_id", "batch_id", "first_sequence", "next_sequence"]
_ALERT_COLUMNS = [field.name for field in SHADOW.field("alerted").type.value_type]


@dataclass(frozen=True)
class AgentTables:
    """What an agent has stored, opened to be read beside it."""

    transactions: StoredTable
    batches: StoredTable
    entity_labels: EntityLabels


@dataclass
class _Shadow:
    """A version, its engine, and the `sequence` up to which it has decided."""

    staged: VersionStage
    engine: Engine
    reached: int


class Shadow:
    """Decides closed batches under versions that publish nothing.

    Args:
        place: of the table `shadow`, made when a version first stands in shadow.
        tables: what the agent has stored, in handles of their own.
        registry: says which versions.
        engine_for: builds the engine of a version, which asks no model.
        retention: how long versions of the table stay readable.
        clock: current time, timezone-aware.
        health: notified when it cannot go on; the agent can.
    """

    def __init__(
        self,
        place: Place,
        tables: AgentTables,
        registry: RegistryWatch,
        engine_for: Callable[[AgentSpec], Engine],
        retention: timedelta,
        clock: Clock,
        health: Health | None = None,
    ) -> None:
        self._place, self._retention, self._tables = place, retention, tables
        self._batches = ClosedBatches(tables.batches)
        self._registry, self._engine_for, self._clock = registry, engine_for, clock
        self._shadows: dict[str, _Shadow] = {}
        self._wanted: dict[str, VersionStage] = {}
        self._seen = RegistryState()
        self._lock = threading.Lock()
        self._worker = Worker(
            "shadow",
            self._work,
            Condition.SHADOW_FAILING,
            health or Health(),
            begin=at_low_priority,
            fatal=(),
        )

    def start(self) -> None:
        """Begin, each version where it ended."""
        self._worker.start()

    def close(self) -> None:
        """End after the current batch."""
        self._worker.close()
        for digest in list(self._shadows):
            self._shadows.pop(digest).engine.close()

    def release(self, digest: str) -> Engine | None:
        """Give away the engine of a version, which is no longer decided under here; None without one."""
        with self._lock:
            found = self._shadows.pop(digest, None)
            self._wanted.pop(digest, None)
        if found is None:
            return None
        _ended(found.engine)
        return found.engine

    def round(self) -> None:
        """Decide what was closed since the last round, batch by batch."""
        self._choose()
        for digest in list(self._wanted):
            while not self._worker.is_closing and self._decide_next(digest):
                pass

    def _choose(self) -> None:
        state = self._registry.newest
        if state is self._seen:
            return
        self._seen, found = state, state.staged_versions
        with self._lock:
            self._wanted = {each.digest: each for each in found.values() if each.stage == "shadow"}
            # Who has been promoted is about to be asked for.
            staying = {each.digest for each in found.values() if each.stage in _MOVING_UP} | {*self._wanted}
            leaving = [self._shadows.pop(digest) for digest in list(self._shadows) if digest not in staying]
        for each in leaving:
            _ended(each.engine)

    def _decide_next(self, digest: str) -> bool:
        """Decide one batch under a version; False when there is none, or no such version any more."""
        staged = self._wanted.get(digest)
        if staged is None:
            return False
        if digest not in self._shadows:
            begun = self._begun(staged)  # may take long: whoever asks for an engine does not wait for it
            with self._lock:
                if digest in self._wanted:
                    self._shadows[digest] = begun
        self._tables.batches.refresh()
        with self._lock:
            shadow = self._shadows.get(digest)
            batch = None if shadow is None else self._batches.after(shadow.reached, _BATCH_COLUMNS)
            if shadow is None or batch is None:
                return False
            self._decide_or_forget(shadow, batch)
            return True

    def _begun(self, staged: VersionStage) -> _Shadow:
        """Bring a version up to where it ended, at first to the batches closed since it came."""
        self._tables.batches.refresh()
        recorded = self._table().last_batch(_stream(staged.digest))
        reached = self._batches.closed_before(staged.since) if recorded < 0 else recorded
        engine = self._engine_for(staged.spec)
        self._tables.transactions.refresh()
        places = (self._tables.transactions, reached)
        engine.restore(*places, self._known, self._batches.stretches, exactly=False)
        return _Shadow(staged, engine, reached)

    def _decide_or_forget(self, shadow: _Shadow, batch: dict[str, Any]) -> None:
        """What an attempt that failed has left of an engine's state is not known: it is built anew."""
        try:
            self._decide(shadow, batch)
        except BaseException:
            self._shadows.pop(shadow.staged.digest).engine.close()
            raise

    def _decide(self, shadow: _Shadow, batch: dict[str, Any]) -> None:
        first, end, engine = batch["first_sequence"], batch["next_sequence"], shadow.engine
        self._tables.transactions.refresh()
        rows = self._tables.transactions.read("sequence", first, end, engine.decider.columns())
        decided = Deciders(engine).decide(rows, self._new_labels(first, end))
        marks = {"query_id": batch["query_id"], "batch_id": batch["batch_id"], "created_at": self._clock()}
        row = pa.Table.from_pylist(
            [_row(shadow.staged, batch, rows, decided.alerts(marks), marks)], schema=SHADOW
        )
        table, stamp = self._table(), Stamp(_stream(shadow.staged.digest), end)
        table.by_turns(lambda: table.append(row, stamp))
        Deciders(engine).commit(decided.judged)
        shadow.reached = end
        engine.checkpoint_if_due()

    def _table(self) -> SharedTable:
        return SharedTable(self._place, SHADOW, self._retention)

    def _known(self, first: int, end: int) -> pa.Table:
        return self._tables.entity_labels.between(self._batches.label_pins(), first, end)

    def _new_labels(self, first: int, end: int) -> pa.Table:
        """What a batch is the first to know; the pin of the batch before it says what was known."""
        return self._tables.entity_labels.between(self._batches.label_pins(first), first, end)

    def _work(self) -> float:
        self.round()
        return _ROUND_SECONDS


def _ended(engine: Engine) -> None:
    """Remove the checkpoints of a version that is no longer decided under beside the agent."""
    engine.close()
    engine.checkpoints.folders.drop_all()


def _row(
    staged: VersionStage, batch: dict[str, Any], rows: pa.Table, alerts: pa.Table, marks: dict[str, Any]
) -> dict[str, Any]:
    times = pc.min_max(rows["event_time"]).as_py()
    return {
        "version": staged.version,
        "digest": staged.digest,
        "at": marks["created_at"],
        "query_id": batch["query_id"],
        "batch_id": batch["batch_id"],
        "first_sequence": batch["first_sequence"],
        "next_sequence": batch["next_sequence"],
        "first_event": times["min"],
        "last_event": times["max"],
        "alerts": alerts.num_rows,
        "alerted": alerts.select(_ALERT_COLUMNS).to_pylist(),
    }


def _stream(digest: str) -> str:
    return f"shadow/{digest}"
