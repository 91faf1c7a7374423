from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import PermissionDeniedError
from obstore.store import MemoryStore
from pydantic import SecretStr

from agent import SPECS
from schemas.cluster import SparkClusterSettings
from schemas.llm import Llm
from schemas.spec import load_spec
from streaming.commands import doctor_checks
from streaming.commands.doctor_checks import check_execution, check_machine
from streaming.home.brokers import Brokers
from streaming.home.client_properties import load_properties
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.setup import downloads
from streaming.setup.machine_checks import CheckResult
from streaming.store import store_check
from streaming.store.access import Access
from streaming.store.place import Place
from streaming.testing.scripted_http import HttpAnswer, scripted_http


class Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401 if self.path == "/v1/models" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "not" / "there" / "yet", tmp_path / "cache")


@pytest.fixture
def closed_port() -> Iterator[int]:
    # Bound but not listening: nobody else can take it, and connecting is refused.
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def assert_fails(finding: CheckResult, *words: str) -> None:
    assert not finding.ok
    assert finding.advice
    for word in words:
        assert word in finding.found


def test_every_check_reports_even_when_nothing_is_there(settings: Settings) -> None:
    findings = {finding.name: finding for finding in check_machine(settings)}
    assert list(findings) == [
        "Python", "JDK", "cores", "arithmetic", "memory", "open files", "ports", "proxy", "state", "disk",
        "file system", "start", "spark jars", "broker jars", "Kafka", "LLM",
    ]  # fmt: skip
    assert findings["Python"].ok
    assert findings["ports"].ok
    for name in ("spark jars", "broker jars", "Kafka"):
        assert_fails(findings[name], "make setup")
    assert all(bool(finding.advice) != finding.ok for finding in findings.values())
    assert not settings.home.exists()


def test_kafka_that_does_not_answer(settings: Settings, closed_port: int) -> None:
    given = Settings(settings.home, settings.cache, kafka=f"127.0.0.1:{closed_port}")
    assert_fails(doctor_checks.check_kafka(given), f"no broker answers at 127.0.0.1:{closed_port}")


