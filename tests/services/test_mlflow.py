"""The real MLflow takes traces as they are: batches with their steps, calls with model and tokens, links."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.batch_key import BatchKey
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.observe.observation import Observation, tracing
from streaming.observe.traces import open_traces
from streaming.output.trace_ids import trace_of_batch, trace_of_run
from streaming.run import alerts_end
from streaming.testing import scripted_llm as scripted
from streaming.testing.drivers import wait_until
from streaming.testing.live_lake import QuietLane, agent, events, run_live
from tests.mlflow_server import mlflow_server

pytestmark = pytest.mark.timeout(600)
EVENTS, MODEL = 200, "gpt-4o-mini"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """What MLflow shows of an agent that asks a model, and of a planned run."""
    folder = tmp_path_factory.mktemp("mlflow")
    with (
        pytest.MonkeyPatch.context() as patch,
        mlflow_server(Settings.load(Path("var"), os.environ), folder) as server,
        scripted.scripted_llm() as llm,
    ):
        patch.setattr(alerts_end, "Publisher", QuietLane)
        patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-mlflow-experiment-id=0")
        environ = {"FLAGSTREAM_TRACES": server.url, "OPENAI_API_KEY": "sk-not-a-key"}
        settings = Settings.load(folder / "home", environ)
        spec = agent(llm={"mode": "inline", "base_url": llm.base_url, "model": MODEL})
        with tracing(settings, spec.name) as traces:
            observation = Observation(settings, spec.name, traces, counts=False)
            run_live(PlacedAgent(settings, spec), events(EVENTS), llm="auto", observer=observation)
        assert settings.traces is not None
        planned = open_traces(settings.traces, spec.name)
        with planned.run(trace_of_run("ab" * 16), f"invoke_agent {spec.name}", 1_000):
            planned.action("notify", "refused", 1_000, BatchKey("live", 2))
        planned.close()

        def all_came() -> bool:
            names = [span["name"] for trace in server.traces() for span in trace["spans"]]
            return names.count("batch") == 3 and "execute_tool notify" in names

        wait_until(all_came, 120, "traces")
        yield server.traces()


def spans(shown: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [span for trace in shown for span in trace["spans"] if span["name"] == name]


def test_a_batch_is_a_trace_with_its_steps(shown: list[dict[str, Any]]) -> None:
    whole = [trace for trace in shown if any(each["name"] == "batch" for each in trace["spans"])]
    assert len(whole) == 3
    for trace in whole:
        assert trace["status"] == "OK"
        (batch,) = (each for each in trace["spans"] if each["parent"] is None)
        steps = [each["name"] for each in trace["spans"] if each["parent"] == batch["id"]]
        assert steps == ["open", "take", "decode", "store", "score", "triage", "alert", "publish", "close"]
    assert sum(each["attributes"]["flagstream.stored"] for each in spans(shown, "batch")) == EVENTS


def test_a_call_is_of_a_chat_model_with_its_tokens_and_links(shown: list[dict[str, Any]]) -> None:
    calls = [trace for trace in shown if any(each["name"] == f"chat {MODEL}" for each in trace["spans"])]
    assert calls
    batches = {trace_of_batch("tester", BatchKey("live", number)).text for number in range(3)}
    for trace in calls:
        (call,) = trace["spans"]
        assert call["type"] == "CHAT_MODEL"
        assert trace["tokens"]["input_tokens"] == call["attributes"]["gen_ai.usage.input_tokens"] > 0
        assert trace["tokens"]["output_tokens"] == call["attributes"]["gen_ai.usage.output_tokens"] > 0
        assert call["attributes"]["mlflow.llm.model"] == MODEL
        linked = {each.removeprefix("tr-") for each in call["links"]}
        assert linked
        assert linked <= batches


def test_a_planned_run_is_an_agent_with_its_tools_and_says_why_one_failed(
    shown: list[dict[str, Any]],
) -> None:
    (run,), (tool,) = spans(shown, "invoke_agent tester"), spans(shown, "execute_tool notify")
    assert (run["type"], tool["type"]) == ("AGENT", "TOOL")
    assert tool["parent"] == run["id"]
    assert (tool["status"], tool["said"]) == ("ERROR", "refused")
