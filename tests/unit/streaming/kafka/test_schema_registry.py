"""A schema registry is asked once per id, waited for while it is away, and believed in nothing else."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from schemas.contract import EventContract
from schemas.errors import ConfigurationError, RetryableError
from schemas.schema_texts import SchemaText
from streaming.events.writer_schemas import UnreadableError, writers_of
from streaming.home.settings import Settings
from streaming.kafka.schema_registry import SchemaRegistry, schema_source
from streaming.output.redaction import redacted
from streaming.testing.live_lake import CONTRACT

RECORD = '{"type":"record","name":"R","fields":[]}'


class Answers(ThreadingHTTPServer):
    """A registry that answers by path, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.known: dict[str, tuple[int, Any]] = {"/schemas/types": (200, ["AVRO"])}
        self.asked: list[str] = []
        self.logins: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/api/"


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        path = self.path.removeprefix("/api")
        self.server.asked.append(path)
        self.server.logins.append(self.headers.get("Authorization"))
        status, body = self.server.known.get(path, (404, {"error_code": 40403}))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def server() -> Iterator[Answers]:
    with Answers() as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def reason(found: SchemaText | UnreadableError) -> str:
    assert isinstance(found, UnreadableError)
    return found.reason


def test_an_id_is_asked_for_once(server: Answers) -> None:
    server.known["/schemas/ids/7"] = (200, {"schema": RECORD})
    registry = SchemaRegistry(server.address)
    for _ in range(3):
        assert registry.schemas("AVRO", [7]) == {7: SchemaText(RECORD)}
    assert server.asked == ["/schemas/ids/7"]


