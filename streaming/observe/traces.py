"""Traces, sent by OTLP: one of each batch with its steps, and one of each request to a model, linked to it.

Spans are made when what they show is over, from times that were noted, and sent by a thread of the library of
OpenTelemetry with a queue of its own: where the collector is away or slow, spans are dropped and nobody
waits. The ids of a batch's trace follow from the batch, so that alerts can name it before it is there, and
those that leave later do as well.

Spans hold names, counts and times. No prompt, no answer, no id of anybody and no secret is ever in one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from urllib.parse import urlsplit

import pyarrow as pa
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from agent.model.call_watch import FinishedCall
from agent.model.model_client import LOCAL_MODEL
from schemas.batch_key import BatchKey
from streaming.batch.observer import BatchSeen
from streaming.batch.steps import StepTime
from streaming.home.trace_target import TraceTarget
from streaming.kafka.outbox_record import Headers
from streaming.observe.bucket_work import BucketWork
from streaming.observe.executor_jobs import ExecutorJob, step_of
from streaming.observe.executor_spans import show_jobs
from streaming.output.trace_ids import TraceIds, trace_of_batch

TRACEPARENT = "traceparent"
_BATCH = "batch"
_FLUSH_SECONDS = 3.0
_COUNTS = (
    "read",
    "stored",
    "quarantined",
    "duplicates",
    "filtered",
    "late",
    "alerts",
    "llm_calls",
    "degraded",
)
_PORTS: Mapping[str, int] = {"http": 80}  # of what names none; else that of https
_PROVIDERS: Mapping[str, str] = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "api.mistral.ai": "mistral_ai",
    "api.groq.com": "groq",
    "api.deepseek.com": "deepseek",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
}

Plain = str | int | float | bool


class Traces:
    """Makes the spans of one agent and hands them over for sending.

    Args:
        provider: of OpenTelemetry, made by `open_traces`.
        agent: the agent's name.
        ids: gives spans their ids.
    """

    def __init__(self, provider: TracerProvider, agent: str, ids: _PinnedIds) -> None:
        self._provider, self._agent, self._ids = provider, agent, ids
        self._tracer = provider.get_tracer("flagstream", version("flagstream"))
        self._within: Context | None = None

    def batch(
        self, seen: BatchSeen, jobs: Sequence[ExecutorJob] = (), buckets: BucketWork | None = None
    ) -> None:
        """Show a closed batch, its steps and what executors did in them."""
        row, spec = seen.row, seen.deciders.engine.spec
        facts: dict[str, Plain] = {f"flagstream.{name}": int(row[name]) for name in _COUNTS}
        facts["flagstream.spec_version"] = spec.version
        facts["messaging.batch.message_count"] = int(row["read"])
        facts |= {} if buckets is None else buckets.facts
        self._show_batch(seen.key, seen.times, facts, None, jobs)

    def failed(
        self,
        key: BatchKey,
        times: Sequence[StepTime],
        fault: BaseException,
        jobs: Sequence[ExecutorJob] = (),
    ) -> None:
        """Show an attempt that failed in the last of these steps; of the fault its kind alone."""
        self._show_batch(key, times, {}, type(fault).__name__, jobs)

    def call(self, call: FinishedCall) -> None:
        """Show a request to a model."""
        links = [Link(self._context_of(trace_of_batch(self._agent, each))) for each in call.about]
        span = self._tracer.start_span(
            f"chat {call.model}", self._within or Context(), SpanKind.CLIENT, _of_call(call, self._agent),
            links, call.began_ns,
        )  # fmt: skip
        if call.outcome != "answered":
            span.set_attribute("error.type", call.outcome)
            span.set_status(Status(StatusCode.ERROR, call.outcome))
        span.end(call.ended_ns)

    def headers(self, alerts: pa.Table) -> list[Headers]:
        """Return the header that names the trace of each alert's batch."""
        pairs = zip(alerts["query_id"].to_pylist(), alerts["batch_id"].to_pylist(), strict=True)
        known: dict[BatchKey, Headers] = {}
        found = []
        for pair in pairs:
            key = BatchKey(*pair)
            if key not in known:
                known[key] = ((TRACEPARENT, self._parent_of(key).encode()),)
            found.append(known[key])
        return found

    @contextmanager
    def run(self, ids: TraceIds, name: str, began_ns: int) -> Iterator[None]:
        """Show a planned run, and what is shown within as parts of it."""
        self._within = set_span_in_context(NonRecordingSpan(self._context_of(ids)), Context())
        try:
            yield
        finally:
            self._within = None
            about = {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.provider.name": "flagstream",
                "gen_ai.agent.name": self._agent,
            }
            with self._ids.pinned(ids):
                self._tracer.start_span(name, Context(), attributes=about, start_time=began_ns).end()

    def action(self, name: str, outcome: str, began_ns: int, about: BatchKey | None) -> None:
        """Show an action of a planned run that is over; `about` is the newest batch that it could see."""
        links = [] if about is None else [Link(self._context_of(trace_of_batch(self._agent, about)))]
        facts = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.type": "function",
            "flagstream.outcome": outcome,
        }
        span = self._tracer.start_span(
            f"execute_tool {name}", self._within or Context(), SpanKind.INTERNAL, facts, links, began_ns
        )
        if outcome not in ("done", "dry_run"):
            span.set_attribute("error.type", outcome)
            span.set_status(Status(StatusCode.ERROR, outcome))
        span.end()

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        # No worker: it ends with the process, whatever the collector does.
        ending = threading.Thread(target=self._provider.shutdown, name="traces-end", daemon=True)
        ending.start()
        ending.join(_FLUSH_SECONDS)

    def _show_batch(
        self,
        key: BatchKey,
        times: Sequence[StepTime],
        facts: Mapping[str, Plain],
        error: str | None,
        jobs: Sequence[ExecutorJob],
    ) -> None:
        if not times:
            return
        ids = trace_of_batch(self._agent, key)
        named: dict[str, Plain] = {"flagstream.agent": self._agent, "messaging.system": "kafka", **facts}
        named |= {"flagstream.query_id": key.query_id, "flagstream.batch_id": key.batch_id}
        # The span that alerts name is that of the attempt that closed the batch.
        with self._ids.pinned(TraceIds(ids.trace_id, ids.span_id if error is None else 0)):
            whole = self._tracer.start_span(_BATCH, Context(), attributes=named, start_time=times[0].began_ns)
        within = set_span_in_context(whole, Context())
        for each in times:
            span = self._tracer.start_span(str(each.step), within, start_time=each.began_ns)
            show_jobs(self._tracer, span, [job for job in jobs if step_of(times, job) == each.step])
            if error is not None and each is times[-1]:
                span.set_status(Status(StatusCode.ERROR))
            span.end(each.ended_ns)
        if error is not None:
            whole.set_attribute("error.type", error)
            whole.set_status(Status(StatusCode.ERROR, error))
        whole.end(times[-1].ended_ns)

    def _context_of(self, ids: TraceIds) -> SpanContext:
        flags = TraceFlags(TraceFlags.SAMPLED if self._is_kept(ids) else TraceFlags.DEFAULT)
        return SpanContext(ids.trace_id, ids.span_id, is_remote=True, trace_flags=flags)

    def _parent_of(self, key: BatchKey) -> str:
        ids = trace_of_batch(self._agent, key)
        return ids.traceparent(kept=self._is_kept(ids))

    def _is_kept(self, ids: TraceIds) -> bool:
        found = self._provider.sampler.should_sample(Context(), ids.trace_id, _BATCH, SpanKind.INTERNAL)
        return found.decision is Decision.RECORD_AND_SAMPLE


