"""The pages of versions show what the registry and its gates say; moves are for whoever may make them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest

from schemas.tables import SHADOW
from streaming.console.version_pages import is_promotable
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve.registry_api import GateOfVersion, VersionGates
from streaming.serve.rule_figures import LEAST_JUDGED
from streaming.testing.api import ApiClient
from streaming.testing.drivers import wait_until
from streaming.testing.small_lake import DAY, RETENTION, build_lake, spec_of
from streaming.versions.moving import complete
from streaming.versions.registry import Author, SpecRegistry
from streaming.versions.stages import Stage, VersionStage
from tests.browser_session import HOSTILE, Texts, console_of, ok, sign_in

EASY = {"least_labels": 1, "maturity": "0s", "alerts_tolerance": 10}
SPEC = complete(spec_of(promotion=EASY))
LARGE = {"name": "large", "when": "amount > 900", "severity": "high", "reason": HOSTILE}
NEXT = complete(spec_of(promotion=EASY, version="1.1.0", threshold=0.998, rules=[LARGE]))
STAY = complete(spec_of(promotion=EASY, version="1.2.0", policy="default", llm={"provider": "openai"}))


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    settings = Settings.load(tmp_path / "home", {})
    placed = PlacedAgent(settings, SPEC)
    build_lake(placed)
    for each in (SPEC, NEXT, STAY):
        SpecRegistry(placed).add(each, Author("anna", f"adds {each.version}"))
    return settings


@pytest.fixture
def client(home: Settings) -> Iterator[ApiClient]:
    with console_of(home, SPEC) as asked:
        wait_until(lambda: asked.get("/readyz").status_code == 200, 60, "the alerts to be read")
        asked.headers.update(sign_in(asked, SPEC, "operate"))
        yield asked


def shadowed(home: Settings, staged: VersionStage, alerts: int) -> None:
    """Store what a version in shadow made of the lake's batch: some of the published alerts."""
    lake = PlacedAgent(home, SPEC).lake
    stored = read_stored(
        lake / "alerts", ["sequence", "kind", "transaction_id", "score", "severity", "classification"]
    )
    assert stored is not None
    row = {
        "version": staged.version, "digest": staged.digest, "at": DAY, "query_id": "q", "batch_id": 0,
        "first_sequence": 0, "next_sequence": 600, "first_event": DAY, "last_event": DAY + timedelta(days=1),
        "alerts": alerts, "alerted": stored.to_pylist()[:alerts],
    }  # fmt: skip
    table = LakeTable(lake / "shadow", SHADOW, "tester/epoch", RETENTION)
    table.claim(1 + table.epoch)
    table.append(pa.Table.from_pylist([row], schema=SHADOW), Stamp("tester/q", 0))


def replayed(client: ApiClient, page: str) -> None:
    """Do what *Replay it* does."""
    (given,) = re.findall(r'data-spec="([^"]*)"', page)
    answer = client.post("/v1/what-ifs", json={"changes": json.loads(unescape(given))})
    assert answer.status_code == 202, answer.text
    job = answer.json()["job_id"]
    wait_until(lambda: client.get(f"/v1/what-ifs/{job}").json()["state"] != "running", 60, "the what-if")
    assert client.get(f"/v1/what-ifs/{job}").json()["is_kept"]
    back = re.findall(r'data-key="u"[^>]* href="([^"]*)"', ok(client, f"/console/what-ifs/{job}"))
    assert back == ["/console/versions/1.1.0"]


