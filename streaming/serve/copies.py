"""The copies that single alerts and payments are read from: made beside requests, piece by piece."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from schemas.counts import count_of
from streaming.output.log import log

_WORTH_TELLING = 500_000  # rows: fewer are copied before anybody asks about them


class Copied(Protocol):
    """Rows of a table that are copied."""

    def build(self) -> bool:
        """Copy some of what is new; return whether there may be more."""

    @property
    def missing(self) -> tuple[int, int]:
        """How many rows are not copied yet, and how many there are."""


class Copies:
    """All copies of one agent's tables. One thread calls `go_on`, any thread `progress`.

    Args:
        agent: its name, for the log.
        parts: in the order in which they are needed.
    """

    def __init__(self, agent: str, parts: Sequence[Copied]) -> None:
        self._agent, self._parts = agent, tuple(parts)
        self._begun_at: float | None = None
        self._faults: dict[Copied, Exception] = {}

    def go_on(self) -> bool:
        """Copy a piece of what is new; return whether there may be more.

        Raises:
            FlagstreamError: a table cannot be read, or a copy not be written.
        """
        has_more = self._build()
        if not has_more and self._begun_at is None:
            return False
        missing, total = self._counted()
        rows = count_of(total, "row")
        if self._begun_at is None and missing > _WORTH_TELLING:
            self._begun_at = time.monotonic()
            said = f"alerts and payments are being copied for single pages: {missing:,} of {rows}"
            log("copying", said, agent=self._agent, missing=missing, rows=total)
        elif self._begun_at is not None and not has_more:
            took, self._begun_at = time.monotonic() - self._begun_at, None
            log(
                "copied",
                f"{rows} are copied, after {took:.0f} s",
                agent=self._agent,
                rows=total,
            )
        return has_more

    def _build(self) -> bool:
        """A part that fails keeps no other from being made: its fault is raised once they are."""
        for part in self._parts:
            if part in self._faults:
                continue
            try:
                if part.build():
                    return True
            except Exception as fault:
                self._faults[part] = fault
        faults, self._faults = list(self._faults.values()), {}
        if faults:
            raise faults[0]
        return False

    @property
    def progress(self) -> str | None:
        """How much is copied, while there is much to be copied; None where there is not."""
        if self._begun_at is None:
            return None
        missing, total = self._counted()
        return f"{1 - missing / max(total, 1):.0%} of {count_of(total, 'row')}"

    def _counted(self) -> tuple[int, int]:
        counts = [each.missing for each in self._parts]
        return sum(missing for missing, _ in counts), sum(total for _, total in counts)
