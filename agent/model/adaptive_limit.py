"""How many requests at a time an endpoint takes: fewer when it says so or is late, more as it answers."""

from __future__ import annotations


class AdaptiveLimit:
    """Additive increase, multiplicative decrease: what shares a line fairly among many (Chiu and Jain, 1989).

    It begins at the ceiling. Half of it is left where an endpoint has refused or lost a request; of requests
    that were under way together only the first counts. Each answer adds its share of one request.

    Args:
        ceiling: requests at a time at most.
    """

    def __init__(self, ceiling: int) -> None:
        self._ceiling, self._limit = ceiling, float(ceiling)
        self._begun, self._cut_before = 0, 0

    @property
    def now(self) -> int:
        """Requests at a time as things stand, at least one."""
        return int(self._limit)

    def begin(self) -> int:
        """Take in that a request begins; return its number, for `overloaded`."""
        self._begun += 1
        return self._begun

    def answered(self) -> None:
        """Take in that a request was answered."""
        self._limit = min(self._limit + 1 / self._limit, float(self._ceiling))

    def overloaded(self, number: int) -> None:
        """Take in that a request was refused for the endpoint's load, or had no answer in time.

        Args:
            number: of the request, see `begin`.
        """
        if number > self._cut_before:
            self._limit, self._cut_before = max(self._limit / 2, 1.0), self._begun
