"""Services that a run has brought along come back at their address after they were killed."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from agent.model.local_llm import LocalLlm
from streaming.home.settings import Settings
from streaming.kafka.broker import EmbeddedBroker
from streaming.kafka.presence import broker_away
from streaming.kafka.topic import topic_exists
from streaming.kafka.topic_admin import ensure_topic
from streaming.testing.live_lake import agent
from streaming.versions.clients import Clients

pytestmark = pytest.mark.timeout(300)


def kill(record: Path) -> None:
    process = psutil.Process(json.loads(record.read_text(encoding="utf-8"))["pid"])
    process.kill()
    process.wait(20)


def test_an_embedded_broker_that_was_killed_comes_back_with_its_topics(settings: Settings) -> None:
    broker = EmbeddedBroker.of(settings)
    with broker.in_use() as bootstrap:
        ensure_topic(bootstrap, "kept")
        kill(broker.folder / "broker.json")
        assert "no broker answers" in str(broker_away(bootstrap))
        broker.revive("127.0.0.1:1")
        assert broker.status() is None, "another's broker is not ours to start"
        broker.revive(bootstrap)
        assert broker.status() == bootstrap
        assert broker_away(bootstrap) is None
        assert topic_exists(bootstrap, "kept")
    assert broker.status() is None, "it still ends with its last user"
    broker.revive(bootstrap)
    assert broker.status() is None, "one that was stopped stays stopped"


def test_a_local_model_that_was_killed_comes_back_for_its_clients(settings: Settings) -> None:
    server = LocalLlm(settings.home / "llm")
    with Clients(settings, "local") as clients:
        clients.of(agent(llm={}))
        url = server.status()
        kill(server.folder / "local-llm.json")
        assert server.status() is None
        clients.revive()
        assert server.status() == url
    assert server.status() is None
