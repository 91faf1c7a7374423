"""How fast a model has shown itself to be, and what follows: groups per request, and how long to wait."""

from __future__ import annotations

_REQUEST_SECONDS = 20.0
_USUALLY_WITHIN = 3.0
_OVERDUE_SECONDS = 30.0
_LOST_WITHIN = 20.0
_LOST_SECONDS = 600.0


class Tempo:
    """Learns from each request how long a group takes.

    The first request asks about one group; the next ones about twice as many at most as were answered at
    once, as long as that takes about 20 seconds.

    Args:
        most_groups: groups in a request at most, however fast the model is.
        patience: seconds after which no answer is waited for.
    """

    def __init__(self, most_groups: int, patience: float) -> None:
        self._most_groups, self._patience = most_groups, patience
        self._groups, self._seconds, self._lost = 1, 0.0, 0

    @property
    def groups(self) -> int:
        """How many groups a request is to ask about."""
        return self._groups

    def answered(self, groups: int, seconds: float) -> None:
        """Take in that a request about so many groups was answered in so many seconds."""
        each = seconds / groups
        self._seconds = each if self._seconds == 0.0 else (self._seconds + each) / 2
        fitting = int(_REQUEST_SECONDS / max(self._seconds, _REQUEST_SECONDS / self._most_groups))
        self._groups = max(min(fitting, max(2 * groups, self._groups)), 1)
        self._lost = 0

    def lost(self) -> None:
        """Take in that a request had no answer within its limit: the next get more time, and ask less."""
        self._groups, self._lost = max(self._groups // 2, 1), self._lost + 1

    def limit(self, groups: int) -> float:
        """Return the seconds after which a request about so many groups is held to be lost."""
        usual = max(_LOST_SECONDS, _LOST_WITHIN * self._seconds * groups)
        return min(usual * 2.0 ** min(self._lost, 32), self._patience)

    def overdue(self, groups: int) -> float:
        """Return the seconds after which others are not kept waiting for a request any longer."""
        return max(_OVERDUE_SECONDS, _USUALLY_WITHIN * self._seconds * groups)
