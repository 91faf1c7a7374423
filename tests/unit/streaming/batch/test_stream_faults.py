"""What Spark says in a stack trace is said in a line, and what lasts is not tried again."""

from __future__ import annotations

import pytest
from pyspark.errors import StreamingQueryException

from schemas.errors import ConfigurationError, DataLossError, RetryableError
from streaming.batch.stream_faults import ExecutorEndedError, as_project_error

TRACE = """[STREAM_FAILED] Query terminated.
\tat org.apache.spark.x(y.scala:1)
Caused by: {cause}
\tat z(z.scala:2)"""
RECORD = "Record at topic events partition 0 offset 8 has timestamp value 4611686018427387904"
STAMPED = (
    f"org.apache.spark.sql.kafka010.KafkaIllegalStateException: {RECORD} that overflows when converting to "
    "Spark's microsecond-precision TimestampType."
)


def test_a_record_that_spark_can_never_read_ends_the_run_and_is_named() -> None:
    found = as_project_error(StreamingQueryException(TRACE.format(cause=STAMPED)))
    assert isinstance(found, DataLossError)
    assert str(found).startswith(f"a stamp that Spark cannot read: {RECORD} that overflows")
    assert "--accept-loss" in str(found)


@pytest.mark.parametrize("cause", ["java.net.SocketException: away", "x.TimeoutException"])
def test_what_may_pass_is_tried_again(cause: str) -> None:
    found = as_project_error(StreamingQueryException(TRACE.format(cause=cause)))
    assert isinstance(found, RetryableError)
    assert str(found) == f"the streaming query failed: {cause}"


LOST = "Caused by: x.KafkaException: Some data may have been lost because they are not available in Kafka"


@pytest.mark.parametrize(
    "reason",
    ["Added partition pay.b-0 starts from 5 instead of 0.", "Partitions Set(pay.b-0) have been deleted."],
)
def test_other_partitions_are_looked_for_where_the_query_begins_anew(reason: str) -> None:
    found = as_project_error(StreamingQueryException(f"{LOST}\nReason: {reason}"))
    assert isinstance(found, RetryableError)


def test_a_gap_is_a_loss() -> None:
    gone = as_project_error(StreamingQueryException(f"{LOST}\nReason: it was aged out"))
    assert isinstance(gone, DataLossError)
    assert "start again, which names the offsets" in str(gone)


def test_a_topic_that_may_not_be_read_is_named_with_the_grant() -> None:
    cause = "Caused by: x.TopicAuthorizationException: Not authorized to access topics: [events]"
    found = as_project_error(StreamingQueryException(f"failed\n{cause}"), "one:9092")
    assert isinstance(found, ConfigurationError)
    assert "`kafka-acls --bootstrap-server one:9092 --add" in str(found)
    assert "--operation Read --topic events`" in str(found)


@pytest.mark.parametrize(
    "last",
    [
        "ModuleNotFoundError: No module named 'streaming'",
        "[PYTHON_VERSION_MISMATCH] Python in worker has 3.13",
    ],
)
def test_executors_that_cannot_load_the_decoder_end_the_run_and_say_why(last: str) -> None:
    text = f"An exception was thrown from the Python worker:\nTraceback:\n  File x\n{last}\n"
    found = as_project_error(RuntimeError(text))
    assert isinstance(found, ConfigurationError)
    assert last in str(found)
    other = as_project_error(RuntimeError(text.replace(last, "ValueError: of a record")))
    assert isinstance(other, RetryableError), "which may pass, and whose text is not shown"
    assert "of a record" not in str(other)


OVER_A_TASK = "Lost task 0.3 in stage 2.0 (TID 5): ExecutorLostFailure (executor 4 exited "
BY_IT = "caused by one of the running tasks) Reason: "


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (f"{OVER_A_TASK}{BY_IT}Command exited with code 52", "heap of its JVM is full"),
        (f"{OVER_A_TASK}{BY_IT}Command exited with code 137", "was killed"),
        ("x.y: java.lang.OutOfMemoryError: Java heap space", "heap of its JVM is full"),
        ("MemoryError", "may not take more memory"),
        ("pyarrow.lib.ArrowMemoryError: malloc of size 64 failed", "may not take more memory"),
        (
            "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8.00 GiB",
            "may not take more memory",
        ),
        ("x.SparkException: Python worker exited unexpectedly (crashed)", "its Python process has ended"),
        (
            "Python worker process terminated due to idle timeout (timeout: 120 seconds)",
            "cluster.task_timeout",
        ),
    ],
)
def test_what_ends_executors_over_their_tasks_is_named(cause: str, said: str) -> None:
    found = as_project_error(RuntimeError(f"Job aborted.\n{cause}\n\tat x"))
    assert isinstance(found, ExecutorEndedError)
    assert said in str(found)


@pytest.mark.parametrize(
    "reason",
    [
        "unrelated to the running tasks) Reason: worker lost: Not receiving heartbeat for 10 seconds",
        f"{BY_IT}Remote RPC client disassociated. Likely network issues.",
    ],
)
def test_a_machine_that_is_lost_says_nothing_of_the_batch(reason: str) -> None:
    assert not isinstance(as_project_error(RuntimeError(OVER_A_TASK + reason)), ExecutorEndedError)
