"""A real agent over a real lake, watched: what is counted is what its tables say; nothing else changes."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import obstore
import polars as pl
import pyarrow as pa
import pytest
from obstore.store import MemoryStore
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from agent.audit.events import AuditEvent, EventKind
from agent.model.paced_endpoint import _MOST_ATTEMPTS
from schemas.batch_key import BatchKey
from schemas.errors import DataLossError
from schemas.spec import AgentSpec
from streaming.audit import audit_lines
from streaming.audit.audit_lines import log_events
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.audit.audit_reading import newest_events
from streaming.batch.observer import BatchSeen
from streaming.batch.steps import BatchStep
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.observe import observation as module
from streaming.observe.drift_watch import DriftWatch
from streaming.observe.lake_facts import LakeFacts
from streaming.observe.observation import Observation
from streaming.output.log import configure
from streaming.output.trace_ids import trace_of_batch
from streaming.service.health import Condition, Health
from streaming.store import object_files
from streaming.store.place import Place
from streaming.testing import scripted_llm as scripted
from streaming.testing.live_lake import agent, events, judge, run_live, without_broker

if TYPE_CHECKING:
    from streaming.run.opening import Agent

EVENTS = 600
SPEC = agent()
MODEL, PRICE = "gpt-4o-mini", {"input": 150.0, "output": 600.0}
# One request at a time about one group each: what the script says next is about the next group.
ASKED: dict[str, Any] = {
    "mode": "inline",
    "model": MODEL,
    "max_concurrency": 1,
    "groups_per_request": 1,
    "prices": {MODEL: PRICE},
}


class Run:
    """A watched agent that has decided some payments, and its metrics."""

    def __init__(self, settings: Settings, spec: AgentSpec = SPEC, llm: str = "none") -> None:
        self.settings, self.spec = settings, spec
        self.observation, self.health = Observation(settings, spec.name, None), Health()
        self.observation.begins(self.health, dict)
        self.llm = llm

    def decide(self, count: int = EVENTS, first_batch: int = 0) -> None:
        given = events(count)
        given[5]["amount"] = "no number"
        given[6] = given[4]
        run_live(
            PlacedAgent(self.settings, self.spec), given, first_batch, llm=self.llm, observer=self.observation
        )

    def value(self, name: str, **labels: str) -> float:
        found = [each.value for each in self.samples(name) if labels.items() <= each.labels.items()]
        assert found, (name, labels)
        return sum(found)

    def samples(self, name: str) -> list[Any]:
        text = generate_latest(self.observation.metrics.registry).decode()
        families = text_string_to_metric_families(text)
        return [each for family in families for each in family.samples if each.name == f"flagstream_{name}"]

    def frame(self, table: Any, *columns: str) -> pl.DataFrame:
        return LakeReader(self.settings.lake(self.spec.name), self.spec.tables).frame(table, columns)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        run = Run(Settings.load(tmp_path_factory.mktemp("home"), {}))
        run.decide()
        LakeFacts(
            PlacedAgent(run.settings, run.spec), run.observation.metrics, run.observation._drift
        ).round()
        yield run


@pytest.mark.long
def test_events_are_counted_as_the_batches_say(ran: Run) -> None:
    rows = ran.frame("batches", "read", "stored", "quarantined", "duplicates", "late", "closed_at")
    sums = rows.select(pl.col("read", "stored", "quarantined", "duplicates", "late").sum()).row(0)
    names = ("records_read", "events_stored", "records_quarantined", "records_duplicate", "events_late")
    assert tuple(int(ran.value(f"{name}_total")) for name in names) == sums
    assert sums[2:4] == (1, 1)
    assert ran.value("batches_total", outcome="closed") == rows.height
    assert ran.value("batches_total", outcome="failed") == 0
    assert ran.value("batch_closed_timestamp_seconds") == pytest.approx(rows["closed_at"].max().timestamp())
    (rejected,) = ran.samples("records_quarantined_total")
    assert rejected.labels["reason"] in ran.frame("quarantine", "reason")["reason"].to_list()


def test_alerts_are_counted_by_severity_classification_and_rule(ran: Run) -> None:
    alerts = ran.frame("alerts", "severity", "classification", "classification_source", "rules")
    assert alerts.height > 10
    expected = alerts.group_by("severity", "classification", "classification_source").len()
    found = {
        (each.labels["severity"], each.labels["classification"], each.labels["source"]): int(each.value)
        for each in ran.samples("alerts_total")
    }
    assert found == {tuple(row[:3]): row[3] for row in expected.iter_rows()}
    rules = alerts["rules"].explode().drop_nulls().value_counts()
    assert {each.labels["rule"]: int(each.value) for each in ran.samples("rule_alerts_total")} == dict(
        rules.iter_rows()
    )
    assert ran.value("alert_latency_seconds_count") == alerts.height
    assert ran.value("alerts_unpublished") == 0


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[dict[str, Any]]]:
    """An agent whose model answers, invents evidence, fails, and answers from then on; lines of its log."""
    said, invented = list[dict[str, Any]](), scripted.answer(evidence=["amount=-1"])
    failing = [scripted.fails(500)] * _MOST_ATTEMPTS

    with (
        pytest.MonkeyPatch.context() as patch,
        scripted.scripted_llm(scripted.answer(), invented, *failing) as server,
    ):
        without_broker(patch)
        patch.setattr(audit_lines, "is_for_programs", lambda: True)
        patch.setattr(
            audit_lines, "log_routine", lambda kind, _, **about: said.append({"kind": kind, **about})
        )
        settings = Settings.load(tmp_path_factory.mktemp("asked"), {"OPENAI_API_KEY": "sk-not-a-key"})
        run = Run(settings, agent(llm={**ASKED, "base_url": server.base_url}), llm="auto")
        run.decide(300)
    return run, said


@pytest.mark.long
def test_calls_and_answers_are_counted_as_the_audit_log_says(asked: tuple[Run, list[Any]]) -> None:
    run, _ = asked
    calls = [(row["subject"], row["detail"]) for row in audited(run, "model_call")]
    outcomes = Counter(detail["outcome"] for _, detail in calls)
    assert outcomes["evidence_mismatch"] == outcomes["server_error"] == 1
    assert outcomes["answered"] > 1
    assert counted(run, "model_answers_total", "outcome") == outcomes
    # A request of one group each is answered, whatever the answer is worth.
    requests = Counter(
        (model, "answered" if each["output_tokens"] else each["outcome"]) for model, each in calls
    )
    assert counted(run, "model_calls_total", "model", "outcome") == requests
    assert requests[MODEL, "server_error"] == 1


def test_tokens_cost_and_alerts_are_counted_as_the_batches_say(asked: tuple[Run, list[Any]]) -> None:
    run, _ = asked
    columns = ("input_tokens", "output_tokens", "cost_usd", "degraded", "alerts", "llm_calls")
    read, written, usd, degraded, alerts, calls = run.frame("batches", *columns).sum().row(0)
    assert counted(run, "model_tokens_total", "direction") == {"input": read, "output": written}
    assert (read, written) == ((calls - 1) * 100, (calls - 1) * 20)  # what failed took none
    assert run.value("model_cost_usd_total") == pytest.approx(usd)
    assert usd == pytest.approx((read * PRICE["input"] + written * PRICE["output"]) / 1e6)
    assert run.value("alerts_degraded_total") == degraded
    reasons = run.frame("alerts", "fallback_reason")["fallback_reason"].drop_nulls()
    assert degraded == len(reasons) >= 2
    assert run.value("events_flagged_total") == alerts == run.frame("alerts", "alert_id").height


def test_a_line_of_a_call_has_its_model_outcome_batch_and_trace(asked: tuple[Run, list[Any]]) -> None:
    run, said = asked
    lines = [line for line in said if line["kind"] == "model_call"]
    assert Counter(line["outcome"] for line in lines) == counted(run, "model_answers_total", "outcome")
    traces = {line["batch"]: line["trace_id"] for line in said if line["kind"] == "policy_decision"}
    assert len(traces) > 1
    for line in lines:
        assert (line["agent"], line["model"]) == (run.spec.name, MODEL)
        assert line["trace_id"] == traces[line["batch"]]


def test_a_line_of_a_call_has_the_very_trace_of_its_batch(capsys: pytest.CaptureFixture[str]) -> None:
    key = BatchKey("ab" * 16, 7)
    detail = {"query_id": key.query_id, "batch_id": key.batch_id, "outcome": "answered"}
    configure("json")
    try:
        log_events("tester", [AuditEvent("model_call", MODEL, detail, "tester/ledger", 0)])
    finally:
        configure("text")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["model"], line["outcome"]) == ("model_call", MODEL, "answered")
    assert (line["batch"], line["trace_id"]) == (7, trace_of_batch("tester", key).text)


def counted(run: Run, name: str, *labels: str) -> dict[Any, int]:
    """Return a counter's values by these labels of its series."""
    found = Counter[Any]()
    for each in run.samples(name):
        key = tuple(each.labels[label] for label in labels)
        found[key if len(key) > 1 else key[0]] += int(each.value)
    return found


