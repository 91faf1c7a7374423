"""Says in a line what Spark says in a stack trace, and what follows from it."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from schemas.errors import ConfigurationError, DataLossError, FlagstreamError, RetryableError
from streaming.kafka.grants import reading, refusal

_RECORD_AT, _STAMP_OVERFLOWS = "Record at topic", "that overflows when converting to"
_RECORDS_LOST = "Some data may have been lost because they are not available in Kafka"
# Partitions came that begin late, or have gone: what of it is a loss is found where the query begins anew.
_OTHER_PARTITIONS = re.compile(
    r"Added partition \S+ starts from \d+ instead of 0|Partitions .* have been deleted"
)
_OF_PYTHON = "An exception was thrown from the Python worker"
_NOT_INSTALLED = re.compile(r"^(?:\w+\.)*(?:ModuleNotFoundError|ImportError|AttributeError): .*")
_OTHER_PYTHON = "PYTHON_VERSION_MISMATCH"
# Of what executors and their Python processes die that the batch itself ends, as Spark says it.
_BY_TASKS = re.compile(r"exited caused by one of the running tasks\) Reason: (.+)")
_EXIT_CODE = re.compile(r"exit(?:ed with)? code (\d+)")
_HEAP_IS_FULL = re.compile(r"java\.lang\.OutOfMemoryError: (?:Java heap space|GC overhead)")
_PYTHON_IS_SILENT = re.compile(
    r"Python worker process terminated due to idle timeout \(timeout: \d+ seconds\)"
)
_PYTHON_IS_FULL = re.compile(r"^(?:[\w.]+\.)?(?:_Array|Arrow)?MemoryError\b")
_PYTHON_HAS_ENDED = "Python worker exited unexpectedly (crashed)"
_WHY = {
    52: "the heap of its JVM is full (exit code 52)",
    134: "its JVM broke off (exit code 134)",
    137: "it was killed, as a machine or container without memory does (exit code 137)",
    139: "its JVM broke off (exit code 139)",
}
_HIDDEN = re.compile(r"Not authorized to access topics: \[([^\],]+)")


class ExecutorEndedError(RetryableError):
    """A task has ended its executor, or had no memory in it, as often as Spark runs it."""


class StopRequestedError(Exception):
    """A stop was asked for: a micro-batch that Spark hands over is refused, a decided one left as it is."""


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
    return (
        _lost(lines)
        or _not_installed(lines)
        or _ended(lines)
        or RetryableError(f"the streaming query failed: {(causes or lines)[0]}")
    )


def _not_installed(lines: Sequence[str]) -> FlagstreamError | None:
    """Python works for Spark on executors alone, where only the decoder is loaded."""
    if not any(_OF_PYTHON in line for line in lines):
        return None
    fault = next(
        (line for line in reversed(lines) if _NOT_INSTALLED.match(line) or _OTHER_PYTHON in line), None
    )
    if fault is None:
        return None
    return ConfigurationError(
        f"executors cannot load the decoder: {fault}; every worker needs the driver's environment of Python, "
        f"under the same path: {sys.executable}",
        where="cluster",
    )


def _ended(lines: Sequence[str]) -> FlagstreamError | None:
    """Whoever was lost with its machine is not meant: that passes, and says nothing of the batch."""
    why = next(filter(None, map(_end_of_a_task, lines)), None)
    return None if why is None else ExecutorEndedError(f"an executor ends over its task: {why}")


def _end_of_a_task(line: str) -> str | None:
    if _HEAP_IS_FULL.search(line):
        return _WHY[52]
    silent, by_task = _PYTHON_IS_SILENT.search(line), _BY_TASKS.search(line)
    if silent is not None:
        return f"{silent[0]}, see cluster.task_timeout"
    if _PYTHON_IS_FULL.match(line):
        return "its Python process may not take more memory"
    if _PYTHON_HAS_ENDED in line:
        return "its Python process has ended, as one does whose machine has no memory left"
    code = None if by_task is None else _EXIT_CODE.search(by_task[1])
    return None if code is None else _WHY.get(int(code[1]), f"exit code {code[1]}")


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
