"""How many records a task takes from the broker at once: few, until a stream has shown that they are small.

Spark asks the broker for the bounds of a partition after each poll, so many small polls cost more than all
else that a task does. Large ones of records that unpack to megabytes cost the JVM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

FEW_AT_ONCE, MANY_AT_ONCE = 128, 4096
_POLL_BYTES = 8 << 20  # that a poll may unpack to, as far as a stream has shown
_WORTH_IT = 4  # times as many at once: a query begins anew for it
_ENOUGH = 100_000  # records of a batch that shows what a stream is like
SAMPLE = 1_000  # of the records that wait, the first of each partition
_FETCH_BYTES = 256  # for each record of a poll; what is fetched beyond a poll is thrown away


class PollSize:
    """The size of a stream's polls, as its batches come.

    Args:
        at_once: records at first, before anything is known of them.
        may_grow: whether there may be more, which the JVM has not ended over.

    Attributes:
        at_once: records of a poll.
    """

    def __init__(self, at_once: int, *, may_grow: bool) -> None:
        self.at_once, self._first, self._may_grow = at_once, at_once, may_grow

    def expect(self, unread: Callable[[], int], sample: Callable[[], Iterable[int]]) -> None:
        """Begin with as many as the records that wait show to be small, where many of them wait.

        Args:
            unread: counts the records that wait; not asked for where polls may not grow.
            sample: bytes of each of some of them; not asked for where they are too few to matter.
        """
        if not self._may_grow or unread() < _ENOUGH:
            return
        sizes = list(sample())
        if sizes:
            self._grow(_fitting(len(sizes), sum(sizes)))

    def learn(self, records: int, size: int) -> None:
        """Take note of a batch.

        Polls grow once, after a batch of many records; where a later batch shows that they are too large,
        they are few for good.

        Args:
            records: of the batch.
            size: bytes of them together, 0 where nobody knows.
        """
        if not size:
            return
        fitting = _fitting(records, size)
        if self.at_once > self._first and fitting < self.at_once // 2:
            self.at_once = self._first
        elif self._may_grow and records >= _ENOUGH:
            self._grow(fitting)

    def _grow(self, fitting: int) -> None:
        if fitting >= self.at_once * _WORTH_IT:
            self.at_once, self._may_grow = fitting, False


def _fitting(records: int, size: int) -> int:
    """Return how many of such records a poll may bring."""
    return max(FEW_AT_ONCE, min(MANY_AT_ONCE, _POLL_BYTES * records // max(size, 1)))


def fetch_bytes(at_once: int) -> int:
    """Return how many bytes of a partition are fetched at once, for polls of so many records."""
    return _FETCH_BYTES * max(at_once, FEW_AT_ONCE * 2)