def audited(run: Run, kind: EventKind) -> list[dict[str, Any]]:
    return newest_events(AuditPlaces(PlacedAgent(run.settings, run.spec)), kind, 1_000)


def test_each_step_of_a_batch_says_that_the_agent_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_broker(monkeypatch)
    run, moves = Run(Settings.load(tmp_path, {})), list[int]()
    monkeypatch.setattr(run.observation.readiness, "stepped", lambda: moves.append(1))
    run.decide(10)
    assert len(moves) == 2 + len(
        BatchStep
    )  # begun twice: before it takes records, and once the one before is closed


def test_the_steps_of_all_batches_are_timed(ran: Run) -> None:
    batches = ran.value("batches_total", outcome="closed")
    steps = {each.labels["step"]: each.value for each in ran.samples("batch_step_duration_seconds_count")}
    assert steps == dict.fromkeys(
        ["open", "take", "decode", "store", "score", "triage", "alert", "publish", "close"], batches
    )


def test_the_state_is_shown(ran: Run) -> None:
    assert ran.value("profile_entities", entity="customer") == 21
    assert ran.value("profile_bytes", entity="terminal") > 1_000
    assert ran.value("table_files", table="transactions") >= 1
    assert ran.value("table_bytes", table="transactions") > 1_000
    assert ran.value("disk_free_bytes", volume="lake") > 0
    assert ran.value("checkpoint_timestamp_seconds") > 1.7e9
    assert ran.value("checkpoint_behind_events") < EVENTS
    assert ran.value("ready") == 0  # it has ended
    assert ran.value("condition_active") == 0
    assert ran.value("agent_info", spec_version="1.0.0", model="none") == 1