class _PinnedIds(RandomIdGenerator):
    """Gives the next trace and span the ids that were asked for, all others random ones."""

    def __init__(self) -> None:
        self._wanted = threading.local()

    @contextmanager
    def pinned(self, ids: TraceIds) -> Iterator[None]:
        """Within, the first span begins a trace with these ids; a span id of 0 is any."""
        self._wanted.trace_id, self._wanted.span_id = ids.trace_id, ids.span_id
        try:
            yield
        finally:
            self._wanted.trace_id = self._wanted.span_id = 0

    def generate_trace_id(self) -> int:
        """See IdGenerator."""
        wanted, self._wanted.trace_id = getattr(self._wanted, "trace_id", 0), 0
        return wanted or super().generate_trace_id()

    def generate_span_id(self) -> int:
        """See IdGenerator."""
        wanted, self._wanted.span_id = getattr(self._wanted, "span_id", 0), 0
        return wanted or super().generate_span_id()

    def is_trace_id_random(self) -> bool:
        """See IdGenerator: those that follow from a name are not."""
        return False


def open_traces(target: TraceTarget, agent: str) -> Traces:
    """Begin to send the traces of an agent."""
    ids = _PinnedIds()
    about = {SERVICE_VERSION: version("flagstream"), SERVICE_INSTANCE_ID: agent}
    resource = Resource.create(about)
    if str(resource.attributes.get(SERVICE_NAME)).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "flagstream"}))
    provider = TracerProvider(resource=resource, id_generator=ids, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=target.url)))
    return Traces(provider, agent, ids)


def _of_call(call: FinishedCall, agent: str) -> dict[str, str | int]:
    """Return what the conventions for generative models ask for, and know of a request."""
    place = urlsplit(call.url)
    facts: dict[str, str | int] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _provider_of(call.model, place.hostname or ""),
        "gen_ai.request.model": call.model,
        "gen_ai.request.max_tokens": call.most_output_tokens,
        "gen_ai.output.type": "json",
        "gen_ai.agent.name": agent,
        "server.address": place.hostname or "",
        "server.port": place.port or _PORTS.get(place.scheme, 443),
        "flagstream.outcome": call.outcome,
    }
    if call.input_tokens or call.output_tokens:
        facts["gen_ai.usage.input_tokens"] = call.input_tokens
        facts["gen_ai.usage.output_tokens"] = call.output_tokens
    return facts


def _provider_of(model: str, host: str) -> str:
    if model == LOCAL_MODEL:
        return "llama.cpp"
    return next((name for end, name in _PROVIDERS.items() if host.endswith(end)), "openai_compatible")
