"""What two commands that share a home find when both need its broker at the same moment."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from agent.model.processes import Service, free_port
from schemas.errors import ConfigurationError
from schemas.subscription import Subscription
from streaming.home.settings import Settings
from streaming.kafka.broker import EmbeddedBroker
from streaming.kafka.topic_admin import ensure_topic, require_topics, topic_retention_ms


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


def test_the_last_command_that_uses_a_broker_stops_it(settings: Settings) -> None:
    broker = EmbeddedBroker.of(settings)
    with ExitStack() as later, broker.in_use() as first:
        assert later.enter_context(EmbeddedBroker.of(settings).in_use()) == first
        with ExitStack() as earlier:
            earlier.enter_context(EmbeddedBroker.of(settings).in_use())
        assert broker.status() == first
    assert broker.status() is None


def test_a_broker_started_to_stay_outlives_its_users(settings: Settings) -> None:
    broker = EmbeddedBroker.of(settings)
    try:
        with broker.in_use() as address:
            assert broker.start() == address
        assert broker.status() == address
    finally:
        assert broker.stop()


def test_a_topic_missing_from_a_foreign_broker_is_named_with_the_nearest(
    bootstrap: str, topic: Callable[[str], str]
) -> None:
    name = topic("payments")
    ensure_topic(bootstrap, name, 1)
    with pytest.raises(ConfigurationError, match="did you mean") as fault:
        require_topics(bootstrap, Subscription((f"{name}x",)))
    assert name in str(fault.value)


def test_a_port_that_is_taken_before_the_broker_listens_is_passed_over(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1], free_port()])
        monkeypatch.setattr(Service, "port", lambda _: next(ports))
        with EmbeddedBroker.of(settings).in_use() as bootstrap:
            assert not bootstrap.endswith(f":{taken.getsockname()[1]}")
