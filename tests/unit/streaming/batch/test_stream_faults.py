"""What Spark says in a stack trace is said in a line, and what lasts is not tried again."""

from __future__ import annotations

import pytest
from pyspark.errors import StreamingQueryException

from schemas.errors import ConfigurationError, DataLossError, RetryableError
from streaming.batch.stream_faults import as_project_error

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
