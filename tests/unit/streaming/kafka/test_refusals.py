"""What the broker refuses for good is distinguished from what passes."""

from __future__ import annotations

from functools import partial

import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given
from hypothesis import strategies as st

from agent.model.processes import free_port
from schemas.errors import ConfigurationError, FencedError, RetryableError
from schemas.subscription import Subscription
from streaming.kafka.grants import to_publish
from streaming.kafka.refusals import TooLargeError, raise_if_fenced, raise_if_refused, words_of
from streaming.kafka.topic_facts import TopicFacts


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, TooLargeError),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, ConfigurationError),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, ConfigurationError),
        (KafkaError.INVALID_RECORD, ConfigurationError),
    ],
)
def test_what_repeating_does_not_cure_is_raised(code: int, raised: type[Exception]) -> None:
    with pytest.raises(raised):
        raise_if_refused(
            KafkaException(KafkaError(code)), "alerts", to_publish("alerts", "payments"), "one:9092"
        )


@pytest.mark.parametrize("more", ["", ", 3 identical error(s) suppressed"])
@given(st.integers(0, 10**6))
def test_the_same_fault_has_the_same_words_however_long_it_took(more: str, took: int) -> None:
    said = f"b:9092/bootstrap: Failed to resolve 'b:9092' (after {took}ms in state CONNECT{more})"
    fault = KafkaException(KafkaError(KafkaError._RESOLVE, said))
    assert words_of(fault) == "b:9092/bootstrap: Failed to resolve 'b:9092'"


@pytest.mark.parametrize(
    "code", [KafkaError._TRANSPORT, KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS]
)
def test_what_passes_is_not(code: int) -> None:
    raise_if_refused(KafkaException(KafkaError(code)), "alerts", to_publish("alerts", "payments"), "one:9092")
    raise_if_fenced(KafkaError(code))


def test_a_successor_is_neither() -> None:
    with pytest.raises(FencedError):
        raise_if_fenced(KafkaError(KafkaError.PRODUCER_FENCED))


def test_people_read_words_instead_of_a_representation() -> None:
    """An address where nobody listens: what is said names it, and what was asked, in words."""
    refused = f"127.0.0.1:{free_port()}"
    watch = TopicFacts(refused, Subscription(("payments",)), call_seconds=0.5)
    for ask in (partial(watch.topic_ids, ["payments"]), watch.bounds):
        with pytest.raises(
            RetryableError, match=f"asking {refused} for the .* of topic payments: "
        ) as raised:
            ask()
        assert "KafkaError{" not in str(raised.value)
        assert not str(raised.value).endswith(": ")
    assert words_of(TimeoutError()) == "no answer in time"
