"""Folds revisions of alerts: none is given after a higher one of the same alert."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from streaming.consume.received import Received

_REMEMBERED = 65_536


class NewestRevisions:
    """Which revisions are still in force; the newest of 65,536 alerts are remembered."""

    def __init__(self, most: int = _REMEMBERED) -> None:
        self._most = most
        self._known: OrderedDict[str, int] = OrderedDict()

    def among(self, fetched: Sequence[object]) -> list[bool]:
        """Say which of these are alerts without a higher revision among them, or before them."""
        for each in fetched:
            if isinstance(each, Received):
                self._note(*each.key)
        newest = [isinstance(each, Received) and self._stands(*each.key) for each in fetched]
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return newest

    def _stands(self, alert_id: str, revision: int) -> bool:
        return revision >= self._known[alert_id]

    def _note(self, alert_id: str, revision: int) -> None:
        self._known[alert_id] = max(revision, self._known.get(alert_id, 0))
        self._known.move_to_end(alert_id)
