"""Traces as a collector gets them: a batch with its steps, calls linked to it, ids for alerts, no secret."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from opentelemetry.util.re import parse_env_headers

from agent.audit.events import AuditEvent
from agent.model.call_watch import FinishedCall
from schemas.batch_key import BatchKey
from schemas.errors import ConfigurationError, DataLossError
from schemas.spec import AgentSpec
from streaming.batch.steps import BatchStep
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.home.trace_target import TraceTarget, trace_target
from streaming.kafka.outbox_record import OutboxRecord
from streaming.observe import traces as module
from streaming.observe.observation import Observation, tracing
from streaming.observe.watching import watching_run
from streaming.output.log import configure
from streaming.output.redaction import redacted
from streaming.output.trace_ids import TraceIds, trace_of_batch
from streaming.run import alerts_end
from streaming.testing import scripted_llm as scripted
from streaming.testing.live_lake import QuietLane, agent, events, run_live
from tests.otlp_receiver import Collector, collector

KEY = "sk-a-key-that-nobody-may-see"
ANSWERED = FinishedCall("m", "http://127.0.0.1:1/v1", 1, 2, "answered", 10, 5, 160)


@pytest.fixture
def collected() -> Iterator[Collector]:
    with collector() as found:
        yield found


def traced(home: Path, found: Collector) -> Settings:
    return Settings.load(home, {"FLAGSTREAM_TRACES": found.url})


class RecordingLane(QuietLane):
    """A lane that remembers what it was given."""

    sent: list[OutboxRecord] = []  # noqa: RUF012 -- each test begins with none

    def publish(self, records: Any) -> int:
        kept = list(records)
        self.sent.extend(kept)
        return super().publish(kept)


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> list[OutboxRecord]:
    monkeypatch.setattr(RecordingLane, "sent", [])
    monkeypatch.setattr(alerts_end, "Publisher", RecordingLane)
    return RecordingLane.sent


def decide(
    settings: Settings, spec: AgentSpec, count: int = 200, llm: str = "none", *, sees: bool = True
) -> Observation | None:
    if not sees:
        run_live(PlacedAgent(settings, spec), events(count), llm=llm)
        return None
    with tracing(settings, spec.name) as traces:
        observation = Observation(settings, spec.name, traces, counts=False)
        run_live(PlacedAgent(settings, spec), events(count), llm=llm, observer=observation)
    return observation


def test_a_batch_is_one_trace_with_a_span_for_each_step(
    tmp_path: Path, collected: Collector, lane: list[OutboxRecord]
) -> None:
    decide(traced(tmp_path, collected), agent())
    wholes = collected.named("batch")
    assert [each.attributes["flagstream.batch_id"] for each in wholes] == [0, 1, 2]
    assert {each.service for each in collected.spans} == {"flagstream"}
    for whole in wholes:
        ids = trace_of_batch("tester", BatchKey("live", whole.attributes["flagstream.batch_id"]))
        assert (whole.trace_id, whole.span_id) == (ids.text, f"{ids.span_id:016x}")
        assert whole.parent == ""
        steps = [each for each in collected.spans if each.parent == whole.span_id]
        assert [each.name for each in steps] == [str(step) for step in BatchStep]
        assert all(whole.began_ns <= each.began_ns <= each.ended_ns <= whole.ended_ns for each in steps)
        assert not any(each.failed for each in (whole, *steps))
    assert sum(each.attributes["flagstream.stored"] for each in wholes) == 200
    assert sum(each.attributes["flagstream.alerts"] for each in wholes) == len(lane) > 0


@pytest.mark.long
def test_alerts_carry_the_trace_of_their_batch_and_their_bytes_stay_the_same(
    tmp_path: Path, collected: Collector, lane: list[OutboxRecord]
) -> None:
    decide(traced(tmp_path / "traced", collected), agent())
    with_traces = list(lane)
    lane.clear()
    decide(Settings.load(tmp_path / "plain", {}), agent(), sees=False)
    assert [each.headers for each in lane] == [()] * len(with_traces)
    assert [(each.outbox_seq, each.key) for each in lane] == [
        (each.outbox_seq, each.key) for each in with_traces
    ]
    parents = {each.headers[0][1].decode() for each in with_traces}
    assert all(each.headers[0][0] == "traceparent" for each in with_traces)
    known = {f"00-{whole.trace_id}-{whole.span_id}-01" for whole in collected.named("batch")}
    assert parents <= known


def said(record: OutboxRecord) -> tuple[int, bytes, dict[str, Any]]:
    """What an alert says, but for when it was made."""
    document = json.loads(record.value)
    assert document.pop("created_at")
    return record.outbox_seq, record.key, document


@pytest.mark.long
@pytest.mark.usefixtures("lane")
def test_a_call_carries_the_conventions_of_generative_models_and_is_linked_to_its_batch(
    tmp_path: Path, collected: Collector
) -> None:
    with scripted.scripted_llm() as server:
        spec = agent(llm={"mode": "inline", "base_url": server.base_url, "model": "gpt-4o-mini"})
        environ = {"FLAGSTREAM_TRACES": collected.url, "OPENAI_API_KEY": KEY}
        decide(Settings.load(tmp_path, environ), spec, llm="auto")
    calls = collected.named("chat gpt-4o-mini")
    assert calls
    batches = {(each.trace_id, each.span_id) for each in collected.named("batch")}
    for call in calls:
        found = call.attributes
        assert found["gen_ai.operation.name"] == "chat"
        assert found["gen_ai.request.model"] == "gpt-4o-mini"
        assert found["gen_ai.provider.name"] == "openai_compatible"
        assert found["gen_ai.output.type"] == "json"
        assert found["gen_ai.request.max_tokens"] >= 160
        assert found["gen_ai.usage.input_tokens"] > 0
        assert found["gen_ai.usage.output_tokens"] > 0
        assert (found["server.address"], found["server.port"]) == (
            "127.0.0.1",
            urlsplit(server.base_url).port,
        )
        assert call.kind == 3  # client
        assert call.parent == ""
        assert len(call.links) == 1
        assert set(call.links) <= batches
        assert not call.failed


def test_no_text_no_id_of_anybody_and_no_secret_is_in_a_span(
    tmp_path: Path, collected: Collector, lane: list[OutboxRecord]
) -> None:
    with scripted.scripted_llm() as server:
        spec = agent(llm={"mode": "inline", "base_url": server.base_url, "model": "gpt-4o-mini"})
        environ = {"FLAGSTREAM_TRACES": collected.url, "OPENAI_API_KEY": KEY}
        decide(Settings.load(tmp_path, environ), spec, llm="auto")
        asked = [request.user_message for request in server.requests]
    everything = b"".join(collected.raw)
    assert asked
    assert KEY.encode() not in everything
    for each in lane:
        assert each.key not in everything
    for event in events(200):
        for name in ("customer_id", "terminal_id"):
            assert f'"{event[name]}"'.encode() not in everything
    assert not any(
        name.startswith(("gen_ai.input", "gen_ai.prompt", "gen_ai.output.messages"))
        for each in collected.spans
        for name in each.attributes
    )


@pytest.mark.usefixtures("lane")
def test_an_attempt_that_fails_is_a_span_that_says_where(
    tmp_path: Path, collected: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise DataLossError("payment of Mrs. Smith is gone")

    monkeypatch.setattr("streaming.batch.batch_intake.decode", lost)
    with pytest.raises(DataLossError):
        decide(traced(tmp_path, collected), agent())
    (whole,) = collected.named("batch")
    ids = trace_of_batch("tester", BatchKey("live", 0))
    assert whole.failed
    assert whole.attributes["error.type"] == "DataLossError"
    assert whole.trace_id == ids.text
    assert whole.span_id != f"{ids.span_id:016x}"  # alerts name the attempt that closes it
    assert [each.name for each in collected.spans if each.failed] == ["decode", "batch"]
    assert b"Smith" not in b"".join(collected.raw)


@pytest.mark.long
@pytest.mark.usefixtures("lane")
def test_a_planned_run_is_a_trace_of_its_calls_and_actions_linked_to_the_newest_batch(
    tmp_path: Path, collected: Collector
) -> None:
    settings, run_id = traced(tmp_path, collected), "cd" * 16
    decide(settings, agent())
    collected.spans.clear()
    told: list[AuditEvent] = []

    class Log:
        def record(self, given: Any) -> None:
            told.extend(given)

    with watching_run(PlacedAgent(settings, agent()), run_id) as watched:
        log = watched.audit(Log())
        for place, (outcome, step) in enumerate([("started", 1), ("done", 1), ("started", 2), ("failed", 2)]):
            detail = {"run_id": run_id, "action": "notify", "step": step, "outcome": outcome}
            log.record([AuditEvent("action", "notify", detail, "agent_run/x", place)])
        watched.calls(ANSWERED)
    (whole,) = collected.named("invoke_agent tester")
    actions = collected.named("execute_tool notify")
    assert [each.failed for each in actions] == [False, True]
    newest = trace_of_batch("tester", BatchKey("live", 2))
    for each in actions:
        assert each.parent == whole.span_id
        assert each.links == ((newest.text, f"{newest.span_id:016x}"),)
        assert each.attributes["gen_ai.tool.name"] == "notify"
    (call,) = collected.named("chat m")
    assert (call.parent, call.trace_id) == (whole.span_id, whole.trace_id)
    assert len(told) == 4


def test_a_collector_that_is_away_holds_nothing_up(
    tmp_path: Path, lane: list[OutboxRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FLUSH_SECONDS", 0.2)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    decide(Settings.load(tmp_path, {"FLAGSTREAM_TRACES": "http://127.0.0.1:9"}), agent(), 100)
    assert lane
    for each in [thread for thread in threading.enumerate() if thread.name == "traces-end"]:
        each.join()  # it logs into the next test


def test_ids_of_batches_differ_and_are_the_same_everywhere() -> None:
    keys = [BatchKey(query, number) for query in ("a", "b") for number in range(500)]
    ids = [trace_of_batch(name, key) for name in ("x", "y") for key in keys]
    assert len({each.trace_id for each in ids}) == len(ids)
    assert all(each.trace_id and each.span_id for each in ids)
    again = trace_of_batch("x", BatchKey("a", 7))
    assert again == ids[7]
    assert TraceIds(1, 2).traceparent(kept=True) == f"00-{'0' * 31}1-{'0' * 15}2-01"


@pytest.mark.parametrize(
    ("environ", "target"),
    [
        ({}, None),
        ({"FLAGSTREAM_TRACES": "off", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, None),
        ({"FLAGSTREAM_TRACES": "http://127.0.0.1:4318"}, TraceTarget("http://127.0.0.1:4318/v1/traces")),
        ({"FLAGSTREAM_TRACES": "https://h/otel/"}, TraceTarget("https://h/otel/v1/traces")),
        ({"FLAGSTREAM_TRACES": "https://h/v1/traces"}, TraceTarget("https://h/v1/traces")),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, TraceTarget()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "TRUE"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_traces_are_made_where_somebody_asks_for_them(
    environ: dict[str, str], target: TraceTarget | None
) -> None:
    assert trace_target(environ) == target


def test_what_logs_in_at_the_collector_is_taken_out_of_the_log() -> None:
    headers = "x-mlflow-experiment-id=1234567,authorization=Basic%20cHVibGljOnNlY3JldA"
    trace_target({"OTEL_EXPORTER_OTLP_HEADERS": headers})
    assert redacted("cHVibGljOnNlY3JldA of experiment 1234567") == "[redacted] of experiment 1234567"


@pytest.mark.parametrize(
    "headers",
    [
        "x-api-key: s3cr3t-of-the-collector",
        "s3cr3t-of-the-collector",
        "authorization Basic%20s3cr3t-of-the-collector",
    ],
)
def test_what_is_written_as_no_header_is_not_quoted_in_the_log(
    headers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trace_target({"OTEL_EXPORTER_OTLP_HEADERS": headers})
    configure()
    assert parse_env_headers(headers, liberal=True) == {}
    said = capsys.readouterr().err
    assert "Header format invalid" in said
    assert "s3cr3t" not in said


@pytest.mark.parametrize("address", ["x", "ftp://h", "http://u:p@h", "http://h?token=x", "http://"])
def test_what_is_no_address_is_refused_without_being_repeated(address: str) -> None:
    with pytest.raises(ConfigurationError, match="FLAGSTREAM_TRACES: expected the address") as refused:
        trace_target({"FLAGSTREAM_TRACES": address})
    assert "u:p" not in str(refused.value)


@pytest.mark.long
def test_the_standard_variables_are_heard(
    tmp_path: Path, collected: Collector, lane: list[OutboxRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collected.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20abc",
        "OTEL_SERVICE_NAME": "payments",
        "OTEL_TRACES_SAMPLER": "always_off",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    decide(Settings.load(tmp_path / "off", os.environ), agent(), 100)
    assert collected.spans == []
    assert {each.headers[0][1][-2:] for each in lane} == {b"00"}
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    decide(Settings.load(tmp_path / "on", os.environ), agent(), 100)
    assert {each.service for each in collected.spans} == {"payments"}
    assert {each["authorization"] for each in collected.headers} == {"Basic abc"}
