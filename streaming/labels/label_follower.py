"""Follows labels beside the stream: records those of the topic and has labels ready for the next batch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

import polars as pl
import pyarrow as pa

from streaming.labels.entity_labels import Derived, EntityLabels
from streaming.labels.label_pins import LabelPin, LabelPins
from streaming.labels.label_topic import PolledLabels
from streaming.labels.recorded import Recorded
from streaming.service.health import Condition, Health
from streaming.service.worker import Worker

_ROUND_SECONDS = 0.3
_STORE_ROUND_SECONDS = 3.0  # each round is a request
_POLL_SECONDS = 0.2
_PATIENCE = timedelta(minutes=1)


class LabelStream(Protocol):
    """Where labels arrive: streaming.labels.label_topic.LabelTopic."""

    def poll(self, limit: int = 10_000, wait: float = 0.0) -> PolledLabels:
        """Return what has arrived."""

    def record(self, polled: PolledLabels) -> Recorded:
        """Keep it."""


class LabelFollower:
    """Offers each batch the labels that have become known, so that no batch has to look for them.

    A label that comes before its transaction is waited for, for a minute; those after it wait, too.

    Args:
        entity_labels: derives what labels say of entities.
        pins: those of all batches so far.
        settled: the `sequence` below which every batch is closed.
        source: the labels topic, None to follow imports alone.
        health: notified when labels cannot be followed.
    """

    def __init__(
        self,
        entity_labels: EntityLabels,
        pins: LabelPins,
        settled: Callable[[], int],
        source: LabelStream | None = None,
        health: Health | None = None,
    ) -> None:
        self._entity_labels, self._source = entity_labels, source
        self._pins, self._settled = pins, settled
        self._lock = threading.Lock()
        self._polled: PolledLabels | None = None
        self._offer, self._ready = self._taken, entity_labels.schema.empty_table()
        self._checked: tuple[int, int] | None = None
        self._worker = Worker("labels", self._follow, Condition.LABELS_FAILING, health or Health())

    @property
    def _taken(self) -> LabelPin:
        return self._pins.newest

    def start(self) -> None:
        """Look once, so that what is known now counts from the first batch on, then go on by itself."""
        self._worker.attempt()
        self._worker.start()

    def close(self) -> None:
        """Stop following; what is offered and not taken is found again by the next driver."""
        self._worker.close()

    def check(self) -> None:
        """Raise what has ended the following of labels for good.

        Raises:
            FlagstreamError: it has.
        """
        self._worker.check()

    def take(self, first: int) -> tuple[LabelPin, pa.Table]:
        """Return the pin for a batch that begins at `sequence` `first`, and the labels new with it.

        Raises:
            FlagstreamError: following labels has failed for good.
        """
        self.check()
        with self._lock:
            pin, ready = self._offer._replace(first=first), self._ready
            if pin.through > self._taken.through:
                self._pins = self._pins.then(pin)
            self._ready = ready.slice(0, 0)
        place = ready.schema.get_field_index("position")
        return pin, ready.set_column(place, ready.schema.field(place), pa.repeat(first, ready.num_rows))

    def round(self) -> None:
        """Record what has arrived, and look up the labels that no batch has counted yet."""
        if self._source is not None:
            self._record_from(self._source)
        book = self._entity_labels.book
        through, below = book.refreshed(), self._settled()
        with self._lock:
            pins, since = self._pins, self._taken.through
        if through == since or self._checked == (through, below):
            return
        pin = LabelPin(below, through, below)
        found = self._entity_labels.derive(since, pins.then(pin))
        awaited = self._awaited(found)
        if awaited is None:
            self._checked = (through, below)
        else:
            pin = pin._replace(through=awaited)
            found = self._entity_labels.derive(since, pins.then(pin))
        with self._lock:
            if self._taken.through == since:
                self._offer, self._ready = pin, found.table

    def _record_from(self, source: LabelStream) -> None:
        """What was polled is kept until it is on record: the topic gives it only once."""
        if self._polled is None:
            self._polled = source.poll(wait=_POLL_SECONDS)
        source.record(self._polled)
        self._polled = None

    def _awaited(self, found: Derived) -> int | None:
        """Return the first label whose transaction may still come."""
        recent = pl.lit(self._entity_labels.book.now() - _PATIENCE, pl.Datetime("us", "UTC"))
        awaited = found.unmatched.filter(pl.col("recorded_at") > recent)["label_sequence"].to_list()
        return min(awaited, default=None)

    def _follow(self) -> float:
        self.round()
        return _ROUND_SECONDS if self._entity_labels.book.place.is_local else _STORE_ROUND_SECONDS
