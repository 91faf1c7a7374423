"""Avro and Protobuf with a real schema registry: several schemas in a stream, a registry that goes away."""

from __future__ import annotations

import io
import json
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pytest
import yaml
from google.protobuf import message_factory

from schemas.contract import CONTRACTS, EventContract
from schemas.loading import parse_document
from schemas.schema_texts import SchemaText
from schemas.spec import load_spec
from streaming.delta.lake_reader import AgentLake
from streaming.events.decode import decode
from streaming.events.protobuf_schema import message_by_name
from streaming.events.record_table import record_table
from streaming.home.settings import Settings
from streaming.kafka.schema_registry import SchemaRegistry
from streaming.kafka.topic_admin import ensure_topic
from streaming.run.status import read_status
from streaming.service.health import Condition, read_health
from streaming.testing.drivers import DRIVER_SECONDS, Drivers, wait_until
from streaming.testing.streams import Stream, stored, write_spec
from tests.schema_registry import RegistryProcess

pytestmark = pytest.mark.timeout(600)
TEXTS = ("tx_id", "event_time", "customer_id", "terminal_id", "currency", "merchant_category", "country")
FIELDS: list[dict[str, Any]] = [{"name": name, "type": "string"} for name in TEXTS]
OLDER = {"type": "record", "name": "Payment", "fields": [*FIELDS, {"name": "amount", "type": "double"}]}
NEWER = {
    **OLDER,
    "fields": [
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "memo", "type": ["null", "string"], "default": None},
        *FIELDS,
    ],
}


@pytest.fixture
def registry(settings: Settings, tmp_path: Path) -> Iterator[RegistryProcess]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = RegistryProcess(settings, port, tmp_path)
    made.start()
    yield made
    made.stop()


def under(folder: Path, format_: dict[str, Any]) -> Path:
    """Write the simulator's contract with a format."""
    content = yaml.safe_load((CONTRACTS / "simulator.yaml").read_text())
    path = folder / "payments.yaml"
    path.write_text(yaml.safe_dump({**content, "format": format_}))
    return path


def framed(number: int, payload: bytes) -> bytes:
    return b"\0" + number.to_bytes(4, "big") + payload


def avro(event: dict[str, Any], schema: dict[str, Any], number: int) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), event)
    return framed(number, out.getvalue())


def test_a_real_registry_serves_avro_and_protobuf_with_what_they_refer_to(
    registry: RegistryProcess,
) -> None:
    part = 'syntax = "proto3"; package p; message Money { double amount = 1; string currency = 2; }'
    whole = (
        'syntax = "proto3"; package q; import "money.proto"; message Skipped {} message Payment '
        "{ string id = 1; string at = 2; p.Money money = 3; string card = 4; }"
    )
    registry.register("money", part, "PROTOBUF")
    reference = {"name": "money.proto", "subject": "money", "version": 1}
    number = registry.register("payment", whole, "PROTOBUF", references=[reference])
    contract = parse_document(
        {
            "name": "payments",
            "transaction_id": {"field": "id"},
            "event_time": {"field": "at"},
            "amount": {"field": "money.amount"},
            "currency": {"field": "money.currency"},
            "entities": {"card": {"field": "card"}},
            "format": {"protobuf": {"registry": True}},
        },
        EventContract,
        where="payments.yaml",
    )
    text = SchemaText(whole, (part,), ("money.proto",))
    writer = message_factory.GetMessageClass(message_by_name(text, "q.Payment"))
    sent = writer(id="t1", at="2026-07-01T12:00:00Z", money={"amount": 9.5, "currency": "EUR"}, card="c")
    values = [framed(number, b"\2\2" + sent.SerializeToString()), framed(999, b"\0")]
    now = datetime(2026, 7, 1, 12, 1, tzinfo=UTC)
    records = record_table([None] * 2, values, topic="t", first=0, sent_at=now)
    decoded = decode(records, contract, now, SchemaRegistry(registry.address))
    assert decoded.valid.select(["transaction_id", "amount", "card"]).to_pylist() == [
        {"transaction_id": "t1", "amount": 9.5, "card": "c"}
    ]
    assert decoded.rejected["reason"].to_pylist() == ["unknown_schema"]


class AvroStream(Stream):
    """Sends what Stream does, sound events in Avro: by the older schema, then by both in turn."""

    older, newer = 0, 0

    def _produce(self, values: Iterable[bytes]) -> None:
        super()._produce(self._written(place, value) for place, value in enumerate(values))

    def _written(self, place: int, value: bytes) -> bytes:
        try:
            event = json.loads(value)
        except ValueError:
            return value
        if "amount" not in event:
            return value
        if not self.newer or place % 2:
            return avro(event, OLDER, self.older)
        return avro({**event, "amount": Decimal(str(event["amount"]))}, NEWER, self.newer)


def test_a_registry_that_is_away_is_waited_for(
    registry: RegistryProcess,
    settings: Settings,
    bootstrap: str,
    tmp_path: Path,
    topic: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLAGSTREAM_SCHEMA_REGISTRY", registry.address)
    source = topic("events")
    spec_file = write_spec(
        tmp_path,
        topic,
        data_sources={
            "transactions": {
                "contract": str(under(tmp_path, {"avro": {"registry": True}})),
                "topic": source,
                "max_records_per_batch": 400,
            }
        },
    )
    spec = load_spec(spec_file)
    lake, drivers = settings.lake(spec.name), Drivers(settings, bootstrap)
    ensure_topic(bootstrap, source, 2)
    stream = AvroStream(bootstrap, source)
    stream.older = registry.register("a", json.dumps(OLDER))
    newer = registry.register("b", json.dumps(NEWER))

    def conditions() -> set[Condition]:
        return {each.condition for each in read_health(settings.health(spec.name))}

    def has_stored() -> bool:
        assert driver.poll() is None, driver.communicate()[0]
        return read_status(AgentLake(lake, spec), None).totals["stored"] == len(stream.sent_ids)

    try:
        stream.send(100)
        driver = drivers.start(spec_file, endless=True)
        wait_until(has_stored, 2 * DRIVER_SECONDS, "the first schema's records")
        registry.stop()
        stream.newer = newer  # which the agent has never asked for
        stream.send(200)
        wait_until(lambda: Condition.SCHEMA_REGISTRY_AWAY in conditions(), DRIVER_SECONDS, "the condition")
        registry.start()
        wait_until(lambda: has_stored() and not conditions(), 2 * DRIVER_SECONDS, "it to go on by itself")
        assert driver.poll() is None
    finally:
        drivers.end()
        registry.stop()
    transactions = stored(lake, "transactions", "sequence")
    assert Counter(transactions["transaction_id"].to_pylist()) == Counter(stream.sent_ids)
    rejected = stored(lake, "quarantine", "offset")
    assert set(rejected["reason"].to_pylist()) == {"missing_framing"}
    assert transactions["memo"].null_count > 0 and transactions["memo"].null_count < transactions.num_rows
