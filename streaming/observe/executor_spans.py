"""Shows what executors did for a batch as spans: one of each job within its step, and one of each task."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from streaming.observe.executor_jobs import ExecutorJob, ExecutorTask


def show_jobs(tracer: Tracer, step: Span, jobs: Sequence[ExecutorJob]) -> None:
    """Make the spans of jobs that were done in a step; of many tasks the longest ones have a span."""
    for job in jobs:
        facts = {
            "flagstream.executors.tasks": job.done,
            "flagstream.executors.failed_tasks": job.failed,
            "flagstream.executors.seconds": job.seconds,
            "flagstream.executors.waited_seconds": job.waited,
            "flagstream.executors.result_bytes": job.result_bytes,
        }
        if job.skew is not None:
            facts["flagstream.executors.skew"] = round(job.skew, 3)
        within = set_span_in_context(step, Context())
        span = tracer.start_span(
            "executors", within, SpanKind.INTERNAL, attributes=facts, start_time=job.began_ns
        )
        for task in job.tasks:
            _show_task(tracer, set_span_in_context(span, Context()), task)
        span.end(job.ended_ns)


def _show_task(tracer: Tracer, within: Context, task: ExecutorTask) -> None:
    about = {"flagstream.executor": task.executor}
    span = tracer.start_span("task", within, SpanKind.INTERNAL, about, start_time=task.began_ns)
    if task.failed:
        span.set_status(Status(StatusCode.ERROR))
    span.end(task.ended_ns)
