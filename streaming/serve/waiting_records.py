"""What waits in the quarantine, read once for all who look: a million records take seconds."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import polars as pl

from schemas.lake_tables import Table
from streaming.delta.lake_reader import LakeReader
from streaming.delta.table_versions import change_mark
from streaming.home.placed_agent import PlacedAgent
from streaming.quarantine.paging import in_page_order
from streaming.quarantine.requests import read_requests
from streaming.quarantine.waiting import waiting
from streaming.serve.paced_work import LONGEST_WAIT_SECONDS, StillReadingError

_TABLES: tuple[Table, ...] = ("quarantine", "requeues")
_NONE = (0, 0)


@dataclass(frozen=True)
class _Held:
    marks: tuple[tuple[int, int], ...]
    rows: pl.DataFrame


class WaitingRecords:
    """The records of an agent that wait, shared by all who ask. Safe to use from several threads.

    Args:
        agent: whose quarantine it is.
    """

    def __init__(self, agent: PlacedAgent) -> None:
        reader = LakeReader.of(agent)
        self._places = [reader.place(each) for each in _TABLES]
        self._lock = threading.Lock()
        self._held: _Held | None = None

    def in_page_order(self) -> pl.DataFrame:
        """Return what waits by now, without sizes; read by one at a time, once per state of the tables.

        Raises:
            StillReadingError: another reads, and needs long.
            FlagstreamError: the lake cannot be read.
        """
        if not self._lock.acquire(timeout=LONGEST_WAIT_SECONDS):
            raise StillReadingError("records that wait are still being read: ask again soon")
        try:
            return self._kept().rows
        finally:
            self._lock.release()

    def _kept(self) -> _Held:
        before = (_NONE,) * len(self._places) if self._held is None else self._held.marks
        # Read first: of what is committed meanwhile, the next one finds the marks changed.
        marks = tuple(change_mark(*each) for each in zip(self._places, before, strict=True))
        if self._held is None or marks != self._held.marks:
            self._held = None  # two of them would not be held at once
            self._held = _Held(marks, self._read())
        return self._held

    def _read(self) -> pl.DataFrame:
        quarantine, requeues = self._places
        return in_page_order(waiting(quarantine, requeues, read_requests(requeues), sizes=False))
