"""Metrics of the executors of a Spark cluster, by the step of the batch in which they work."""

from __future__ import annotations

from collections.abc import Sequence

from streaming.batch.steps import StepTime
from streaming.observe.executor_jobs import ExecutorJob, step_of
from streaming.observe.metric import MetricBook


class ExecutorMetrics:
    """What executors do for an agent; there are no series where it works without a cluster."""

    def __init__(self, book: MetricBook) -> None:
        count, gauge = book.counter, book.gauge
        self.working = gauge("executors", "Executors of the Spark cluster that work for the agent.")
        self.tasks = count(
            "executor_tasks_total",
            "Attempts at tasks, by step of the batch and what became of them (done or failed).",
            "step",
            "outcome",
        )
        self.seconds = count(
            "executor_task_seconds_total", "Time that executors took for tasks, by step of the batch.", "step"
        )
        self.result_bytes = count(
            "executor_result_bytes_total",
            "Bytes that tasks sent back to the driver, by step of the batch.",
            "step",
        )
        self.waited = count(
            "executor_wait_seconds_total",
            "Time that batches waited until an executor took up their first task, by step.",
            "step",
        )
        self.skew = gauge(
            "executor_task_skew_ratio",
            "Time that the longest task of the newest batch took over the mean of all, by step.",
            "step",
        )

    def count(self, jobs: Sequence[ExecutorJob], times: Sequence[StepTime]) -> None:
        """Take in what was done for a batch, the steps of which took these times."""
        for job in jobs:
            step = step_of(times, job)
            self.tasks.add(job.done, step, "done")
            self.tasks.add(job.failed, step, "failed")
            self.seconds.add(job.seconds, step)
            self.result_bytes.add(job.result_bytes, step)
            self.waited.add(job.waited, step)
            if job.skew is not None:
                self.skew.put(job.skew, step)