def test_a_checkpoint_in_a_store_is_as_old_as_its_newest_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    monkeypatch.setattr(object_files, "client_of", lambda *_: store)
    settings = replace(Settings.load(tmp_path, {}), store=Place("s3://lake/flagstream"))
    watched = Observation(settings, SPEC.name, None).metrics
    facts = LakeFacts(PlacedAgent(settings, SPEC), watched, DriftWatch(settings.drift("x")))
    shown = "flagstream_checkpoint_timestamp_seconds{"
    facts._read_checkpoints()
    assert shown not in generate_latest(watched.registry).decode()
    before = time.time()
    obstore.put(store, f"flagstream/profiles/{SPEC.name}/{7:020d}.json", b"{}")
    facts._read_checkpoints()
    (line,) = (each for each in generate_latest(watched.registry).decode().splitlines() if shown in each)
    assert before - 1 <= float(line.split()[-1]) <= time.time() + 1


def test_a_round_that_had_to_wait_is_not_late_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.load(tmp_path, {})
    watched = Observation(settings, SPEC.name, None).metrics
    facts = LakeFacts(PlacedAgent(settings, SPEC), watched, DriftWatch(settings.drift("x")))
    monkeypatch.setattr(facts, "_read_disks", lambda: threading.Event().wait(0.5))
    facts.round()  # the first one imports and opens
    assert facts.round() < 50.0


