"""Finishes a decided batch while the next one is taken from Kafka and decoded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from streaming.batch.pipeline import ClosedBatch, Unfinished


class Finisher:
    """Finishes one batch at a time, in a thread of its own.

    A batch is decided by its commit of transactions, and finished from there by what Delta holds, whatever
    happens to the process. So Spark may go on to the next one, as long as that is not decided before this one
    is finished.

    Args:
        finish: does what is left of a batch.
        on_batch: called with every batch that closed, in their order.
    """

    def __init__(
        self, finish: Callable[[Unfinished], ClosedBatch], on_batch: Callable[[ClosedBatch], None]
    ) -> None:
        self._finish, self._on_batch = finish, on_batch
        self._pending: Future[None] | None = None
        # No worker: whoever settles waits for the result and raises what it raised.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="finishing")

    def begin(self, unfinished: Unfinished) -> None:
        """Begin to finish a batch; the one before is settled."""
        self._pending = self._thread.submit(self._run, unfinished)

    def settle(self) -> None:
        """Wait until nothing is left to finish; raises what went wrong, each time."""
        if self._pending is not None:
            self._pending.result()

    def check(self) -> None:
        """Raise what went wrong, without waiting."""
        if self._pending is not None and self._pending.done():
            self._pending.result()

    def close(self) -> None:
        """Wait until nothing is left to finish."""
        self._thread.shutdown()

    def _run(self, unfinished: Unfinished) -> None:
        self._on_batch(self._finish(unfinished))
