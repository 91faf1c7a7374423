"""Versions, quarantine, what-ifs, the planning agent and figures over HTTP, on lakes of the real engine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from schemas.errors import ConfigurationError, StoreError
from schemas.spec import AgentSpec
from streaming.audit.audit_check import check_audit
from streaming.audit.audit_log import AuditPlaces
from streaming.audit.audit_reading import newest_events
from streaming.history.cost import booked
from streaming.history.replay_runs import ReplaySpan, run_what_if
from streaming.history.what_if_found import WhatIf
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve.what_if_jobs import WhatIfJobs
from streaming.serve.what_ifs_api import _plain, candidate_of
from streaming.testing.api import ApiClient, api_of
from streaming.testing.live_lake import agent
from streaming.testing.small_lake import BUSY, BUSY_ALERTS, build_lake, spec_of
from streaming.testing.trial import trial
from streaming.versions.moving import complete
from streaming.versions.registry import Author, SpecRegistry
from tests.unit.plan_samples import plan, query, step

SPEC = spec_of()
COUNT = "SELECT count(*) AS n FROM alerts WHERE terminal = ?"
SECONDS = 60.0


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings.load(tmp_path_factory.mktemp("operated"), {})
    build_lake(PlacedAgent(settings, SPEC))
    return settings


@pytest.fixture(scope="module")
def client(lake: Settings) -> Iterator[ApiClient]:
    with api_of(lake, SPEC) as asked:
        asked.headers.update(asked.bearer(SPEC, "operate", name="anna"))
        yield asked


def ok(answer: Any, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


def job_done(client: ApiClient, job_id: str) -> dict[str, Any]:
    jobs = client.server.agents[SPEC.name].what_ifs
    for thread in jobs._threads:
        thread.join(SECONDS)
    found: dict[str, Any] = ok(client.get(f"/v1/what-ifs/{job_id}"))
    return found


def test_a_what_if_says_what_the_command_says(lake: Settings, client: ApiClient) -> None:
    started = ok(client.post("/v1/what-ifs", json={"changes": {"rules": [], "threshold": 0.99}}), 202)
    done = job_done(client, started["job_id"])
    assert (done["state"], done["who"], done["problem"]) == ("done", "token:anna", None)
    assert done["replayed"] == done["rows"] == 600
    report = ok(client.get(f"/v1/what-ifs/{started['job_id']}/report"))
    candidate = candidate_of(SPEC, {"rules": [], "threshold": 0.99})
    expected = run_what_if(PlacedAgent(lake, SPEC), candidate, ReplaySpan()).facts()
    for name in ("transactions", "added", "removed", "kept", "known_frauds"):
        assert report[name] == expected[name], name
    assert report["removed"] > 0
    assert ok(client.get("/v1/what-ifs"))[0]["job_id"] == started["job_id"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"threshold": 2}, "threshold"),
        ({"thresold": 0.5}, "did you mean"),
        ({"name": "another"}, "name"),
        ({"rules_file": "/etc/passwd"}, "no other file"),
        ({"policy": "/tmp/mine.json"}, "no other file"),
        ({"tables": {"alerts": "other"}}, "tables"),
        ({"data_sources": {"transactions": {"contract": "/tmp/c.yaml", "topic": "events"}}}, "no other file"),
        ({"data_sources": {"transactions": {"contract": "handbook", "topic": "events"}}}, "data_sources"),
    ],
)
def test_a_candidate_that_cannot_be_tried_is_refused(
    client: ApiClient, changes: dict[str, Any], said: str
) -> None:
    answer = client.post("/v1/what-ifs", json={"changes": changes})
    assert answer.status_code == 400
    assert said in answer.text


def test_no_file_is_read_that_somebody_names_over_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(name: str) -> None:
        raise AssertionError(name)

    monkeypatch.setattr("streaming.versions.registry.load_contract", read)
    source = {"contract": "/dev/zero", "topic": "events"}
    with pytest.raises(ConfigurationError, match="no other file"):
        candidate_of(SPEC, {"data_sources": {"transactions": source}})


def test_one_what_if_runs_at_a_time_and_one_that_is_stopped_ends() -> None:
    jobs, begun, go_on = (
        WhatIfJobs(lambda: datetime(2026, 5, 1, tzinfo=UTC)),
        threading.Event(),
        threading.Event(),
    )

    def endless(moved_on: Any) -> Any:
        begun.set()
        while True:
            moved_on(1, 1_000)
            go_on.wait(0.001)

    job = jobs.start("anna", endless, lambda _: True)
    assert begun.wait(SECONDS)
    with pytest.raises(Exception, match="wait for it, or stop it"):
        jobs.start("bert", endless, lambda _: True)
    jobs.stop(job.job_id)
    jobs.close()
    assert (job.state, job.report, job.is_kept) == ("stopped", None, False)
    assert job.replayed > 0
    failing = jobs.start("anna", lambda _: 1 / 0, lambda _: True)  # type: ignore[arg-type, return-value]  # it fails
    jobs.close()
    assert (failing.state, failing.problem) == ("failed", "a fault of ours: ZeroDivisionError")
    refused = jobs.start(
        "anna", lambda _: (_ for _ in ()).throw(ConfigurationError("no such span")), lambda _: True
    )
    jobs.close()
    assert refused.problem == "no such span"


@pytest.mark.parametrize(
    ("fault", "said"),
    [(StoreError("the store is away"), "the store is away"), (OSError("c42"), "a fault of ours: OSError")],
)
def test_a_report_that_cannot_be_kept_is_there_all_the_same(fault: Exception, said: str) -> None:
    jobs = WhatIfJobs()

    def refuses(_: WhatIf) -> bool:
        raise fault

    found = cast("WhatIf", SimpleNamespace(facts=lambda: {"added": 3}))
    job = jobs.start("anna", lambda _: found, refuses)
    jobs.close()
    assert (job.state, job.report, job.is_kept) == ("done", {"added": 3}, False)
    assert job.problem is not None
    assert said in job.problem


@pytest.mark.parametrize(
    "given",
    ["2026-05-03T00:00:00", "2026-05-03T00:00:00Z", "2026-05-03T05:30:00+05:30", "2026-05-02T17:00:00-07:00"],
)
def test_a_moment_is_the_same_whatever_its_zone(given: str) -> None:
    assert _plain(datetime.fromisoformat(given), "from_time") == datetime(2026, 5, 3)


@pytest.mark.parametrize("where", ["from_time", "to_time"])
@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00"])
def test_a_moment_that_utc_has_no_year_for_is_refused(client: ApiClient, where: str, moment: str) -> None:
    answer = client.post("/v1/what-ifs", json={"changes": {}, where: moment})
    assert (answer.status_code, where in answer.text) == (400, True), answer.text


def test_a_plan_is_checked_carried_out_and_its_finding_cited(client: ApiClient) -> None:
    by_hand = plan(query(1, COUNT, BUSY), step(2, "entity_profile", entity="terminal", id=BUSY))
    order = {"goal": "how many alerts has m1?", "plan": by_hand.model_dump(mode="json")}
    dry = ok(client.post("/agent/run", json={**order, "dry_run": True}))
    assert (dry["ok"], dry["steps"], dry["dry_run"]) == (True, [], True)
    done = ok(client.post("/agent/run", json=order))
    assert done["ok"], done
    assert done["steps"][0]["result"]["rows"][0]["n"] == BUSY_ALERTS
    assert done["finding"] is not None
    refused = ok(client.post("/agent/run", json={"goal": "x", "plan": plan(step(1, "run_job")).model_dump()}))
    assert not refused["ok"]
    assert refused["refusals"]
    for wrong in ({"goal": "x"}, {"goal": " ", "plan": order["plan"]}, {"goal": "x", "plan": {"steps": 3}}):
        assert client.post("/agent/run", json=wrong).status_code == 400, wrong


def test_figures_are_those_of_the_commands(lake: Settings, client: ApiClient) -> None:
    status = ok(client.get("/v1/status"))
    assert (status["totals"]["stored"], status["batches"], status["running"]) == (600, 1, False)
    cost = ok(client.get("/v1/cost?by=day"))
    assert cost["total"] == booked(PlacedAgent(lake, SPEC), "day", None)["total"]
    assert len(cost["rows"]) == 1


def test_the_audit_log_comes_as_lines_from_where_one_was(lake: Settings, client: ApiClient) -> None:
    by_hand = plan(query(1, COUNT, BUSY))
    ok(client.post("/agent/run", json={"goal": "count", "plan": by_hand.model_dump(mode="json")}))
    client.server.agents[SPEC.name].trail.flush(whole=True)
    answer = client.get("/v1/audit?limit=1000")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    rows = [json.loads(line) for line in answer.text.splitlines()]
    expected = newest_events(AuditPlaces(PlacedAgent(lake, SPEC)), None, 1_000)
    assert [row["number"] for row in rows] == [row["number"] for row in expected]
    assert [row["hash"] for row in rows] == [row["hash"] for row in expected]
    some = client.get(f"/v1/audit?after={rows[0]['number']}&limit=1").text.splitlines()
    assert [json.loads(line)["number"] for line in some] == [rows[1]["number"]]
    actions = client.get("/v1/audit?kind=action").text.splitlines()
    assert {json.loads(line)["kind"] for line in actions} == {"action"}
    assert client.get("/v1/audit?kind=nonsense").status_code == 400
    assert check_audit(AuditPlaces(PlacedAgent(lake, SPEC))).sound


@pytest.fixture
def registered(tmp_path: Path) -> tuple[Settings, AgentSpec]:
    settings = Settings.load(tmp_path / "home", {})
    first = complete(spec_of())
    registry = SpecRegistry(PlacedAgent(settings, first))
    registry.add(first, Author("anna", "first"))
    registry.add(complete(spec_of(version="1.1.0", threshold=0.998)), Author("anna", "stricter"))
    return settings, first


def test_versions_stand_where_the_registry_says_and_gates_hold(
    registered: tuple[Settings, AgentSpec],
) -> None:
    settings, spec = registered
    with api_of(settings, spec) as client:
        headers = client.bearer(spec, "operate", name="anna")
        rows = ok(client.get("/v1/versions", headers=headers))
        assert [(row["version"], row["stage"]) for row in rows] == [("1.0.0", "active"), ("1.1.0", "sandbox")]
        shown = ok(client.get("/v1/versions/1.1.0", headers=headers))
        assert shown["spec"]["threshold"] == 0.998
        closed = client.post("/v1/versions/1.1.0/promote", json={"why": "looks good"}, headers=headers)
        assert closed.status_code == 409
        assert "replay" in closed.json()["detail"]
        assert closed.json()["problems"][0].startswith("replay: ")
        assert (
            client.post("/v1/versions/9.9.9/promote", json={"why": "x"}, headers=headers).status_code == 404
        )
        more = {"why": "x", "endpoint_change": "another model"}
        refused = client.post("/v1/versions/1.1.0/promote", json=more, headers=headers)
        assert (refused.status_code, refused.json()["missing_scope"]) == (403, "admin")
        assert client.post("/v1/versions/rollback", json={"why": "x"}, headers=headers).status_code == 400
        secret = {"why": "token sk-1234567890abcdefghij1234567890"}
        assert client.post("/v1/versions/rollback", json=secret, headers=headers).status_code == 400
        only_reads = client.bearer(spec, "triage", name="bert")
        assert client.post("/v1/versions/rollback", json={"why": "x"}, headers=only_reads).status_code == 403


def test_a_version_is_promoted_once_its_what_if_is_kept_and_rolled_back(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "home", {})
    spec = complete(spec_of(promotion={"least_labels": 1, "maturity": "0s", "alerts_tolerance": 10}))
    build_lake(PlacedAgent(settings, spec))
    registry = SpecRegistry(PlacedAgent(settings, spec))
    registry.add(spec, Author("anna", "first"))
    changes = {"version": "1.1.0", "threshold": 0.998}
    registry.add(complete(candidate_of(spec, changes)), Author("anna", "more"))
    with api_of(settings, spec) as client:
        client.headers.update(client.bearer(spec, "operate", name="anna"))
        started = ok(client.post("/v1/what-ifs", json={"changes": changes}), 202)
        assert job_done(client, started["job_id"])["is_kept"]
        promote, rollback = "/v1/versions/1.1.0/promote", "/v1/versions/rollback"
        seen = {"version": "1.1.0", "stage": "shadow"}
        for to in ("sandbox", "canary", "active", "retired"):
            assert client.post(promote, json={"why": "x", "to": to}).status_code == 409
        assert client.post(rollback, json={"why": "x", "expect": seen}).status_code == 409
        moved = ok(client.post(promote, json={"why": "replay looks good", "to": "shadow"}))
        assert moved == {"moved": {"1.1.0": "shadow"}}
        assert client.post(promote, json={"why": "once more", "to": "shadow"}).status_code == 409
        assert ok(client.get(rollback)) == {"moved": {"1.1.0": "sandbox"}, "withdraws": seen}
        for other in ({"stage": "canary"}, {"version": "1.0.0"}):
            answer = client.post(rollback, json={"why": "x", "expect": {**seen, **other}})
            assert answer.status_code == 409
            assert "would withdraw version 1.1.0 from shadow" in answer.json()["detail"]
        back = ok(client.post(rollback, json={"why": "not yet", "expect": seen}))
        assert back["moved"]["1.1.0"] == "sandbox"
    assert [each.who for each in registry.entries() if each.event == "replayed"] == ["token:anna"]
    changed = newest_events(AuditPlaces(PlacedAgent(settings, spec)), "configuration_change", 9)
    assert {"token:anna"} == {
        row["detail"]["who"] for row in changed if row["detail"]["change"] == "promoted"
    }


def test_records_that_wait_are_listed_shown_and_asked_for(tmp_path: Path) -> None:
    with trial(tmp_path, agent()) as tried:
        tried.send([b"{not json", b'{"tx_id": "t1"}'])
        settings, spec = tried.settings, tried.spec
        with api_of(settings, spec) as client:
            client.headers.update(client.bearer(spec, "operate", name="anna"))
            page = ok(client.get("/v1/quarantine"))
            assert page["total"] == 2
            assert sum(page["by_reason"].values()) == 2
            one = page["records"][0]
            place = f"{one['topic']}/{one['partition']}/{one['offset']}"
            shown = ok(client.get(f"/v1/quarantine/records/{place}"))
            assert shown["rejections"][0]["reason"] == one["reason"]
            assert client.get("/v1/quarantine/records/events/0/99").status_code == 404
            order = {"why": "sender mended", "reasons": [one["reason"]]}
            dry = ok(client.post("/v1/quarantine/requeue", json={**order, "dry_run": True}))
            assert (dry["records"], dry["request"]) == (1, None)
            assert ok(client.get("/v1/quarantine/requests")) == []
            asked = ok(client.post("/v1/quarantine/requeue", json=order))
            (request,) = ok(client.get("/v1/quarantine/requests"))
            assert (request["request"], request["who"]) == (asked["request"], "token:anna")
            assert client.post("/v1/quarantine/requeue", json={"why": "x"}).status_code == 400
        done = newest_events(AuditPlaces(PlacedAgent(settings, spec)), "action", 9)
        told = [
            (each["detail"]["command"], each["detail"].get("query_id"), each["detail"].get("why"))
            for each in done
            if "requeue" in each["detail"]["command"]
        ]
        assert told[-2:] == [
            ("api/requeue-records-dry-run", None, None),
            ("api/requeue-records", f"requeue-{asked['request']}", "sender mended"),
        ]
