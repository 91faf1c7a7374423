"""Labels that follow from closed cases: each closing's once, whoever dies in between.

The closing is on record before its labels are. A label's time and author are the closing's, so the label book
takes each once, however often it comes. A `labelled` event says that all of them are there, and is written by
whoever has written them; whoever works on cases next writes those of closings without one. Labels that the
book does not take yet, since the clock of who closed was ahead, are written later.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

import polars as pl
import pyarrow as pa

from schemas.errors import RetryableError
from schemas.instants import Clock
from schemas.label import GIVEN
from streaming.cases.actions import LABELLING
from streaming.cases.case_store import NOTHING, CaseMemory, CaseStore
from streaming.cases.folding import homes_of, without_undone
from streaming.labels.book import LabelBook
from streaming.output.log import log

SOURCE = "cases"
_CLOSING = ["case_id", "action"]


class ClosingLabels:
    """Writes the labels of closings, and notes that they are there.

    Args:
        store: the events of cases.
        book: opens the label book, which is created when labels are first written.
        clock: current time in UTC.
    """

    def __init__(self, store: CaseStore, book: Callable[[], LabelBook], clock: Clock) -> None:
        self._store, self._open, self._clock = store, book, clock
        self._book: LabelBook | None = None
        self._said = set[int]()
        self._complete: tuple[CaseMemory | None, int] = (None, 0)

    def write(self) -> int:
        """Write what is missing; return of how many closings. What cannot be written now waits."""
        state = self._store.memory, self._store.memory.next_number
        if state == self._complete:
            return 0
        missing = without_labels(self._store.memory.moves)
        if missing.height == 0:
            self._complete = state
            return 0
        self._book = self._book or self._open()
        try:
            recorded = self._book.record(labels_of(missing, self._store.memory), source=SOURCE)
            written = self._without_rejects(missing, recorded.rejects)
            return self._store.write(lambda: self._noted(written)) if written.height else 0
        except RetryableError as fault:
            said = f"labels of closed cases are written later: {fault}"
            log("labels_pending", said, level=logging.WARNING, closings=missing.height)
            return 0

    def _without_rejects(self, closings: pl.DataFrame, rejects: pa.Table) -> pl.DataFrame:
        """Return the closings whose labels were all taken; others stay pending, and why is said once."""
        reasons = dict(
            zip(rejects["source_position"].to_pylist(), rejects["reason"].to_pylist(), strict=True)
        )
        for number in sorted(reasons.keys() - self._said):
            said = f"labels of a closed case are not taken: {reasons[number]}"
            log("labels_rejected", said, level=logging.WARNING, closing=number)
        self._said |= reasons.keys()
        return closings.filter(~pl.col("number").is_in(list(reasons)))

    def _noted(self, written: pl.DataFrame) -> pl.DataFrame:
        """Return the events of closings whose labels are written, but for those that others have noted."""
        missing = without_labels(self._store.memory.moves).join(written, on=_CLOSING, how="semi")
        if missing.height == 0:
            return NOTHING
        action = pl.lit(secrets.token_hex(12)).alias("action")
        at, event = pl.lit(self._clock()).alias("at"), pl.lit("labelled").alias("event")
        return missing.select(
            "case_id", "entity", "entity_id", pl.col("action").alias("other"), action, at, event
        )


def without_labels(moves: pl.DataFrame) -> pl.DataFrame:
    """Return the closings whose labels may be missing, rows of MOVES."""
    closed = moves.filter((pl.col("event") == "closed") & pl.col("reason").is_in(list(LABELLING)))
    if closed.height == 0:
        return closed
    done = moves.filter(pl.col("event") == "labelled").select("case_id", action="other")
    return closed.join(done, on=_CLOSING, how="anti")


def labels_of(closings: pl.DataFrame, memory: CaseMemory) -> pa.Table:
    """Return the labels of closings, of schema GIVEN: of the transactions that were in a case by then.

    The `source_position` of a label is the number of its closing.
    """
    parts = [_labels(closed, memory) for closed in closings.partition_by("action", maintain_order=True)]
    return pa.concat_tables([GIVEN.empty_table(), *parts])


def _labels(closed: pl.DataFrame, memory: CaseMemory) -> pa.Table:
    before = pl.col("number") < int(closed["number"].min())  # type: ignore[arg-type]  # an integer
    homes = homes_of(without_undone(memory.moves.filter(before)))
    members = memory.members.filter(before).select("transaction_id", pl.col("case_id").replace(homes))
    found = members.join(closed, on="case_id").unique("transaction_id", maintain_order=True)
    return found.select(
        "transaction_id",
        (pl.col("reason") == "fraud").alias("is_fraud"),
        pl.when(pl.col("reason") == "fraud").then("classification").alias("kind"),
        pl.col("at").alias("decided_at"),
        pl.col("who").alias("decided_by"),
        pl.col("number").alias("source_position"),
    ).to_arrow().cast(GIVEN)  # fmt: skip
