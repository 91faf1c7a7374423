"""An agent's engine, kept at the newest row that was decided, to score events that are never stored.

It begins with the newest checkpoint of the profiles and goes on by the rows stored since, under whatever
decided the newest batch. Scoring works on copies of what it touches: nothing moves but by rows of the lake.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pyarrow as pa

from schemas.alert import ALERT_KIND, Reason
from schemas.contract import EventContract
from schemas.errors import ConfigurationError, RetryableError
from schemas.instants import Clock, utc_now
from streaming.batch.closed_batches import ClosedBatches
from streaming.batch.deciders import Deciders
from streaming.batch.engine import Engine
from streaming.batch.references import References
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake_reader import LakeReader
from streaming.delta.pins import pinned_contract, pinned_specs
from streaming.delta.stored import StoredTable
from streaming.events.decode import Decoded, decode
from streaming.events.record_table import record_table
from streaming.home.placed_agent import PlacedAgent
from streaming.labels.book import LabelBook
from streaming.labels.entity_labels import EntityLabels, entity_labels_schema

_QUERY = "score"
# Rows that are folded sooner than a checkpoint of many entities is read.
_SOON_FOLDED = 250_000


@dataclass(frozen=True)
class EventScore:
    """What an agent would say of an event that came now.

    Attributes:
        sequence: of the row that it would be.
        age: since the newest batch was closed.
        alert: as it would be raised, with the classification by rules; None for none.
    """

    sequence: int
    age: timedelta
    spec_version: str
    score: float
    threshold: float
    log_odds: float
    base: float
    reasons: tuple[Reason, ...]
    alert: Mapping[str, Any] | None


@dataclass(frozen=True)
class _InForce:
    """What decided the newest batch. Its parts change together: a score of two of them is nobody's."""

    pins: str
    engine: Engine
    references: References