@pytest.mark.long
def test_watching_changes_no_byte_of_what_is_decided(ran: Run, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        plain = Settings.load(tmp_path / "plain", {})
        given = events(EVENTS)
        given[5]["amount"] = "no number"
        given[6] = given[4]
        run_live(PlacedAgent(plain, SPEC), given)
    columns = ["alert_id", "score", "log_odds", "severity", "rationale", "reasons", "outbox_seq"]
    other = LakeReader(plain.lake(SPEC.name), SPEC.tables).frame("alerts", columns)
    assert ran.frame("alerts", *columns).sort("outbox_seq").equals(other.sort("outbox_seq"))


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    without_broker(monkeypatch)
    return Run(settings)


def test_what_goes_wrong_in_counting_is_a_condition_and_ends_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a metric")

    monkeypatch.setattr(module, "count_batch", broken)
    run.decide(200)
    assert run.frame("batches", "stored")["stored"].sum() == 198
    (state,) = run.health.active
    assert (state.condition, state.cause) == (Condition.METRICS_FAILING, "ZeroDivisionError: a metric")


def test_an_attempt_that_fails_is_counted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_: pa.Table) -> None:
        raise DataLossError("gone")

    monkeypatch.setattr("streaming.batch.batch_intake.decode", lambda *_: lost(_[0]))
    with pytest.raises(DataLossError):
        run.decide(100)
    assert run.value("batches_total", outcome="failed") == 1


@pytest.mark.long
def test_labels_actions_and_what_people_read_are_counted_once(run: Run) -> None:
    places = AuditPlaces(PlacedAgent(run.settings, run.spec))

    class Interfering(Observation):
        def closed(self, seen: BatchSeen) -> None:
            super().closed(seen)
            if seen.key.batch_id == 0:
                facts.round()  # what is on record by now was counted by earlier runs
            if seen.key.batch_id == 1:
                tell(places, run.spec)

    run.observation = Interfering(run.settings, run.spec.name, None)
    facts = LakeFacts(
        PlacedAgent(run.settings, run.spec), run.observation.metrics, DriftWatch(run.settings.drift("x"))
    )
    run.decide(300)
    facts.round()
    alerted = run.frame("alerts", "transaction_id")["transaction_id"].to_list()
    judge(PlacedAgent(run.settings, run.spec), alerted[:4])
    facts.round()
    facts.round()
    assert run.value("actions_total", action="run_job", outcome="done") == 1
    assert run.value("actions_total", action="labels", outcome="done") == 1
    assert run.value("data_accesses_total", table="alerts") == 1
    assert run.value("time_to_action_seconds_count") == 1
    assert run.value("labels") == 4
    assert run.value("alert_precision_ratio", maturity="7d") == 1.0
    assert 0 < run.value("alerts_labelled_ratio", maturity="1d") < 1
    assert run.value("label_delay_seconds", percentile="50") > 0
    assert run.value("classification_agreement_ratio", source="rules") >= 0