def test_unknown_ids_are_asked_for_again_after_a_while(
    server: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = SchemaRegistry(server.address)
    for _ in range(2):
        assert reason(registry.schemas("AVRO", [7])[7]) == "unknown_schema"
    assert len(server.asked) == 1
    monkeypatch.setattr("streaming.kafka.schema_registry._UNKNOWN_SECONDS", 0.0)
    server.known["/schemas/ids/7"] = (200, {"schema": RECORD})
    assert registry.schemas("AVRO", [7]) == {7: SchemaText(RECORD)}


def test_bytes_that_are_no_ids_do_not_keep_a_batch_asking(
    server: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.kafka.schema_registry._MOST_UNKNOWN", 5)
    found = SchemaRegistry(server.address).schemas("AVRO", range(50))
    assert {reason(each) for each in found.values()} == {"unknown_schema"}
    assert len(found) == 50 and len(server.asked) == 5


@pytest.mark.long
def test_unknown_ids_do_not_pile_up(server: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.kafka.schema_registry._MOST_REMEMBERED", 8)
    monkeypatch.setattr("streaming.kafka.schema_registry._UNKNOWN_SECONDS", 0.0)
    registry = SchemaRegistry(server.address)
    registry.schemas("AVRO", range(50))
    assert len(registry._unknown) <= 8


def test_a_schema_of_another_kind_is_unusable(server: Answers) -> None:
    server.known["/schemas/ids/7"] = (200, {"schema": "{}", "schemaType": "JSON"})
    assert reason(SchemaRegistry(server.address).schemas("AVRO", [7])[7]) == "unusable_schema"


def test_what_a_schema_refers_to_comes_first(server: Answers) -> None:
    def refer(name: str) -> dict[str, Any]:
        return {"name": name, "subject": f"a/{name} ü", "version": 2}

    server.known["/schemas/ids/7"] = (200, {"schema": "top", "references": [refer("b"), refer("c")]})
    server.known["/subjects/a%2Fb%20%C3%BC/versions/2"] = (200, {"schema": "B", "references": [refer("c")]})
    server.known["/subjects/a%2Fc%20%C3%BC/versions/2"] = (200, {"schema": "C", "references": [refer("b")]})
    found = SchemaRegistry(server.address).schemas("AVRO", [7])
    assert found == {7: SchemaText("top", ("C", "B"), ("c", "b"))}


def test_a_reference_that_leads_nowhere_makes_a_schema_unusable(server: Answers) -> None:
    lost = {"name": "b", "subject": "b", "version": 1}
    server.known["/schemas/ids/7"] = (200, {"schema": "top", "references": [lost]})
    assert reason(SchemaRegistry(server.address).schemas("AVRO", [7])[7]) == "unusable_schema"


@pytest.mark.parametrize("answer", [(500, {}), (200, b"<html>"), (302, {}), (200, b"[" + b"0," * (3 << 20))])
def test_a_registry_that_is_not_well_is_waited_for(server: Answers, answer: tuple[int, Any]) -> None:
    server.known["/schemas/ids/7"] = server.known["/schemas/types"] = answer
    registry = SchemaRegistry(server.address)
    with pytest.raises(RetryableError):
        registry.schemas("AVRO", [7])
    assert registry.away() is not None
    server.known["/schemas/ids/7"] = (200, {"schema": RECORD})
    server.known["/schemas/types"] = (200, [])
    assert registry.away() is None
    assert registry.schemas("AVRO", [7]) == {7: SchemaText(RECORD)}


@pytest.mark.parametrize("answer", [[], "text", {}, {"schema": 7}])
def test_an_answer_without_a_schema_is_no_answer(server: Answers, answer: Any) -> None:
    server.known["/schemas/ids/7"] = (200, answer)
    with pytest.raises(RetryableError, match="no schema"):
        SchemaRegistry(server.address).schemas("AVRO", [7])


@pytest.mark.parametrize("references", [[7], [{}], [{"name": "a", "subject": "a", "version": "x"}], 7])
def test_references_that_cannot_be_meant_make_a_schema_unusable(server: Answers, references: Any) -> None:
    server.known["/schemas/ids/7"] = (200, {"schema": "top", "references": references})
    assert reason(SchemaRegistry(server.address).schemas("AVRO", [7])[7]) == "unusable_schema"


def test_nobody_answers_at_an_address() -> None:
    registry = SchemaRegistry("http://127.0.0.1:9")
    assert "does not answer" in str(registry.away())


def test_what_is_no_registry_ends_the_run(server: Answers) -> None:
    del server.known["/schemas/types"]
    with pytest.raises(ConfigurationError, match="no schema registry"):
        SchemaRegistry(server.address).away()


def test_a_login_is_sent_and_never_shown(server: Answers, tmp_path: Path) -> None:
    environ = {
        "FLAGSTREAM_SCHEMA_REGISTRY": server.address,
        "FLAGSTREAM_SCHEMA_REGISTRY_LOGIN": "agent:pass:word-9",
    }
    settings = Settings.load(tmp_path, environ)
    assert schema_source(settings).away() is None
    expected = base64.b64encode(b"agent:pass:word-9").decode()
    assert server.logins == [f"Basic {expected}"]
    assert "word-9" not in repr(settings) + redacted("it said pass:word-9")
    server.known["/schemas/types"] = (401, {})
    with pytest.raises(ConfigurationError, match="FLAGSTREAM_SCHEMA_REGISTRY_LOGIN"):
        schema_source(settings).away()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLAGSTREAM_SCHEMA_REGISTRY", "registry:8081"),
        ("FLAGSTREAM_SCHEMA_REGISTRY", "https://me:secret@host"),
        ("FLAGSTREAM_SCHEMA_REGISTRY_LOGIN", "only-a-user"),
        ("FLAGSTREAM_SCHEMA_REGISTRY_LOGIN", ":password"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=name) as refused:
        Settings.load(tmp_path, {name: value})
    assert "secret" not in str(refused.value)


def test_without_an_address_a_contract_that_needs_one_says_so(tmp_path: Path) -> None:
    source = schema_source(Settings.load(tmp_path, {}))
    with pytest.raises(ConfigurationError, match="FLAGSTREAM_SCHEMA_REGISTRY"):
        source.away()


def test_strange_ids_hide_no_schema_that_is_known(server: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.kafka.schema_registry._MOST_UNKNOWN", 5)
    server.known["/schemas/ids/1001"] = (200, {"schema": RECORD})
    registry = SchemaRegistry(server.address)
    registry.schemas("AVRO", [1001])
    assert registry.schemas("AVRO", [*range(10), 1001])[1001] == SchemaText(RECORD)


def test_ids_that_most_records_name_are_asked_for_first(
    server: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.kafka.schema_registry._MOST_UNKNOWN", 5)
    server.known["/schemas/ids/1001"] = (200, {"schema": RECORD})
    values = [b"\0" + each.to_bytes(4, "big") for each in [*range(30), 1001, 1001]]
    records = pa.table({"value": pa.array([*values, b"none"], pa.binary())})
    avro = {"format": {"avro": {"registry": True}}}
    contract = EventContract.model_validate({**CONTRACT.model_dump(), **avro})
    found = writers_of(records, contract, SchemaRegistry(server.address))
    assert found[1001] == SchemaText(RECORD)
    assert set(found) == {*range(30), 1001}


def test_an_id_beyond_the_last_is_unknown_unasked(server: Answers) -> None:
    found = SchemaRegistry(server.address).schemas("AVRO", [2**31, 2**32 - 1])
    assert {reason(each) for each in found.values()} == {"unknown_schema"}
    assert server.asked == []


@pytest.mark.parametrize("status", [400, 422])
def test_an_id_that_the_registry_refuses_is_unknown(server: Answers, status: int) -> None:
    server.known["/schemas/ids/7"] = (status, {"error_code": status})
    server.known["/schemas/ids/8"] = (200, {"schema": RECORD})
    found = SchemaRegistry(server.address).schemas("AVRO", [7, 8])
    assert (reason(found[7]), found[8]) == ("unknown_schema", SchemaText(RECORD))


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_registry_in_haste_is_waited_for(server: Answers, status: int) -> None:
    server.known["/schemas/ids/7"] = (status, {})
    with pytest.raises(RetryableError, match=str(status)):
        SchemaRegistry(server.address).schemas("AVRO", [7])
