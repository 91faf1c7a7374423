"""What two commands that share a home find when both need its broker at the same moment."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from streaming.broker import EmbeddedBroker, ensure_topic, topic_retention_ms
from streaming.settings import Settings


def test_commands_started_together_share_one_broker(settings: Settings) -> None:
    brokers = [EmbeddedBroker.of(settings) for _ in range(2)]
    try:
        with ThreadPoolExecutor(len(brokers)) as commands:
            addresses = list(commands.map(EmbeddedBroker.start, brokers))
        assert len(set(addresses)) == 1
        assert [broker.status() for broker in brokers] == addresses
    finally:
        stopped = [broker.stop() for broker in brokers]
    assert stopped == [True, False]


def test_a_topic_that_exists_is_left_as_it_is(bootstrap: str, topic: Callable[[str], str]) -> None:
    name = topic("kept")
    ensure_topic(bootstrap, name, 1, {"retention.ms": "60000"})
    ensure_topic(bootstrap, name, 3, {"retention.ms": "90000"})
    assert topic_retention_ms(bootstrap, name) == 60000