class Follower:
    """Follows one agent. `score` may be called from any thread, `refresh` from one.

    Between the moment at which other pins are seen and that at which the memory has caught up under them,
    nothing is scored.

    Args:
        agent: whose lake and checkpoints are followed.
        clock: current time, timezone-aware.
    """

    def __init__(self, agent: PlacedAgent, clock: Clock = utc_now) -> None:
        self._agent, self._clock = agent, clock
        self._reader = LakeReader.of(agent)
        self._lock = threading.Lock()
        self._batches: StoredTable | None = None
        self._labels: EntityLabels | None = None
        self._in_force: _InForce | None = None
        self._last: Engine | None = None  # its memory goes on under other pins where it fits them
        self._version, self._closed_at = -1, datetime.min.replace(tzinfo=UTC)

    @property
    def is_ready(self) -> bool:
        """Whether it can score."""
        return self._in_force is not None

    def refresh(self) -> bool:
        """Go on by what was decided since; return whether anything was.

        Raises:
            FlagstreamError: the lake cannot be read, or what was pinned cannot be used. Under pins that are
                still the same, what is known goes on to be scored by.
        """
        table = self._table()
        if table is None or table.version == self._version:
            return False
        version, newest = table.version, table.maximum("next_sequence")
        if newest is None:
            return False
        row = table.read("next_sequence", newest, columns=["pins", "closed_at"]).to_pylist()[-1]
        found = self._under(row["pins"])
        self._advance(found.engine, table, newest)
        with self._lock:
            self._in_force, self._version = found, version
            self._closed_at = row["closed_at"].astimezone(UTC)
        return True

    def score(self, event: Mapping[str, Any]) -> EventScore:
        """Say what the agent would make of an event, changing nothing.

        Raises:
            ConfigurationError: the event does not fit the contract, or the contract does not want it.
            RetryableError: nothing was decided yet, or the follower is on its way to it.
        """
        now = self._clock()
        with self._lock:
            found = self._in_force
            if found is None:
                raise RetryableError("the follower has not caught up with the lake yet")
            events = _accepted(event, found.engine.decider.contract, now)
            return self._scored(found.engine, found.references.join(events), now)

    def _scored(self, engine: Engine, events: pa.Table, now: datetime) -> EventScore:
        sequence = engine.memory.next_sequence
        rows = events.append_column("sequence", pa.array([sequence], pa.int64()))
        decided = Deciders(engine).decide(rows.select(engine.decider.columns()), None)
        marks = {"query_id": _QUERY, "batch_id": 0, "created_at": now}
        is_flagged = any(each.rows for each in decided.flagged)
        scored = decided.judged[0].scored
        return EventScore(
            sequence=sequence,
            age=max(now - self._closed_at, timedelta(0)),
            spec_version=engine.spec.version,
            score=float(scored.score[0]),
            threshold=float(scored.threshold[0]),
            log_odds=float(scored.log_odds[0]),
            base=float(scored.base[0]),
            reasons=tuple(scored.reasons(0)),
            alert=_own(decided.alerts(marks), sequence) if is_flagged else None,
        )

    def _table(self) -> StoredTable | None:
        if self._batches is None:
            self._reader = self._reader.anew()
            self._batches = self._reader.table("batches")
        else:
            self._batches.refresh()
        return self._batches

    def _under(self, pins: str) -> _InForce:
        """Return what decides under pins; where they are others, nothing is scored from here on."""
        if self._in_force is not None and pins == self._in_force.pins:
            return self._in_force
        with self._lock:
            self._in_force = None
        self._reader = self._reader.anew()  # tables may have columns of another contract
        pinned = json.loads(pins)
        contract = pinned_contract(pinned) or AgentDefinition.of(self._agent.spec).contract
        spec = pinned_specs(pinned)[0]
        engine = Engine.on_rules(self._agent.settings, AgentDefinition.pinned(spec, contract))
        references = References(contract, rates=spec.data_sources.rates)
        if self._last is not None and self._last.scores_as(engine):
            engine = self._last.continued_as(engine)
        self._last = engine
        return _InForce(pins, engine, references)

    def _advance(self, engine: Engine, batches: StoredTable, end: int) -> None:
        """Scores go on while rows are read: each is of a memory as it was after some row."""
        transactions = self._reader.table("transactions")
        assert transactions is not None, "a batch of it was closed"
        transactions.refresh()  # after the batches: all their rows are there
        closed = ClosedBatches(batches)
        labels = self._labels_of(engine.decider.contract, closed)
        engine.restore(
            transactions, end, labels, closed.stretches, exactly=False, worth=_SOON_FOLDED, moving=self._lock
        )

    def _labels_of(self, contract: EventContract, closed: ClosedBatches) -> Callable[[int, int], pa.Table]:
        labels = self._known_labels(contract.labelled_columns)
        if labels is None:
            nothing = entity_labels_schema(contract.labelled_columns).empty_table()
            return lambda _, __: nothing
        return lambda first, end: labels.between(closed.label_pins(), first, end)

    def _known_labels(self, columns: tuple[str, ...]) -> EntityLabels | None:
        """Where there are no labels yet, no table is made."""
        if self._labels is None or self._labels.schema != entity_labels_schema(columns):
            if self._reader.anew().table("labels") is None:
                return None
            book = LabelBook(self._reader.place("labels"), retention=self._agent.spec.replay_horizon)
            places = self._reader.place("transactions"), self._reader.place("alerts")
            self._labels = EntityLabels(book, *places, columns)
        return self._labels


def _accepted(event: Mapping[str, Any], contract: EventContract, now: datetime) -> pa.Table:
    try:
        value = orjson.dumps(event, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError as fault:  # whole numbers beyond 64 bits, halves of characters
        raise ConfigurationError(f"it cannot be written as JSON: {fault}", where="event") from None
    record = record_table([None], [value], topic=_QUERY, first=0, sent_at=now)
    is_binary = contract.format.avro is not None or contract.format.protobuf is not None
    found = decode(record, contract, now, from_file=is_binary)
    if found.valid.num_rows != 1:
        raise ConfigurationError(_why_not(found), where="event")
    return found.valid


def _why_not(found: Decoded) -> str:
    if found.filtered.num_rows:
        return f"the contract does not want it: {found.filtered['reason'][0].as_py()}"
    rejected = found.rejected.to_pylist()[0]
    return f"it does not fit the contract: {rejected['reason']}: {rejected['detail']}"


def _own(alerts: pa.Table, sequence: int) -> Mapping[str, Any] | None:
    """Return the alert of the event itself; an absence is another transaction's."""
    own = (each for each in alerts.to_pylist() if (each["sequence"], each["kind"]) == (sequence, ALERT_KIND))
    return next(own, None)
