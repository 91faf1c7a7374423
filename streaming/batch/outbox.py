"""The one lane of alerts: numbered without gaps as they are committed, published in that order.

Batches and late answers share it. Each call is whole: whoever commits next, from whichever thread, continues
the numbers, and whoever publishes next sends all that was committed before.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.alert_documents import alert_documents
from schemas.counts import count_of
from schemas.errors import ConfigurationError, DataLossError, FencedError, RetryableError
from streaming.batch.alerts_lane import AlertsLane
from streaming.delta.durable import sync
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.kafka.outbox_record import Headers, OutboxRecord
from streaming.kafka.publish import Publisher
from streaming.service.worker import cause_of

_SLICE = 2_000
_KEEP_SECONDS = 86_400.0


class Outbox:
    """Alerts on their way from Delta to Kafka.

    Args:
        agent: the agent's name.
        alerts: the table, claimed by this driver.
        publisher: the lane's end on Kafka, opened by `open`.
        lane: the topic it ends on.
        clock: seconds, monotonic.
        held: alerts are stored and none leaves before `release`.
        headers: gives further headers of alerts, one tuple per row.

    After a call that raised, how far it came is not known: every later call is refused, and a new outbox
    finds out from Delta and Kafka.

    Raises:
        FencedError: from any call, once a successor has taken over.
    """

    def __init__(
        self,
        agent: str,
        alerts: LakeTable,
        publisher: Publisher,
        lane: AlertsLane,
        clock: Callable[[], float] = time.monotonic,
        *,
        held: bool = False,
        headers: Callable[[pa.Table], Sequence[Headers]] = lambda alerts: [()] * alerts.num_rows,
    ) -> None:
        self._agent, self._alerts, self._publisher, self._held = agent, alerts, publisher, held
        self.lane, self._clock, self._kept = lane, clock, -math.inf
        self._headers = headers
        self._lock = threading.RLock()
        self._next, self._sound, self._broken_by = 0, False, "it has not been opened yet"
        self._lasting: ConfigurationError | FencedError | DataLossError | None = None

    @property
    def next_seq(self) -> int:
        """The outbox_seq that the next alert will get; all lower ones are in Delta."""
        return self._next

    @property
    def unpublished(self) -> int:
        """How many alerts are stored and have not left."""
        return max(self._next - self._publisher.marker, 0)

    def open(self) -> None:
        """Fence predecessors on Kafka and find out how far numbers and messages have come.

        Raises:
            DataLossError: Kafka holds alerts that the lake does not.
        """
        self._next = self._alerts.next_number("outbox_seq")
        self._publisher.open(self._next)
        self._check_marker()
        self._sound = True

    def append(self, rows: pa.Table, stamp: Stamp, metadata: Mapping[str, Any] | None = None) -> None:
        """Commit alerts under the next numbers, whatever `outbox_seq` they come with."""
        with self._whole():
            numbers = np.arange(self._next, self._next + rows.num_rows)
            place = rows.schema.get_field_index("outbox_seq")
            self._alerts.append(
                rows.set_column(place, rows.schema.field(place), pa.array(numbers)), stamp, metadata
            )
            self._next += rows.num_rows

    def publish(self) -> None:
        """Send everything after the marker, read back from Delta in outbox order."""
        with self._whole():
            if self._held or self._publisher.marker >= self._next:
                return
            # What leaves now must still be in the lake after a power cut, and all that it rests on.
            sync(self._alerts.place)
            while self._publisher.marker < self._next:
                self._publish_slice(self._publisher.marker)
            self._kept = self._clock()

    def release(self) -> None:
        """Let alerts leave, those first that have been held back."""
        self._held = False
        self.publish()

    def check(self) -> None:
        """Say when an earlier call has failed half-way; one that is under way is not waited for.

        Once a day it has the broker remember how far alerts have left: Kafka forgets it after a quiet week.

        Raises:
            RetryableError: no later call can succeed.
        """
        if self._lock.acquire(blocking=False):
            try:
                self._check_sound()
                if self._clock() - self._kept >= _KEEP_SECONDS:
                    self._keep_marker()
            finally:
                self._lock.release()

    def _keep_marker(self) -> None:
        with self._whole():
            self._publisher.keep_marker()
            self._kept = self._clock()

    def _publish_slice(self, first: int) -> None:
        """Send some, so that no more than these are in memory, however many wait."""
        pending = self._alerts.read("outbox_seq", first, first + _SLICE)
        numbers, keys = pending["outbox_seq"].to_pylist(), pending["transaction_id"].to_pylist()
        self._publisher.publish(
            OutboxRecord(number, key.encode(), document, headers)
            for number, key, document, headers in zip(
                numbers, keys, alert_documents(pending), self._headers(pending), strict=True
            )
        )
        if self._publisher.marker != min(first + _SLICE, self._next):
            raise DataLossError(
                f"alerts up to {self._next} were stored, but only those up to "
                f"{self._publisher.marker} could be read back to publish"
            )

    def close(self) -> None:
        """Let go of the broker."""
        self._publisher.close()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        with self._lock:
            self._check_sound()
            self._sound = False
            try:
                yield
            except (ConfigurationError, FencedError, DataLossError) as fault:
                self._lasting = fault
                raise
            except BaseException as fault:
                self._broken_by = cause_of(fault)
                raise
            self._sound = True

    def _check_sound(self) -> None:
        if self._lasting is not None:
            raise self._lasting
        if not self._sound:
            raise RetryableError(f"the alerts lane is not open, start anew: {self._broken_by}")

    def _check_marker(self) -> None:
        """New alerts numbered below the marker would never leave: another lake has published here before."""
        marker, stored = self._publisher.marker, self._next
        if marker > stored:
            raise DataLossError(
                f"Kafka holds {count_of(marker, 'alert')} of agent {self._agent!r}, the lake {stored:,}: "
                "restore the lake that belongs to this agent, or give the agent a new name"
            )