def test_gates_say_why_until_a_replay_has_opened_them(client: ApiClient, home: Settings) -> None:
    page = ok(client, "/console/versions/1.1.0")
    assert "no report of version 1.1.0 is on record" in page
    gates = client.get("/v1/versions/1.1.0/gates").json()
    assert {each["name"]: bool(each["closed"]) for each in gates["gates"]} == {
        "place": False, "replay": True, "precision": True, "alerts": True, "prompt": False, "endpoint": False,
    }  # fmt: skip
    refused = client.post("/v1/versions/1.1.0/promote", json={"why": "x"}).json()["detail"]
    assert all(each["closed"] in refused for each in gates["gates"] if each["closed"])
    replayed(client, page)
    after = client.get("/v1/versions/1.1.0/gates").json()
    assert [each["closed"] for each in after["gates"]] == [None] * 6
    page = ok(client, "/console/versions/1.1.0")
    assert page.count(">open</span>") == 6
    assert f"decided {after['replay']['transactions']} transactions" in page
    assert client.post("/v1/versions/1.1.0/promote", json={"why": "looks good"}).status_code == 200
    shown = ok(client, "/console/versions")
    assert "has decided no batch yet" in shown
    assert 'data-version="1.1.0" data-stage="shadow" data-what="1.1.0 goes to sandbox"' in shown
    staged = SpecRegistry(PlacedAgent(home, SPEC)).staged_versions()["1.1.0"]
    shadowed(home, staged, 10)
    (side,) = client.get("/v1/versions/beside").json()
    assert (side["beside"]["alerts"], side["published"]["alerts"]) == (10, 40)
    assert side["agreement"] == 0.25
    for each in (side["beside"], side["published"]):  # as the page has it
        assert each["judged"] < LEAST_JUDGED and each["precision"] is None
    shown = ok(client, "/console/versions")
    assert "both have 25.0 %" in shown
    (stages,) = re.findall(r'data-stages="([^"]+)"', shown)
    assert set(json.loads(unescape(stages))) == set(get_args(Stage))
    assert client.post("/v1/versions/rollback", json={"why": "too many"}).status_code == 200
    history = client.get("/v1/versions/1.1.0").json()["history"]
    assert [each["event"] for each in history] == ["added", "replayed", "promoted", "rolled_back"]
    page = ok(client, "/console/versions/1.1.0")
    assert "too many" in page
    assert 'data-do="rollback"' not in page


def test_a_version_says_what_it_has_otherwise_and_its_text_stays_text(client: ApiClient) -> None:
    found = client.get("/v1/versions/1.1.0").json()
    keys = {each["key"] for each in found["differences"]}
    assert keys == {"version", "threshold", "rules.large.when", "rules.large.reason"}
    page = ok(client, "/console/versions/1.1.0")
    assert "<script>alert" not in page
    read = "".join(Texts(page).texts)
    assert r"\u202egro.live" in read
    assert '"amount > 900"' in read
    assert "Otherwise than 1.0.0" in read
    active = ok(client, "/console/versions/1.0.0")
    assert "Otherwise than" not in active
    assert 'data-do="promote"' not in active
    assert client.get("/console/versions/9.9.9").status_code == 404


def test_another_endpoint_takes_an_admin(client: ApiClient) -> None:
    page = ok(client, "/console/versions/1.2.0")
    assert "takes the scope <code>admin</code>" in page
    assert 'name="endpoint_change"' not in page
    sign_in(client, SPEC, "admin", name="chief")
    assert 'name="endpoint_change"' in ok(client, "/console/versions/1.2.0")


def test_who_may_only_read_moves_nothing(client: ApiClient) -> None:
    sign_in(client, SPEC, "triage", name="reader")
    for path in ("/console/versions", "/console/versions/1.1.0"):
        page = ok(client, path)
        for action in ("promote", "rollback", "what-if-version"):
            assert f'data-do="{action}"' not in page


def test_an_agent_without_a_registry_is_told_how_to_begin(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "home", {})
    with console_of(settings, SPEC) as client:
        sign_in(client, SPEC, "operate")
        page = ok(client, "/console/versions")
        assert "flagstream registry add" in page
        assert client.get("/v1/versions/beside").json() == []
        assert client.get("/v1/versions/rollback").json() == {"moved": {}, "withdraws": None}
        assert "No alert was raised" in ok(client, "/console/rules")


def test_a_word_of_somebody_opens_the_gate_of_endpoints_and_no_other() -> None:
    def version(**closed: str) -> VersionGates:
        found = [GateOfVersion(name=name, asks="", closed=why) for name, why in closed.items()]
        return VersionGates(version="1.1.0", stage="shadow", next="canary", gates=found, replay=None)

    assert is_promotable(version(endpoint="llm.model differs"))
    assert not is_promotable(version(endpoint="llm.model differs", replay="none"))
