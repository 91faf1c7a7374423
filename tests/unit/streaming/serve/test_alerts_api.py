"""Alerts, entities and labels over HTTP, from the lake of a real engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest

from schemas.alert_documents import alert_json_schema
from streaming.actions.entity_actions import EntityActions
from streaming.delta.lake_reader import LakeReader
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.whole_tables import read_stored
from streaming.history.cost import booked
from streaming.history.explain import explain
from streaming.history.payments import IndexedPayments, ScannedPayments
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing import small_lake
from streaming.testing.api import ApiClient, api_of
from streaming.testing.small_lake import (
    BUSY,
    BUSY_ALERTS,
    CONTRACT,
    INJECTED,
    RETENTION,
    build_lake,
    next_batch,
    spec_of,
)
from tests.browser_session import console_of

SPEC = spec_of()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings.load(tmp_path_factory.mktemp("served"), {})
    build_lake(PlacedAgent(settings, SPEC))
    return settings


@pytest.fixture(scope="module")
def client(lake: Settings) -> Iterator[ApiClient]:
    with api_of(lake, SPEC) as asked:
        asked.server.agents[SPEC.name].inbox.refresh()
        asked.headers.update(asked.bearer(SPEC, "triage"))
        yield asked


def ok(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def first_alert(client: ApiClient) -> str:
    found: str = ok(client.get("/v1/alerts?limit=1"))["alerts"][0]["alert_id"]
    return found


def test_pages_of_a_list_are_the_table_of_alerts(lake: Settings, client: ApiClient) -> None:
    stored = LakeReader(lake.lake(SPEC.name), SPEC.tables).frame("alerts", ["alert_id", "outbox_seq"])
    expected = stored.sort("outbox_seq", descending=True)["alert_id"].to_list()
    shown, cursor = [], None
    while True:
        page = ok(client.get("/v1/alerts", params={"limit": 7} | ({"cursor": cursor} if cursor else {})))
        shown += [each["alert_id"] for each in page["alerts"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert shown == expected
    assert page["total"] == len(expected) >= BUSY_ALERTS


def test_a_filter_chooses_and_counts(client: ApiClient) -> None:
    page = ok(
        client.get("/v1/alerts", params={"filter": f"terminal = {BUSY} and rule = large", "facet": "rule"})
    )
    assert page["total"] == BUSY_ALERTS
    assert page["facets"] == {"rule": {"large": BUSY_ALERTS}}
    assert {each["entities"]["terminal"] for each in page["alerts"]} == {BUSY}
    fraud = ok(client.get("/v1/alerts", params={"filter": "label = fraud"}))
    assert fraud["total"] == 2
    names = {each["name"] for each in ok(client.get("/v1/alerts/fields"))}
    assert {"severity", "customer", "terminal", "time"} <= names


@pytest.mark.parametrize(
    "params",
    [
        {"filter": "severty = high"},
        {"filter": "'; drop table alerts"},
        {"cursor": "nonsense"},
        {"facet": "amount"},
    ],
)
def test_what_cannot_be_asked_is_400_and_names_where(client: ApiClient, params: dict[str, str]) -> None:
    answer = client.get("/v1/alerts", params=params)
    assert answer.status_code == 400
    assert answer.json()["where"] in ("filter", "cursor", "facet")


def test_one_alert_is_explained_as_the_command_does(lake: Settings, client: ApiClient) -> None:
    wanted = first_alert(client)
    found = ok(client.get(f"/v1/alerts/{wanted}"))
    jsonschema.validate(found["alert"], alert_json_schema())
    shown = explain(PlacedAgent(lake, SPEC), wanted, CONTRACT.primary_entity)
    assert found["adds_up"] is shown.adds_up is True
    assert [each["payments"] for each in found["normal"]] == [each.payments for each in shown.normal]
    assert [each["transaction_id"] for each in found["nearest"]] == [
        each["transaction_id"] for each in shown.nearest
    ]
    assert len(found["history"]) == shown.history.height
    assert found["pins"]["spec_version"] == "1.0.0"
    assert found["cost"] is None, "no model was asked"
    assert not [value for value in found["pins"].values() if isinstance(value, dict)]
    assert [each["revision"] for each in found["revisions"]] == [1]
    assert client.get(f"/v1/alerts/{'0' * 32}").status_code == 404
    assert client.get("/v1/alerts/nonsense").status_code == 422


def test_an_alert_says_what_the_model_s_answers_cost(tmp_path: Path) -> None:
    """Its part, as `cost --by alert` gives it, on its page as well; nothing where nobody was asked."""
    settings = Settings.load(tmp_path / "home", {})
    placed = PlacedAgent(settings, SPEC)
    build_lake(placed)
    batches = placed.lake / "batches"
    rows = read_stored(batches)
    assert rows is not None
    asked = [
        {**rows.to_pylist()[0], "llm_calls": 3, "input_tokens": 4_001, "output_tokens": 90, "cost_usd": 0.5}
    ]
    shutil.rmtree(batches.path)
    small_lake._stored(batches, pa.Table.from_pylist(asked, schema=rows.schema))
    parts = {each["alert_id"]: each for each in booked(placed, "alert", None)["rows"]}
    with console_of(settings, SPEC) as client:
        client.server.agents[SPEC.name].inbox.refresh()
        client.headers.update(client.bearer(SPEC, "read"))
        one = first_alert(client)
        cost = ok(client.get(f"/v1/alerts/{one}"))["cost"]
        assert (cost["calls"], cost["shared_by"]) == (3, len(parts))
        assert cost["input_tokens"] == parts[one]["input_tokens"] > 0
        assert cost["usd"] == pytest.approx(0.5 / len(parts))
        shown = " ".join(client.get(f"/console/alerts/{one}").text.split())
        assert f"the 3 requests of its batch are shared equally among {len(parts)} alerts" in shown


def test_what_outsiders_wrote_is_data_and_no_page(client: ApiClient) -> None:
    answer = client.get(f"/v1/alerts/{first_alert(client)}")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert INJECTED not in answer.headers.values()


def test_alerts_most_like_one_are_those_of_the_planning_agent(lake: Settings, client: ApiClient) -> None:
    wanted = first_alert(client)
    found = ok(client.get(f"/v1/alerts/{wanted}/similar?limit=5"))
    actions = EntityActions(PlacedAgent(lake, SPEC), CONTRACT.entity_names)
    told = actions.similar(wanted, 5).rows
    assert [each["alert_id"] for each in found] == [row["alert_id"] for row in told]
    assert [each["distance"] for each in found] == [row["distance"] for row in told]


def test_an_entity_has_its_profile_its_payments_and_its_neighbours(lake: Settings, client: ApiClient) -> None:
    page = ok(client.get(f"/v1/entities/terminal/{BUSY}"))
    told = EntityActions(PlacedAgent(lake, SPEC), CONTRACT.entity_names).profile("terminal", BUSY).facts
    assert (page["payments"], page["known_frauds"]) == (told["payments"], told["known_frauds"])
    assert page["alerts"] == BUSY_ALERTS
    assert page["currencies"][0]["median_amount"] == told["median_amount"]
    payments = ok(client.get(f"/v1/entities/terminal/{BUSY}/history?limit=1000"))
    assert len(payments) == page["payments"]
    assert [each["sequence"] for each in payments] == sorted(
        (each["sequence"] for each in payments), reverse=True
    )
    assert sum(each["alerted"] for each in payments) == BUSY_ALERTS
    assert sum(each["is_fraud"] is True for each in payments) == 2
    older = ok(client.get(f"/v1/entities/terminal/{BUSY}/history?before={payments[3]['sequence']}&limit=2"))
    assert [each["sequence"] for each in older] == [each["sequence"] for each in payments[4:6]]
    around = ok(client.get(f"/v1/entities/terminal/{BUSY}/neighbours?limit=200"))
    assert {each["kind"] for each in around} == {"customer"}
    assert sum(each["payments"] for each in around) == page["payments"]
    assert sum(each["alerts"] for each in around) == BUSY_ALERTS
    for path in ("terminal/nobody", "galaxy/m1"):
        assert client.get(f"/v1/entities/{path}").status_code == 404


def test_a_label_over_http_is_in_the_table_and_in_the_list(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path, {})
    build_lake(PlacedAgent(settings, SPEC))
    with api_of(settings, SPEC) as client:
        agent = client.server.agents[SPEC.name]
        agent.inbox.refresh()
        headers = client.bearer(SPEC, "triage", name="anna")
        chosen = ok(client.get("/v1/alerts?filter=label = none&limit=1", headers=headers))["alerts"][0]
        label = {"transaction_id": chosen["transaction_id"], "is_fraud": True, "kind": "card_testing"}
        sent = {"labels": [label, {**label, "decided_at": "2999-01-01T00:00:00Z"}]}
        found = ok(client.post("/v1/labels", json=sent, headers=headers))
        assert (found["stored"], found["repeated"], found["rejects"][0]["position"]) == (1, 0, 2)
        again = ok(client.post("/v1/labels", json={"labels": [label]}, headers=headers))
        assert (again["stored"], again["repeated"]) == (0, 1)
        params = {"transaction": chosen["transaction_id"]}
        (stored,) = ok(client.get("/v1/labels", params=params, headers=headers))
        assert (stored["is_fraud"], stored["decided_by"], stored["source"]) == (True, "token:anna", "api")
        agent.inbox.refresh()
        frauds = ok(client.get("/v1/alerts?filter=label = fraud", headers=headers))
        assert chosen["alert_id"] in [each["alert_id"] for each in frauds["alerts"]]
        assert ok(client.get("/v1/labels/status", headers=headers))["frauds"] == 3
        reader = client.bearer(SPEC, "read", name="bert")
        assert client.post("/v1/labels", json=sent, headers=reader).status_code == 403


def test_no_token_records_a_label_under_the_name_of_another(tmp_path: Path) -> None:
    """Whom a label is by is shown to whoever decides, and counts as evidence."""
    settings = Settings.load(tmp_path, {})
    build_lake(PlacedAgent(settings, SPEC), 300)
    with api_of(settings, SPEC) as client:
        headers = client.bearer(SPEC, "triage", name="anna")
        for number, (named, status) in enumerate(
            [("token:bert", 400), ("token:", 400), ("token:anna", 200), ("chargebacks", 200), (None, 200)]
        ):
            label = {"transaction_id": f"t{number}", "is_fraud": True, "decided_by": named}
            answer = client.post("/v1/labels", json={"labels": [label]}, headers=headers)
            assert answer.status_code == status, named
            stored = client.get("/v1/labels", params={"transaction": f"t{number}"}, headers=headers).json()
            expected = [] if status == 400 else [named or "token:anna"]
            assert [each["decided_by"] for each in stored] == expected


def test_a_batch_that_is_stored_meanwhile_is_seen_by_entities(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path, {})
    build_lake(PlacedAgent(settings, SPEC), 300)
    with api_of(settings, SPEC) as client:
        client.headers.update(client.bearer(SPEC, "read"))
        before = ok(client.get("/v1/entities/customer/c1"))["payments"]
        next_batch(PlacedAgent(settings, SPEC), 300)
        assert ok(client.get("/v1/entities/customer/c1"))["payments"] > before


def test_answers_fit_their_description(client: ApiClient) -> None:
    described = ok(client.get("/openapi.json"))
    wanted = first_alert(client)
    asked = {
        "/v1/alerts": "/v1/alerts?limit=3",
        "/v1/alerts/{alert_id}": f"/v1/alerts/{wanted}",
        "/v1/alerts/{alert_id}/similar": f"/v1/alerts/{wanted}/similar",
        "/v1/entities/{kind}/{entity_id}": f"/v1/entities/terminal/{BUSY}",
        "/v1/entities/{kind}/{entity_id}/history": f"/v1/entities/terminal/{BUSY}/history",
        "/v1/labels/status": "/v1/labels/status",
        "/v1/me": "/v1/me",
    }
    for path, url in asked.items():
        schema = described["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        whole = json.loads(json.dumps({**schema, "components": described["components"]}))
        jsonschema.validate(ok(client.get(url)), whole)


def test_payments_are_found_where_the_contract_has_lost_or_gained_a_kind_of_entities(
    lake: Settings, tmp_path: Path
) -> None:
    reader = LakeReader(lake.lake(SPEC.name), SPEC.tables)
    both = {"customer": "c1", "terminal": BUSY}
    lost = IndexedPayments(reader.anew, ["customer"]).of(both)
    assert lost.equals(ScannedPayments(reader).of(both).select(lost.columns)) and lost.height > BUSY_ALERTS

    settings = Settings.load(tmp_path, {})
    build_lake(PlacedAgent(settings, SPEC))
    place = settings.lake(SPEC.name) / "transactions"
    payments = IndexedPayments(LakeReader(settings.lake(SPEC.name), SPEC.tables).anew, [*both, "device"])
    before = payments.of({"customer": "c1"}, ("terminal", "device"))
    assert before.height > 0 and before["device"].is_null().all()
    stored = LakeReader(settings.lake(SPEC.name), SPEC.tables).table("transactions")
    assert stored is not None
    wider = pa.schema([*stored.schema, pa.field("device", pa.string())])
    table = LakeTable(place, wider, "tester/epoch", RETENTION, evolves=True)
    table.claim(1 + table.epoch)
    row = {**stored.read("sequence", 0).to_pylist()[0], "sequence": 600, "customer": "c1", "device": "d1"}
    table.append(pa.Table.from_pylist([row], schema=wider), Stamp("tester/q", 1))
    after = payments.of({"customer": "c1"}, ("terminal", "device"))
    assert after.height == before.height + 1 and after["device"].to_list()[-1] == "d1"
    assert payments.of({"device": "d1"})["sequence"].to_list() == [600]
