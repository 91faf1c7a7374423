"""A ledger that tests ask what was asked."""

from __future__ import annotations

from collections.abc import Sequence

from agent.triage.ledger import Intent, MemoryLedger


class NotedLedger(MemoryLedger):
    """A ledger in memory that knows every question asked so far."""

    def __init__(self) -> None:
        super().__init__()
        self._intents: dict[str, Intent] = {}

    @property
    def intents(self) -> Sequence[Intent]:
        """Every question asked so far, in order."""
        return tuple(self._intents.values())

    def intend(self, entries: Sequence[Intent]) -> None:
        super().intend(entries)
        self._intents.update({entry.key: entry for entry in entries})
