"""A record of the topic is an alert, is passed over, or stops the reader of its agent."""

from __future__ import annotations

from typing import cast

import orjson
import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import ALERT_VERSION
from schemas.errors import ConfigurationError
from streaming.consume.received import PassedRecord, Received, received_of
from streaming.kafka.outbox_record import AGENT_HEADER


class Record:
    """A record as Kafka's client has it."""

    def __init__(self, content: object, agent: str | None) -> None:
        self._value = content if isinstance(content, bytes) else orjson.dumps(content)
        self._agent = agent

    def value(self) -> bytes:
        return self._value

    def headers(self) -> list[tuple[str, bytes]] | None:
        return None if self._agent is None else [(AGENT_HEADER, self._agent.encode())]

    def topic(self) -> str:
        return "alerts"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 7


def read(content: object, agent: str | None, wanted: str | None) -> Received | PassedRecord:
    return received_of(cast("Message", Record(content, agent)), wanted)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.dictionaries(
        st.sampled_from(["alert_version", "alert_id", "revision", "agent"]), inner, max_size=4
    ),
    max_leaves=8,
)


@given(ODD | st.binary(max_size=20), st.sampled_from([None, "b"]))
def test_no_record_of_another_s_or_of_nobody_s_stops_a_reader_of_one_agent(
    content: object, agent: str | None
) -> None:
    found = read(content, agent, "a")
    assert isinstance(found, PassedRecord)
    assert (found.partition, found.offset) == (3, 7)


@given(ODD | st.binary(max_size=20))
def test_what_an_agent_writes_is_an_alert_passed_over_or_of_a_later_version(content: object) -> None:
    later = isinstance(content, dict) and type(content.get("alert_version")) is int
    try:
        found = read(content, "a", "a")
    except ConfigurationError:
        assert later and cast("dict[str, int]", content)["alert_version"] > ALERT_VERSION
        return
    if isinstance(found, Received):
        assert found.alert["alert_version"] == ALERT_VERSION
        assert (type(found.alert["alert_id"]), type(found.alert["revision"])) == (str, int)
    else:
        assert found.no_alert


def test_a_later_version_stops_whoever_reads_that_agent_s_alerts() -> None:
    alert = {"alert_version": ALERT_VERSION + 1, "alert_id": "x", "revision": 1}
    assert read(alert, "b", "a") == PassedRecord(3, 7, no_alert=False)
    for wanted in ("b", None):
        with pytest.raises(ConfigurationError, match="update flagstream"):
            read(alert, "b", wanted)
