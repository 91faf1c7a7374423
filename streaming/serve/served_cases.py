"""The case book of one agent as the server has it: brought up to its alerts for whoever asks.

Nothing is read before somebody asks about cases; the first of them waits until all events are read. Others
wait a moment: while a large lake is read, or a store does not answer, they hold no thread that others need.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from streaming.cases.book import CaseBook
from streaming.output.log import log
from streaming.serve.paced_work import PacedWork, StillReadingError
from streaming.service.worker import cause_of

_LONGEST_REST_SECONDS = 3.0


class ServedCases:
    """Safe to use from several threads.

    Args:
        book: of the agent.
        seconds: monotonic seconds.
    """

    def __init__(self, book: CaseBook, seconds: Callable[[], float] = time.monotonic) -> None:
        self._book = book
        self._grouping = PacedWork(self._group, "cases", seconds, _LONGEST_REST_SECONDS)

    def grouped(self) -> CaseBook:
        """Return the book with the alerts of a moment ago, and the labels of closed cases.

        That is a second after they were last grouped, or up to three where that takes long.

        Raises:
            RetryableError: another request is at it, and needs long.
            FlagstreamError: the lake cannot be read or written.
        """
        self._grouping.catch_up()
        return self._book

    def shown(self) -> CaseBook:
        """Return the book for whoever only looks: where nothing can be written, with the cases on record.

        Raises:
            RetryableError: see grouped.
            FlagstreamError: the lake cannot be read.
        """
        try:
            return self.grouped()
        except StillReadingError:
            raise  # whoever is at it holds the book, too
        except Exception:  # a library's own is a refusal to write, too
            self._book.refresh()
            return self._book

    def _group(self) -> None:
        try:
            self._book.group()
        except Exception as fault:
            said = f"alerts wait to be grouped into cases: {cause_of(fault)}"
            log("cases_not_grouped", said, level=logging.WARNING)
            raise