def tell(places: AuditPlaces, spec: AgentSpec) -> None:
    log, run_id = LakeAudit(places, spec.replay_horizon), "ab" * 16
    plan = {"run_id": run_id, "action": "run_job", "step": 1}
    told = [
        AuditEvent("policy_decision", run_id, {"run_id": run_id, "decision": "allowed"}, "agent_run/x", 0),
        AuditEvent("action", "run_job", {**plan, "outcome": "started"}, "agent_run/x", 1),
        AuditEvent("action", "run_job", {**plan, "outcome": "done"}, "agent_run/x", 2),
        AuditEvent("action", "labels", {"command": "labels", "rows": 3}, "command/y", 0),
        AuditEvent("data_access", "explain", {"tables": ["alerts", "labels"]}, "command/z", 0),
    ]
    for event in told:
        log.record([event])


def test_lag_is_shown_by_partition_and_the_budget_and_breakers_as_they_are(run: Run) -> None:
    run.observation.begins(run.health, lambda: {"gpt": True, "local": False})
    run.observation.unread({"t": {"0": 5, "1": 0}})
    run.health.begins(Condition.BROKER_AWAY, "refused")
    run.observation.refresh()
    assert {each.labels["partition"]: each.value for each in run.samples("lag_records")} == {"0": 5, "1": 0}
    assert run.value("model_circuit_open", model="gpt") == 1
    assert run.value("model_circuit_open", model="local") == 0
    assert run.value("condition_active", condition="broker_away") == 1
    assert run.value("condition_since_timestamp_seconds", condition="broker_away") > 1.7e9
    assert run.value("condition_active", condition="clock_skew") == 0


class CountingBudget:
    """A budget whose refusals two readers see at the same time, if anybody lets them."""

    def __init__(self) -> None:
        self._both = threading.Barrier(2)

    @property
    def refusals(self) -> dict[str, int]:
        with suppress(threading.BrokenBarrierError):
            self._both.wait(0.5)
        return {"minute": 0, "day": 5}

    def used_shares(self) -> dict[tuple[str, str], float]:
        return {}


def test_of_several_who_scrape_at_once_each_counts_what_the_one_before_has_not(run: Run) -> None:
    held = SimpleNamespace(budget=CountingBudget(), late=None, outbox=SimpleNamespace(unpublished=0))
    run.observation._working = cast("Agent", held)
    scraping = [threading.Thread(target=run.observation.refresh) for _ in range(2)]
    for each in scraping:
        each.start()
    for each in scraping:
        each.join()
    assert run.value("model_budget_refusals_total", window="day") == 5
    assert run.value("model_budget_refusals_total", window="minute") == 0
    assert run.health.active == ()


@pytest.mark.long
def test_drift_is_kept_over_a_restart(run: Run) -> None:
    run.decide(300)
    kept = DriftWatch(run.settings.drift(run.spec.name))
    again = Run(run.settings)
    again.observation._drift = kept
    given = events(400)
    run_live(PlacedAgent(run.settings, run.spec), given, first_batch=10, observer=again.observation)
    assert kept._drift is not None
    assert kept._drift.skipped > 400


def test_a_line_of_json_tells_of_each_batch_and_of_each_event(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("json")
    try:
        run.decide(200)
        tell(AuditPlaces(PlacedAgent(run.settings, run.spec)), run.spec)
    finally:
        configure("text")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    closed = [line for line in lines if line["event"] == "batch_closed"]
    assert [line["batch"] for line in closed] == [0, 1, 2]
    assert {line["data_source"] for line in closed} == {"events"}
    assert {line["outcome"] for line in closed} <= {"ok", "alert"}
    assert len({line["trace_id"] for line in closed}) == 3
    assert all(len(line["trace_id"]) == 32 and line["agent"] == "tester" for line in closed)
    (done,) = [
        line
        for line in lines
        if line["event"] == "action" and line.get("outcome") == "done" and line.get("run_id")
    ]
    assert (done["action"], done["agent"]) == ("run_job", "tester")
    (read,) = [line for line in lines if line["event"] == "data_access"]
    assert read["data_source"] == "alerts,labels"


def test_people_get_no_line_for_each_batch(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    configure("text")
    run.decide(200)
    assert "batch_closed" not in capsys.readouterr().err
