"""Spans of models, planned runs and actions are those of the conventions for generative models.

Langfuse cannot be run here. What it makes of a span is written down below as its documentation has it
("OpenTelemetry", "Property mapping") and its sources of October 2026 do it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as registry

from agent.model.call_watch import FinishedCall
from agent.model.model_client import LOCAL_MODEL
from streaming.home.trace_target import TraceTarget
from streaming.observe import traces as module
from streaming.observe.traces import open_traces
from streaming.output.trace_ids import trace_of_run
from tests.otlp_receiver import Collector, SentSpan, collector

INTERNAL, CLIENT = 1, 3
CALL = FinishedCall("gpt-4o-mini", "https://api.openai.com/v1", 1_000, 2_000, "answered", 100, 20, 160)
OBSERVATION_TYPES = {"chat": "GENERATION", "invoke_agent": "AGENT", "execute_tool": "TOOL"}


@dataclass(frozen=True)
class LangfuseView:
    """What Langfuse shows of a span."""

    type: str
    name: str
    model: str | None
    usage: dict[str, int]
    parameters: dict[str, Any]
    level: str
    status_message: str


def as_langfuse(span: SentSpan) -> LangfuseView:
    """Map a span as Langfuse documents it: the model of the answer, else of the request; usage, not cost."""
    found = span.attributes
    usage = {
        name.removeprefix("gen_ai.usage.").removesuffix("_tokens"): value
        for name, value in found.items()
        if name.startswith("gen_ai.usage.") and name != "gen_ai.usage.cost"
    }
    parameters = {
        name.removeprefix("gen_ai.request."): value
        for name, value in found.items()
        if name.startswith("gen_ai.request.") and name != "gen_ai.request.model"
    }
    model = found.get("gen_ai.response.model", found.get("gen_ai.request.model"))
    kind = OBSERVATION_TYPES.get(found.get("gen_ai.operation.name", ""), "SPAN")
    level = "ERROR" if span.failed else "DEFAULT"
    return LangfuseView(kind, span.name, model, usage, parameters, level, span.status_message)


@pytest.fixture(scope="module")
def sent() -> Iterator[Collector]:
    """Spans of calls that end in each way, and of a planned run with its actions."""
    with collector() as found:
        traces = open_traces(TraceTarget(f"{found.url}/v1/traces"), "tester")
        traces.call(CALL)
        traces.call(replace(CALL, model="failing", outcome="server_error", input_tokens=0, output_tokens=0))
        traces.call(replace(CALL, model=LOCAL_MODEL, url="http://127.0.0.1:8081/v1"))
        with traces.run(trace_of_run("ab" * 16), "invoke_agent tester", 1_000):
            traces.call(replace(CALL, model="planner", url="http://models.internal/v1"))
            traces.action("notify", "done", 1_000, None)
            traces.action("run_job", "refused", 1_000, None)
        traces.close()
        yield found


def one(sent: Collector, name: str) -> SentSpan:
    (span,) = sent.named(name)
    return span


def test_langfuse_sees_a_generation_with_its_model_its_tokens_and_what_was_asked_for(sent: Collector) -> None:
    assert as_langfuse(one(sent, "chat gpt-4o-mini")) == LangfuseView(
        "GENERATION", "chat gpt-4o-mini", "gpt-4o-mini", {"input": 100, "output": 20}, {"max_tokens": 160},
        "DEFAULT", "",
    )  # fmt: skip


def test_langfuse_sees_why_there_is_no_answer(sent: Collector) -> None:
    found = as_langfuse(one(sent, "chat failing"))
    assert (found.type, found.level, found.status_message) == ("GENERATION", "ERROR", "server_error")
    assert found.usage == {}, "nothing was used, which is not the same as 0 tokens for its price"


def test_langfuse_sees_a_planned_run_as_an_agent_with_its_tools_and_generations(sent: Collector) -> None:
    whole = one(sent, "invoke_agent tester")
    within = [each for each in sent.spans if each.parent == whole.span_id]
    assert as_langfuse(whole).type == "AGENT"
    assert {(each.name, as_langfuse(each).type) for each in within} == {
        ("chat planner", "GENERATION"),
        ("execute_tool notify", "TOOL"),
        ("execute_tool run_job", "TOOL"),
    }
    refused = as_langfuse(one(sent, "execute_tool run_job"))
    assert (refused.level, refused.status_message) == ("ERROR", "refused")


def test_each_attribute_is_one_of_the_conventions(sent: Collector) -> None:
    known = {value for name, value in vars(registry).items() if name.startswith("GEN_AI_")}
    used = {name for span in sent.spans for name in span.attributes if name.startswith("gen_ai.")}
    assert used
    assert used <= known
    deprecated = {"gen_ai.system", "gen_ai.prompt", "gen_ai.completion", "gen_ai.usage.prompt_tokens"}
    assert not used & {*deprecated, "gen_ai.usage.completion_tokens"}


def test_what_the_conventions_require_is_there(sent: Collector) -> None:
    operations = {each.value for each in registry.GenAiOperationNameValues}
    for span in sent.spans:
        found = span.attributes
        operation = found["gen_ai.operation.name"]
        assert operation in operations
        about = {"chat": "gen_ai.request.model", "execute_tool": "gen_ai.tool.name"}
        subject = found[about.get(operation, "gen_ai.agent.name")]
        assert span.name == f"{operation} {subject}"
        assert span.kind == (CLIENT if operation == "chat" else INTERNAL)
        assert operation == "execute_tool" or found["gen_ai.provider.name"]
        assert ("server.port" in found) == ("server.address" in found) == (operation == "chat")
        assert (found.get("error.type") or "") == span.status_message
        assert span.failed == ("error.type" in found)


@pytest.mark.parametrize(
    ("name", "address", "port"),
    [
        ("chat gpt-4o-mini", "api.openai.com", 443),
        ("chat planner", "models.internal", 80),
        (f"chat {LOCAL_MODEL}", "127.0.0.1", 8081),
    ],
)
def test_a_port_that_the_address_leaves_out_is_that_of_its_scheme(
    sent: Collector, name: str, address: str, port: int
) -> None:
    found = one(sent, name).attributes
    assert (found["server.address"], found["server.port"]) == (address, port)


def test_providers_have_the_names_of_the_conventions(sent: Collector) -> None:
    known = {each.value for each in registry.GenAiProviderNameValues}
    assert set(module._PROVIDERS.values()) <= known
    assert one(sent, "chat gpt-4o-mini").attributes["gen_ai.provider.name"] == "openai"
    assert one(sent, f"chat {LOCAL_MODEL}").attributes["gen_ai.provider.name"] == "llama.cpp"
