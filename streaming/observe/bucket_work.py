"""What buckets of profiles on executors did for a batch: how many, how evenly, and which were built anew."""

from __future__ import annotations

from dataclasses import dataclass

from streaming.observe.metric import MetricBook
from streaming.run.executors import ClusterFacts


@dataclass(frozen=True)
class BucketWork:
    """Buckets at the end of a batch.

    Attributes:
        buckets: how many, over all kinds of entities.
        rows: of the batch, counted once for each kind of entities that they name.
        largest: rows of the bucket that had most of them.
        rebuilt: buckets that were built anew since the batch before, the first time included.
        most_bytes: held by the largest one.
    """

    buckets: int
    rows: int
    largest: int
    rebuilt: int
    most_bytes: int

    @property
    def skew(self) -> float | None:
        """How many times the mean of all buckets the busiest one had of the rows; None without rows."""
        return self.largest * self.buckets / self.rows if self.rows else None

    @property
    def facts(self) -> dict[str, str | int | float | bool]:
        """The same as attributes of a span."""
        found: dict[str, str | int | float | bool] = {
            "flagstream.buckets": self.buckets,
            "flagstream.buckets.rows": self.rows,
            "flagstream.buckets.largest_rows": self.largest,
            "flagstream.buckets.rebuilt": self.rebuilt,
        }
        return found if self.skew is None else {**found, "flagstream.buckets.skew": round(self.skew, 3)}


class BucketWatch:
    """Tells of each batch once; what is built anew for a checkpoint counts with the batch after it.

    Args:
        cluster: whose buckets they are, as the run keeps it up to date.
    """

    def __init__(self, cluster: ClusterFacts) -> None:
        self._cluster, self._rebuilt = cluster, 0

    def of_batch(self) -> BucketWork | None:
        """Return what the newest batch came to, None where executors hold no buckets."""
        found = self._cluster.buckets
        if found is None or not found.buckets:
            return None
        rebuilt, self._rebuilt = found.rebuilt - self._rebuilt, found.rebuilt
        return BucketWork(found.buckets, found.rows, found.largest, rebuilt, found.most_bytes)


class BucketMetrics:
    """Metrics of buckets; there are no series where executors hold none."""

    def __init__(self, book: MetricBook) -> None:
        self.held = book.gauge("executor_buckets", "Buckets of profiles that executors hold.")
        self.skew = book.gauge(
            "executor_bucket_skew_ratio",
            "Rows of the newest batch that its busiest bucket had, over the mean of all buckets.",
        )
        self.largest = book.gauge(
            "executor_bucket_largest_bytes", "Memory that profiles take in the largest bucket."
        )
        self.rebuilt = book.counter(
            "executor_buckets_rebuilt_total",
            "Buckets that an executor was sent whole, the first time included.",
            at_once=False,
        )

    def count(self, work: BucketWork) -> None:
        """Take in a batch."""
        self.held.put(work.buckets)
        self.largest.put(work.most_bytes)
        self.rebuilt.add(work.rebuilt)
        if work.skew is not None:
            self.skew.put(work.skew)
