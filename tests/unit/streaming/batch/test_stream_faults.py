"""What Spark says in a stack trace is said in a line, and what lasts is not tried again."""

from __future__ import annotations

import pytest
from pyspark.errors import StreamingQueryException

from schemas.errors import DataLossError, RetryableError
from streaming.batch.runner import _as_project_error

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
    found = _as_project_error(StreamingQueryException(TRACE.format(cause=STAMPED)))
    assert isinstance(found, DataLossError)
    assert str(found).startswith(f"a stamp that Spark cannot read: {RECORD} that overflows")
    assert "--accept-loss" in str(found)


@pytest.mark.parametrize("cause", ["java.net.SocketException: away", "x.TimeoutException"])
def test_what_may_pass_is_tried_again(cause: str) -> None:
    found = _as_project_error(StreamingQueryException(TRACE.format(cause=cause)))
    assert isinstance(found, RetryableError)
    assert str(found) == f"the streaming query failed: {cause}"
