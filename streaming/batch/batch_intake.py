"""Steps 1 and 2 of a batch: when what was taken of the stream came, and what it says under a contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from schemas.batch_key import BatchKey
from schemas.contract import EventContract
from streaming.batch.decision import CurrentBatch, Decision, Origin
from streaming.batch.left_behind import NOTHING_LEFT, NOTHING_ON_RECORD, LeftBehind, OnRecord
from streaming.batch.queries import stamp_of
from streaming.batch.store import settle_rejected
from streaming.delta.lake import Lake
from streaming.delta.lake_table import Stamp
from streaming.events.broker_clock import BrokerClock, Reading
from streaming.events.decode import Decoded, decode
from streaming.events.stamps import median_stamp
from streaming.events.writer_schemas import SchemaSource
from streaming.kafka.intake import Taken


@dataclass(frozen=True)
class WantedBatch:
    """The batch that is asked for; see streaming.batch.pipeline.Pipeline.decide."""

    query_id: str
    batch_id: int
    offsets: Callable[[], dict[str, dict[str, int]]]
    contract: EventContract | None
    mark: Mapping[str, Any]
    origin: Origin

    @property
    def key(self) -> BatchKey:
        """Which batch of which query it is."""
        return BatchKey(self.query_id, self.batch_id)


class BatchIntake:
    """Makes batches of what is taken, and decodes them.

    Args:
        agent: its name.
        contract: what the stream's records mean.
        lake: its tables, claimed by this driver.
        schemas: where the schemas of records come from that name theirs by an id.

    Attributes:
        stream_time: the broker's time of the newest batch of the stream, None before the first.
    """

    stream_time: datetime | None = None

    def __init__(self, agent: str, contract: EventContract, lake: Lake, schemas: SchemaSource) -> None:
        self._agent, self._contract, self._lake, self._schemas = agent, contract, lake, schemas
        self._left_behind, self._clock = NOTHING_LEFT, BrokerClock()

    def go_on_after(self, newest: Decision | None) -> None:
        """Take the broker's clock for what it was at the newest batch."""
        self._clock = BrokerClock(timedelta(0) if newest is None else newest.clock_ahead)

    def note_what_is_left(self) -> None:
        """Note what attempts at batches that were never decided have committed."""
        self._left_behind = LeftBehind.of(self._lake)

    def batch(self, wanted: WantedBatch, taken: Taken, opened_at: datetime) -> CurrentBatch:
        """Return the batch that was taken; where the stream stands is not known yet."""
        requeued = bool(wanted.mark)
        clock = self._read_clock(taken, opened_at, requeued=requeued)
        if not requeued:
            self.stream_time = median_stamp(taken.places, self._contract, clock.at) or self.stream_time
        return CurrentBatch(
            stamp=Stamp(stamp_of(self._agent, wanted.query_id), wanted.batch_id),
            read=taken.places.num_rows,
            query_id=wanted.query_id,
            opened_at=opened_at,
            offsets=wanted.offsets(),
            origin=wanted.origin,
            clock=clock,
            on_record=self._on_record(wanted, taken, requeued=requeued),
        )

    def _on_record(self, wanted: WantedBatch, taken: Taken, *, requeued: bool) -> OnRecord:
        if requeued:
            return NOTHING_ON_RECORD
        ids = wanted.origin.topic_ids
        return self._left_behind.on_record(taken.places, ids, wanted.query_id, wanted.batch_id)

    def _read_clock(self, taken: Taken, opened_at: datetime, *, requeued: bool) -> Reading:
        """Requeued records are stamped here, by the stream's own time."""
        if requeued:
            at = max(opened_at, self.stream_time or opened_at)
            return Reading("machine", at, at - opened_at)
        return self._clock.read(taken.places, opened_at)

    def decoded(self, taken: Taken, contract: EventContract, batch: CurrentBatch) -> Decoded:
        """Decode what was taken; of further slices, and of what came before them, no rejects are held."""
        if taken.away is None:
            parts = [decode(taken.rows, contract, batch.now, self._schemas)]
        else:
            parts = [taken.away(contract, batch.now)]
        for rows in taken.more:
            settle_rejected(self._lake, batch, parts[-1].rejected)
            parts.append(decode(rows, contract, batch.now, self._schemas))
            parts[-2] = parts[-2].accepted()
        return Decoded.together(parts)
