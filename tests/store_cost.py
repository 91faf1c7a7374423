"""What an object store costs at a rate of events: requests by the batch, space by the event.

What is counted is counted by tests; prices are list prices of a month, which providers change.
"""

from __future__ import annotations

from dataclasses import dataclass

DAYS_PER_MONTH = 30
# Of a batch with alerts: transactions, alerts, audit, batches, monitoring.
COMMITS_PER_BATCH = 5
# A commit writes its file and its log entry.
WRITES_PER_COMMIT = 2
# Besides, a batch reads the audit log's anchor twice and moves it.
WRITES_PER_BATCH = WRITES_PER_COMMIT * COMMITS_PER_BATCH + 1
READS_PER_BATCH = 2
# By the clock: a list for labels, for the registry and for requests to requeue, and a write for the counter
# of who runs the agent. A list costs what a write does.
LABELS_SECONDS, REGISTRY_SECONDS, REQUEUES_SECONDS, BEAT_SECONDS = 3.0, 5.0, 5.0, 5.0
LISTS_PER_SECOND = 1 / LABELS_SECONDS + 1 / REGISTRY_SECONDS + 1 / REQUEUES_SECONDS
LOOKS_PER_SECOND = LISTS_PER_SECOND + 1 / BEAT_SECONDS
# Of simulated payments in compacted tables, by `flagstream bench growth`; texts and long ids take more.
BYTES_PER_EVENT = 48.0
_SECONDS_PER_DAY, _SECONDS_PER_MINUTE = 86_400.0, 60.0
_GIGABYTE = 1e9


@dataclass(frozen=True)
class StorePrices:
    """List prices of a kind of store, in USD.

    Attributes:
        name: of the store, with its region.
        as_of: month in which they were noted.
        writes: per 1,000 requests that write or list.
        reads: per 1,000 that read.
        gigabyte: for each month.
    """

    name: str
    as_of: str
    writes: float
    reads: float
    gigabyte: float


@dataclass(frozen=True)
class StoreCost:
    """What a store costs in USD.

    Attributes:
        batches_per_day: that the events come in.
        requests: of thirty days.
        gigabytes: that the events of thirty days take, compacted.
        space: for each month that these are kept.
    """

    batches_per_day: float
    requests: float
    gigabytes: float
    space: float


AMAZON = StorePrices("Amazon S3 Standard, us-east-1", "2025-01", 0.005, 0.0004, 0.023)
AZURE = StorePrices("Azure Blob Storage, hot, LRS, East US", "2023-09", 0.005, 0.0004, 0.0184)


@dataclass(frozen=True)
class RequestRates:
    """Requests in a minute, by kind.

    Attributes:
        writes: data files, entries of logs, the anchor, the counter.
        reads: of the anchor.
        lists: looks by the clock.
    """

    writes: float
    reads: float
    lists: float


def request_rates(seconds_per_batch: float) -> RequestRates:
    """Return what a running agent asks of a store in a minute, where each batch has alerts.

    Args:
        seconds_per_batch: from the beginning of one to that of the next.
    """
    batches = _SECONDS_PER_MINUTE / seconds_per_batch
    return RequestRates(
        writes=batches * WRITES_PER_BATCH + _SECONDS_PER_MINUTE / BEAT_SECONDS,
        reads=batches * READS_PER_BATCH,
        lists=_SECONDS_PER_MINUTE * LISTS_PER_SECOND,
    )


def store_cost(prices: StorePrices, events_per_day: float, seconds_per_batch: float) -> StoreCost:
    """Return what a store costs, without what starts, maintenance and readers ask of it.

    Args:
        prices: of the store.
        events_per_day: evenly over the day; no batch begins without one.
        seconds_per_batch: from the beginning of one to that of the next.
    """
    batches = min(events_per_day, _SECONDS_PER_DAY / seconds_per_batch)
    batch = (WRITES_PER_BATCH * prices.writes + READS_PER_BATCH * prices.reads) / 1_000
    looks = LOOKS_PER_SECOND * _SECONDS_PER_DAY * prices.writes / 1_000
    gigabytes = events_per_day * DAYS_PER_MONTH * BYTES_PER_EVENT / _GIGABYTE
    return StoreCost(
        batches_per_day=batches,
        requests=(batches * batch + looks) * DAYS_PER_MONTH,
        gigabytes=gigabytes,
        space=gigabytes * prices.gigabyte,
    )