def test_docker_that_does_not_answer(
    settings: Settings, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{closed_port}")
    given = Settings(settings.home, settings.cache, kafka="docker")
    assert_fails(doctor_checks.check_kafka(given), "no Docker engine answers")


def test_an_endpoint_that_refuses_without_a_key_answers(settings: Settings, endpoint: str) -> None:
    finding = doctor_checks.check_llm(Settings(settings.home, settings.cache, llm_base_url=endpoint))
    assert finding == CheckResult("LLM", True, f"{endpoint} answers")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_an_endpoint_that_redirects_is_named_and_not_followed(settings: Settings, status: int) -> None:
    with scripted_http() as elsewhere, scripted_http() as server:
        server.answers["/v1/models"] = HttpAnswer(status, headers={"location": f"{elsewhere.url}/v1/models"})
        base_url = f"{server.url}/v1"
        finding = doctor_checks.check_llm(Settings(settings.home, settings.cache, llm_base_url=base_url))
        assert len(server.to("/v1/models")) == 1
        assert elsewhere.asked == []
    assert_fails(finding, f"{base_url} redirects ({status})")


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/v1", "not a url"])
def test_an_endpoint_that_does_not_answer(settings: Settings, closed_port: int, url: str) -> None:
    given = Settings(settings.home, settings.cache, llm_base_url=url.format(port=closed_port))
    assert_fails(doctor_checks.check_llm(given), "does not answer")


def test_a_changed_jar_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    good = hashlib.sha256(b"log").hexdigest()
    lock = tmp_path / "jars.lock"
    lock.write_text(f"broker org.example:log:1.0 {good}\n")
    jars = downloads.locked_jars("broker", lock)
    (folder / jars[0].file_name).write_bytes(b"log")
    (folder / "lock.sha256").write_text(downloads.digest(jars))
    assert doctor_checks.check_jar_folder(folder, lock).ok
    (folder / jars[0].file_name).write_bytes(b"other")
    assert_fails(doctor_checks.check_jar_folder(folder, lock), "wrong checksum")


@pytest.mark.parametrize("asks", [False, True])
def test_keys_that_no_store_makes_are_asked_for(settings: Settings, asks: bool) -> None:
    spec = load_spec(SPECS / "card-fraud.yaml")
    spec = spec.model_copy(update={"llm": Llm(provider="openai" if asks else "none")})
    pseudonyms = ["FLAGSTREAM_PSEUDONYM_KEY"] if asks else []
    assert_fails(doctor_checks.check_keys(settings, spec), "not set: FLAGSTREAM_AUDIT_KEY", *pseudonyms)
    audited = replace(settings, audit_key=SecretStr("a" * 32))
    assert doctor_checks.check_keys(audited, spec).ok != asks
    assert doctor_checks.check_keys(replace(audited, pseudonym_key=SecretStr("b" * 32)), spec).ok
    assert doctor_checks.check_keys(audited, None).ok


ANCHORS = Place("s3://another-account/anchors")


@pytest.fixture
def anchored(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> tuple[Settings, MemoryStore]:
    """A lake in a folder whose anchor lies in a store, with a login of its own."""
    given = replace(settings, audit_anchor=ANCHORS, anchor_access=Access({"AWS_PROFILE": "anchor"}))
    store = MemoryStore()

    def client_of(place: Place, access: Access | None = None) -> MemoryStore:
        assert place.parent == ANCHORS
        assert access == given.anchor_access
        return store

    monkeypatch.setattr(store_check, "client_of", client_of)
    return given, store


def objects(store: MemoryStore) -> int:
    return sum(len(chunk) for chunk in obstore.list(store))


def test_the_place_of_the_audit_anchor_is_tried_by_its_own_login(
    anchored: tuple[Settings, MemoryStore],
) -> None:
    given, store = anchored
    (found,) = (each for each in check_machine(given) if each.name == "audit anchor")
    assert found.ok, found
    assert found.found.startswith(f"{ANCHORS}: write, ")
    assert objects(store) == 0


def test_an_anchor_needs_no_right_to_delete(
    anchored: tuple[Settings, MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionDeniedError("AccessDenied")

    monkeypatch.setattr(obstore, "delete", refuse)
    given, store = anchored
    assert doctor_checks.check_anchor(ANCHORS, given).ok
    assert objects(store) > 0
    monkeypatch.setattr(obstore, "put", refuse)
    assert_fails(doctor_checks.check_anchor(ANCHORS, given), "write: not permitted")


def test_a_folder_for_the_audit_anchor_must_be_one_that_can_be_written(
    settings: Settings, tmp_path: Path
) -> None:
    assert doctor_checks.check_anchor(Place.local(tmp_path / "anchors"), settings).ok
    (tmp_path / "file").touch()
    assert_fails(doctor_checks.check_anchor(Place.local(tmp_path / "file" / "anchors"), settings), "file")


def test_a_cluster_is_checked_as_a_run_checks_it(
    settings: Settings, closed_port: int, tmp_path: Path
) -> None:
    local = load_spec(SPECS / "card-fraud.yaml")
    cluster = SparkClusterSettings(master=f"spark://127.0.0.1:{closed_port}")
    spec = local.model_copy(update={"execution": "cluster", "cluster": cluster})
    (away,) = check_execution(PlacedAgent(settings.under(spec), spec))
    assert_fails(away, f"answers at 127.0.0.1:{closed_port}")
    file = tmp_path / "client.properties"
    file.write_text("security.protocol=SSL\n", encoding="utf-8")
    secured = replace(settings, kafka=Brokers("broker:9093").reached_by(load_properties(file, {})))
    (refused,) = check_execution(PlacedAgent(secured.under(spec), spec))
    assert_fails(refused, "executors get no secrets")
    assert check_execution(PlacedAgent(settings, local)) == []
