"""Says in a line what Spark says in a stack trace, and what follows from it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from schemas.errors import DataLossError, FlagstreamError, RetryableError
from streaming.kafka.grants import reading, refusal

_RECORD_AT, _STAMP_OVERFLOWS = "Record at topic", "that overflows when converting to"
_RECORDS_LOST = "Some data may have been lost because they are not available in Kafka"
# Partitions came that begin late, or have gone: what of it is a loss is found where the query begins anew.
_OTHER_PARTITIONS = re.compile(
    r"Added partition \S+ starts from \d+ instead of 0|Partitions .* have been deleted"
)
_HIDDEN = re.compile(r"Not authorized to access topics: \[([^\],]+)")


def as_project_error(fault: BaseException, bootstrap: str = "") -> FlagstreamError:
    """Return the error for what has ended a query or failed in it.

    Args:
        fault: as Spark raises it.
        bootstrap: address of the broker.
    """
    lines = str(fault).splitlines() or [type(fault).__name__]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    hidden = next((found for line in lines if (found := _HIDDEN.search(line))), None)
    if hidden is not None:
        return refusal(hidden[0], reading(hidden[1]), bootstrap, f"reading {hidden[1]}")
    return _lost(lines) or RetryableError(f"the streaming query failed: {(causes or lines)[0]}")


def _lost(lines: Sequence[str]) -> FlagstreamError | None:
    if any(_RECORDS_LOST in line for line in lines):
        where = next((line for line in lines if line.startswith("Reason: ")), "")
        others = next((found[0] for line in lines if (found := _OTHER_PARTITIONS.search(line))), None)
        if others is not None:
            return RetryableError(f"the topics have other partitions now: {others}")
        advice = "start again, which names the offsets that are gone and what to do"
        return DataLossError(f"records left the topic before they were read: {advice}. {where}".rstrip())
    stamped = next((line for line in lines if _STAMP_OVERFLOWS in line), None)
    if stamped is None:
        return None
    record = stamped[stamped.find(_RECORD_AT) :].rstrip(".")
    return DataLossError(
        f"a stamp that Spark cannot read: {record}; have the broker delete the records of that partition "
        "up to this one (kafka-delete-records), then start once with `flagstream run --accept-loss "
        '"why"`; message.timestamp.after.max.ms of the topic keeps such records out'
    )
