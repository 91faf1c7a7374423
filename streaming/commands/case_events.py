"""The changes of an agent's cases, as routes of `notify` read them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from schemas.cases import CaseChange
from streaming.cases.book import CaseBook
from streaming.home.placed_agent import PlacedAgent

_PACE_SECONDS = 2.0
_ALL = 1 << 31


class BookedCases:
    """See streaming.notify.case_changes.CaseEvents; several routes share one.

    Alerts become cases whoever looks first, so whoever tells of cases looks now and then. Nothing is read
    before somebody asks.

    Args:
        agent: whose cases they are.
        clock: seconds of a clock that never goes back.
    """

    def __init__(self, agent: PlacedAgent, clock: Callable[[], float] = time.monotonic) -> None:
        self._book, self._clock, self._lock = CaseBook(agent), clock, threading.Lock()
        self._grouped_at = -_PACE_SECONDS

    def next_number(self) -> int:
        """See CaseEvents."""
        return self._book.refresh()

    def end(self) -> int:
        """See CaseEvents."""
        self._group()
        return self.next_number()

    def since(self, first: int, wanted: Collection[CaseChange]) -> list[dict[str, Any]]:
        """See CaseEvents."""
        self._group()
        return self._book.changes(first, wanted)

    def newest(self, case_id: str, wanted: Collection[CaseChange]) -> dict[str, Any] | None:
        """Return the last of these changes of one case, None where there was none.

        Raises:
            NoSuchCaseError: there is no such case.
        """
        whole = self._book.case(case_id).case_id
        found = self._book.changes(0, wanted, most=_ALL, case_id=whole)
        return found[-1] if found else None

    def _group(self) -> None:
        with self._lock:
            if self._clock() - self._grouped_at >= _PACE_SECONDS:
                self._book.group()
                self._grouped_at = self._clock()
