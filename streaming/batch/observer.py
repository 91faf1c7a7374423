"""What whoever watches a pipeline gets to know of its batches; nobody does unless metrics or traces are on.

Everything here is called in the batch's own thread, once what the batch does for its users is done. So what
is made of it must be quick, must not wait for anything, and must not raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from agent.triage.triage import TriageResult
from schemas.batch_key import BatchKey
from streaming.batch.deciders import Decided, Deciders
from streaming.batch.decision import Decision
from streaming.batch.steps import StepTime
from streaming.kafka.outbox_record import Headers


@dataclass(frozen=True)
class BatchSeen:
    """A batch that is closed.

    Attributes:
        row: of `batches`.
        rows: its stored transactions.
        deciders: with the state after it.
        decided: None where an earlier attempt had alerted already.
        times: of the steps, in order.
    """

    key: BatchKey
    decision: Decision
    row: dict[str, Any]
    rows: pa.Table
    deciders: Deciders
    decided: Decided | None
    times: Sequence[StepTime]


class BatchObserver(Protocol):
    """Watches a pipeline; see the module for what it may do."""

    def begun(self) -> None:
        """A batch is about to be decided."""

    def stepped(self) -> None:
        """A step of a batch is done."""

    def closed(self, seen: BatchSeen) -> None:
        """A batch is closed."""

    def failed(self, key: BatchKey, times: Sequence[StepTime], fault: BaseException) -> None:
        """An attempt at a batch has failed, in the last of these steps."""

    def answered(self, result: TriageResult) -> None:
        """Answers have come beside the batches."""

    def headers(self, alerts: pa.Table) -> Sequence[Headers]:
        """Return what each alert gets as further headers on the topic."""


class Unobserved:
    """Nobody watches."""

    def begun(self) -> None:
        """See BatchObserver."""

    def stepped(self) -> None:
        """See BatchObserver."""

    def closed(self, seen: BatchSeen) -> None:
        """See BatchObserver."""

    def failed(self, key: BatchKey, times: Sequence[StepTime], fault: BaseException) -> None:
        """See BatchObserver."""

    def answered(self, result: TriageResult) -> None:
        """See BatchObserver."""

    def headers(self, alerts: pa.Table) -> Sequence[Headers]:
        """See BatchObserver."""
        return [()] * alerts.num_rows


UNOBSERVED = Unobserved()
