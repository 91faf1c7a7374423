"""Work spread over the cores of the machine, by threads that nobody ever waits for in vain.

Compiled loops and Arrow run without the GIL, so threads share their arrays and nothing is copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba

Argument = TypeVar("Argument")
Result = TypeVar("Result")

_ROWS_WORTH_THREADS = 4096
_PARTS_PER_THREAD = 2


class Cores:
    """One pool of threads for all that is spread.

    Whoever spreads work does it, too, and threads of the pool only help. When nothing is left to begin, the
    caller takes its offer back from threads that have not come yet, and waits for those alone that are at
    work. So parts may spread work in turn, from however many threads at once, without a deadlock.

    Args:
        threads: how many work at once, the caller included.
        rows_worth_threads: fewer rows are not worth waking anybody.
    """

    def __init__(self, threads: int, rows_worth_threads: int = _ROWS_WORTH_THREADS) -> None:
        self.threads, self._worth = max(threads, 1), rows_worth_threads
        # No worker: callers wait for every part and raise what it raised.
        self._helpers = ThreadPoolExecutor(max(self.threads - 1, 1), thread_name_prefix="cores")

    def each(
        self, work: Callable[[Argument], Result], arguments: Sequence[Argument], rows: int
    ) -> list[Result]:
        """Apply work to each argument, side by side where there are `rows` enough.

        All of it has ended when this returns or raises.

        Raises:
            Exception: what the work on the first of the arguments that failed has raised; an interruption
                goes before, and leaves what nobody has begun undone.
        """
        helpers = 0 if rows < self._worth else min(self.threads, len(arguments)) - 1
        if helpers < 1:
            return [work(argument) for argument in arguments]
        job = _Job(work, arguments)
        begun = [self._helpers.submit(job.help) for _ in range(helpers)]
        job.help()
        for helper in begun:
            if not helper.cancel():
                helper.result()
        return job.results()

    def spans(self, rows: int) -> list[slice]:
        """Return consecutive spans of so many rows, as many as are worth working on side by side."""
        parts = 1 if self.threads == 1 else min(self.threads * _PARTS_PER_THREAD, rows // self._worth)
        parts = max(parts, 1)
        return [slice(rows * part // parts, rows * (part + 1) // parts) for part in range(parts)]

    def over(self, work: Callable[[slice], object], rows: int) -> None:
        """Do the work of spans that make up so many rows, side by side where there are enough."""
        self.each(work, self.spans(rows), rows)


class _Job:
    """Parts of one piece of work; each is taken once, by whoever comes first."""

    def __init__(self, work: Callable[[Any], Any], arguments: Sequence[Any]) -> None:
        self._work = work
        self._left = deque(enumerate(arguments))
        self._results: list[Any] = [None] * len(arguments)
        self._failures: dict[int, BaseException] = {}

    def help(self) -> None:
        """Work until no part is left."""
        while True:
            try:
                place, argument = self._left.popleft()
            except IndexError:
                return
            try:
                self._results[place] = self._work(argument)
            except BaseException as failure:
                self._failures[place] = failure
                if not isinstance(failure, Exception):
                    self._left.clear()

    def results(self) -> list[Any]:
        """Return what the work has returned, or raise what has failed first, in the arguments' order."""
        if self._failures:
            raise min(self._failures.items(), key=lambda each: (isinstance(each[1], Exception), each[0]))[1]
        return self._results


def _threads() -> int:
    config: Any = numba.config
    return int(config.NUMBA_NUM_THREADS)


# As many as Numba would start: those of the machine, or what machine_limits leaves of them.
ALL_CORES = Cores(_threads())
