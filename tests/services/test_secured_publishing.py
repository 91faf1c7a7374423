"""Exactly once over secured listeners: the publisher's tests, and killed drivers with the least rights."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.spec import load_spec
from schemas.subscription import Subscription
from streaming.batch.steps import BatchStep
from streaming.delta.lake_reader import AgentLake
from streaming.history.reconcile import reconcile
from streaming.home.brokers import Brokers
from streaming.home.client_properties import load_properties
from streaming.home.settings import Settings
from streaming.kafka.grants import grants_of
from streaming.kafka.outbox_record import PublisherSettings
from streaming.kafka.presence import metadata_of
from streaming.kafka.publish import Publisher
from streaming.kafka.topic import committed_messages
from streaming.kafka.topic_admin import ensure_topic
from streaming.kafka.topic_facts import TopicFacts
from streaming.testing.drivers import Drivers
from streaming.testing.killable_driver import MID_PUBLISH
from streaming.testing.streams import Stream, folded_scores, stored, write_spec
from tests.crash_chain import AGENT, HOUR, connected_consumer
from tests.integration.test_publish import *  # noqa: F403 -- all of them run here once more
from tests.integration.test_publish import CALL_SECONDS, outbox
from tests.secured_broker import (
    CERTIFIED,
    USER,
    SecuredBroker,
    allow,
    allow_everything,
    jaas,
    secured_broker,
)

pytestmark = pytest.mark.timeout(300)
_CHAIN = [
    (BatchStep.STORE.value, True),
    (MID_PUBLISH, False),
    (MID_PUBLISH, True),
    (BatchStep.PUBLISH.value, True),
]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SecuredBroker, str]]:
    folder = tmp_path_factory.mktemp("secured")
    jars = Settings.load(folder, os.environ).jars_broker
    with secured_broker(folder / "broker", jars) as found:
        yield found


@pytest.fixture(scope="module")
def bootstrap(secured: tuple[SecuredBroker, str]) -> str:
    """The listener of client certificates, for one that may do everything."""
    broker, admin = secured
    allow_everything(admin, CERTIFIED)
    environ = {"FLAGSTREAM_KAFKA_CONFIG": str(broker.client_properties("MTLS"))}
    return Settings.load(broker.folder, {**os.environ, **environ}).kafka


def test_a_chain_of_killed_drivers_with_the_least_rights_loses_and_doubles_nothing(
    secured: tuple[SecuredBroker, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, admin = secured
    spec_file = write_spec(tmp_path, lambda name: f"chain-{name}")
    spec = load_spec(spec_file)
    events, alerts = spec.data_sources.transactions.subscription.first, spec.alerts.topic
    ensure_topic(admin, events, 2)
    ensure_topic(admin, alerts, 1)
    allow(admin, USER, grants_of(spec))
    monkeypatch.setenv("KAFKA_JAAS", jaas("SCRAM"))
    monkeypatch.setenv("FLAGSTREAM_KAFKA_CONFIG", str(broker.client_properties("SCRAM")))
    settings = Settings.load(tmp_path / "home", os.environ)
    drivers, stream = Drivers(settings, settings.kafka), Stream(admin, events)
    try:
        with connected_consumer(admin, alerts) as seen:
            for place, live in _CHAIN:
                stream.send(200)
                killed = drivers.run(spec_file, place, live=live)
                assert killed == -signal.SIGKILL, (place, drivers.outputs[-1])
            stream.send(200)
            assert drivers.run(spec_file) == 0, drivers.outputs[-1]
    finally:
        drivers.end()
    lake = settings.lake(AGENT)
    rows = stored(lake, "transactions", "sequence")
    assert Counter(rows["transaction_id"].to_pylist()) == Counter(stream.sent_ids)
    assert rows["sequence"].to_pylist() == list(range(len(stream.sent_ids)))
    table = stored(lake, "alerts", "outbox_seq")
    keys = list(zip(table["alert_id"].to_pylist(), table["revision"].to_pylist(), strict=True))
    assert len(set(keys)) == len(keys) > 20
    assert seen == keys[: len(seen)], "each alert once and in outbox order"
    scores = zip(table["score"].to_pylist(), table["log_odds"].to_pylist(), strict=True)
    assert dict(zip(table["transaction_id"].to_pylist(), scores, strict=True)) == folded_scores(
        spec, rows, lake
    )
    assert reconcile(AgentLake(lake, spec), settings.kafka, HOUR).differences == 0


def test_tokens_that_a_callback_gives_serve_every_client(secured: tuple[SecuredBroker, str]) -> None:
    """As those of Amazon MSK do, which are signed here: for administration, reading and publishing."""
    broker, admin = secured
    ensure_topic(admin, "by-token", 1)
    allow_everything(admin, "by-token")
    asked = list[str]()

    def token(said: str) -> tuple[str, float]:
        asked.append(said)
        return broker.issuer.token("by-token", "kafka"), time.time() + 300

    by_file = load_properties(broker.client_properties("OIDC"), {"KAFKA_JAAS": jaas("OIDC")})
    kept = {key: value for key, value in by_file.librdkafka.items() if not key.startswith("sasl.oauthbearer")}
    properties = replace(by_file, librdkafka={**kept, "oauth_cb": token})
    brokers = Brokers(f"localhost:{broker.ports['OIDC']}").reached_by(properties)
    assert "by-token" in metadata_of(brokers, CALL_SECONDS).topics
    facts = TopicFacts(brokers, Subscription(("by-token",)), CALL_SECONDS)
    assert facts.bounds() == {"by-token": {"0": (0, 0)}}
    publisher = Publisher(PublisherSettings(brokers, "by-token", "by-token"))
    publisher.open(0)
    assert publisher.publish(outbox(0, 50)) == 50
    publisher.close()
    assert len(list(committed_messages(brokers, "by-token"))) == 50
    assert len(asked) >= 4
