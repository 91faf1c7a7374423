"""Processes of `flagstream notify` over a real broker, and alerts for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import yaml

from schemas.alert_documents import alert_documents
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.outbox_record import OutboxRecord, PublisherSettings
from streaming.kafka.publish import Publisher
from streaming.testing.drivers import Child
from streaming.testing.small_lake import BUSY_ALERTS, build_lake, spec_of
from tests.unit.streaming.notify.receivers import SECRET, Desk

SECONDS = 60.0
ENTRY = "from streaming.cli.root import main; main()"
ENVIRONMENT = {"DESK_SECRET": SECRET}


class Notifiers:
    """Processes of `flagstream notify` over one home and one routes file."""

    def __init__(self, home: Path, topic: str, bootstrap: str) -> None:
        self.settings, self.spec = Settings.load(home, {}), spec_of(alerts={"topic": topic})
        self.bootstrap, self.topic = bootstrap, topic
        home.mkdir()
        self.spec_file, self.routes_file = home / "spec.yaml", home / "routes.yaml"
        self.spec_file.write_text(self.spec.model_dump_json(), encoding="utf-8")
        self._children: list[Child] = []

    def route(self, *routes: dict[str, Any]) -> None:
        self.routes_file.write_text(yaml.safe_dump({"routes": list(routes)}), encoding="utf-8")

    def start(self, *words: str) -> Child:
        child = Child(
            [sys.executable, "-c", ENTRY, *self._words("run", *words)],
            env={**os.environ, **ENVIRONMENT, "FLAGSTREAM_KAFKA": str(self.bootstrap)},
            apart=True,
        )
        self._children.append(child)
        return child

    def ask(self, command: str, *words: str) -> tuple[int, Any]:
        done = subprocess.run(
            [sys.executable, "-c", ENTRY, *self._words(command, *words)],
            env={**os.environ, **ENVIRONMENT, "FLAGSTREAM_KAFKA": str(self.bootstrap)},
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def stop(self, child: Child) -> tuple[Any, str]:
        child.send_signal(signal.SIGTERM)
        printed, said = child.communicate(timeout=SECONDS)
        assert child.returncode == 0, said
        return json.loads(printed.splitlines()[-1]), said

    def end(self) -> None:
        for child in self._children:
            child.kill()
            child.communicate()

    def _words(self, command: str, *words: str) -> list[str]:
        files = ["--spec", str(self.spec_file), "--file", str(self.routes_file)]
        return ["notify", command, *files, "--home", str(self.settings.home), "--json", *words]


def decided(notifiers: Notifiers) -> list[OutboxRecord]:
    """Decide payments by the real engine, and return their alerts as an agent publishes them."""
    build_lake(PlacedAgent(notifiers.settings, notifiers.spec))
    stored = read_stored(notifiers.settings.lake(notifiers.spec.name) / "alerts")
    assert stored is not None
    rows = stored.sort_by("outbox_seq")
    keys, documents = rows["transaction_id"].to_pylist(), alert_documents(rows)
    assert len(documents) >= BUSY_ALERTS
    return [
        OutboxRecord(number, key.encode(), document)
        for number, (key, document) in enumerate(zip(keys, documents, strict=True))
    ]


def send(notifiers: Notifiers, records: list[OutboxRecord]) -> None:
    lane = PublisherSettings(notifiers.bootstrap, notifiers.topic, notifiers.spec.name)
    with closing(Publisher(lane)) as publisher:
        publisher.open(0)
        publisher.publish(records)


def publish(notifiers: Notifiers) -> list[dict[str, Any]]:
    records = decided(notifiers)
    send(notifiers, records)
    return [orjson.loads(each.value) for each in records]


def webhook(receiver: Desk, name: str = "desk", **more: Any) -> dict[str, Any]:
    target = {"url": receiver.url, "secrets": ["${env:DESK_SECRET}"]}
    return {"name": name, "begins": "oldest", "timeout": "2s", "webhook": target, **more}


def ids(receiver: Desk) -> list[str]:
    return [each.headers["webhook-id"] for each in receiver.arrived]


def key(alert: dict[str, Any]) -> str:
    return f"msg_{alert['alert_id']}_{alert['revision']}"
