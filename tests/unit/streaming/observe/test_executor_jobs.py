"""Jobs of executors, as Spark's monitoring API has them, belong to the batch and step they were for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import generate_latest
from py4j.protocol import Py4JNetworkError
from pyspark.sql import SparkSession

from schemas.batch_key import BatchKey
from schemas.errors import DataLossError
from streaming.batch.steps import BatchStep, StepTime
from streaming.home.settings import Settings
from streaming.home.trace_target import TraceTarget
from streaming.observe import executor_jobs as module
from streaming.observe.executor_jobs import ExecutorJob, ExecutorJobs, step_of
from streaming.observe.observation import Observation
from streaming.observe.traces import open_traces
from streaming.run.executors import ClusterFacts
from streaming.service.health import Health
from tests.otlp_receiver import collector

QUERY = "3c060000-0000-4000-8000-000000000001"
BEGAN = datetime(2026, 5, 7, 9, 30, tzinfo=UTC)
SECOND = 1_000_000_000
BEGAN_NS = int(BEGAN.timestamp()) * SECOND


def at(seconds: float) -> str:
    return (BEGAN + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "GMT"


class Figures:
    """Stands for the driver's JVM: one stage for each job, with the number of the job."""

    def __init__(self) -> None:
        self.known: list[dict[str, Any] | None] = []
        self.away = False

    def jobs(self) -> int:
        if self.away:
            raise Py4JNetworkError("nobody answers")
        return len(self.known)

    def job(self, number: int) -> dict[str, Any] | None:
        return self.known[number]

    def stage(self, number: int) -> dict[str, Any] | None:
        if number == 99:
            return None  # it was skipped
        return {
            "attemptId": 0, "firstTaskLaunchedTime": at(1.5), "numCompleteTasks": 3, "numFailedTasks": 1,
            "numKilledTasks": 0, "executorRunTime": 6_000, "resultSize": 4_000,
        }  # fmt: skip

    def tasks(self, stage: int, attempt: int) -> Sequence[dict[str, Any]]:
        assert (stage, attempt) == (7, 0)
        return [
            {"executorId": "1", "launchTime": at(1.5), "duration": 4_000, "status": "SUCCESS"},
            {"executorId": "0", "launchTime": at(1.5), "duration": 500, "status": "FAILED"},
            {"executorId": "0", "launchTime": at(2.5), "status": "RUNNING"},
        ]

    def begin(self, batch: int | None, query: str = QUERY, status: str = "SUCCEEDED") -> int:
        description = f"\nid = {query}\nrunId = x\nbatch = {batch}"
        self.known.append(
            {"status": status, "submissionTime": at(1), "completionTime": at(6), "stageIds": [7, 99]}
            | ({} if batch is None else {"description": description})
        )
        return len(self.known) - 1


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Figures:
    found = Figures()
    monkeypatch.setattr(module, "_SparkFigures", lambda _: found)
    return found


def watched() -> ExecutorJobs:
    return ExecutorJobs(cast("SparkSession", None))


def batches(jobs: Sequence[ExecutorJob]) -> list[int | None]:
    return [None if each.batch is None else each.batch.batch_id for each in jobs]


def test_a_job_says_what_its_stages_and_tasks_came_to(figures: Figures) -> None:
    jobs = watched()
    figures.begin(4)
    (job,) = jobs.of(BatchKey(QUERY, 4))
    assert job.batch == BatchKey(QUERY, 4)
    assert (job.began_ns, job.ended_ns) == (BEGAN_NS + SECOND, BEGAN_NS + 6 * SECOND)
    assert (job.waited, job.done, job.failed) == (0.5, 3, 1)
    assert (job.seconds, job.result_bytes, job.skew) == (6.0, 4_000, 2.0)
    assert [(each.executor, each.failed) for each in job.tasks] == [("1", False), ("0", True)]
    assert job.tasks[0].ended_ns - job.tasks[0].began_ns == 4 * SECOND


def test_each_job_is_told_once_with_the_batch_that_it_was_for(figures: Figures) -> None:
    figures.begin(0)
    jobs = watched()
    figures.begin(1)
    figures.begin(2)  # executors are at the next one already
    figures.begin(None)
    figures.begin(1, query="another-stream")
    assert batches(jobs.of(BatchKey(QUERY, 1))) == [1, None], "and none that there was before"
    assert jobs.of(BatchKey(QUERY, 1)) == []
    assert batches(jobs.of(BatchKey(QUERY, 2))) == [2]


def test_a_job_that_runs_on_is_looked_at_again(figures: Figures) -> None:
    jobs = watched()
    running = figures.begin(1, status="RUNNING")
    figures.known.append(None)  # begun, and not noted yet
    assert jobs.of(BatchKey(QUERY, 1)) == []
    ended = figures.known[running]
    assert ended is not None
    ended["status"] = "FAILED"
    figures.begin(2)
    figures.known[running + 1] = figures.known.pop()
    assert batches(jobs.of(BatchKey(QUERY, 2))) == [1, 2]


def test_a_jvm_that_has_ended_is_no_fault_of_watching(figures: Figures) -> None:
    jobs = watched()
    figures.begin(1)
    figures.away = True
    assert jobs.of(BatchKey(QUERY, 1)) == []
    figures.away = False
    assert batches(jobs.of(BatchKey(QUERY, 1))) == [1]


def steps(*spans: tuple[BatchStep, float, float]) -> list[StepTime]:
    return [
        StepTime(step, BEGAN_NS + int(begin * SECOND), BEGAN_NS + int(end * SECOND))
        for step, begin, end in spans
    ]


TIMES = steps((BatchStep.OPEN, 0, 1), (BatchStep.TAKE, 1.0004, 6.2), (BatchStep.DECODE, 6.2, 7))


def test_the_step_is_that_around_the_middle_of_the_job(figures: Figures) -> None:
    """Spark's times are cut to milliseconds, so a job may seem to begin before its step."""
    jobs = watched()
    figures.begin(1)
    (job,) = jobs.of(BatchKey(QUERY, 1))
    assert step_of(TIMES, job) == "take"
    assert step_of(TIMES[2:], job) == "other"


@pytest.fixture
def observed(figures: Figures, tmp_path: Path) -> Iterator[tuple[Observation, Health]]:
    observation, health = Observation(Settings.load(tmp_path, {}), "tester", None), Health()
    observation.begins(health, dict)
    observation.on_cluster(cast("SparkSession", None), ClusterFacts())
    assert figures.known == [], "jobs that there were before would not count"
    yield observation, health


def page(observation: Observation) -> str:
    return generate_latest(observation.metrics.registry).decode()


def test_jobs_are_counted_by_step_also_of_an_attempt_that_fails(
    figures: Figures, observed: tuple[Observation, Health]
) -> None:
    observation, health = observed
    figures.begin(1)
    observation.executors(2)
    observation.failed(BatchKey(QUERY, 1), TIMES, DataLossError("gone"))
    said = page(observation)
    for line in (
        'flagstream_executors{agent="tester"} 2.0',
        'flagstream_executor_tasks_total{agent="tester",outcome="done",step="take"} 3.0',
        'flagstream_executor_tasks_total{agent="tester",outcome="failed",step="take"} 1.0',
        'flagstream_executor_task_seconds_total{agent="tester",step="take"} 6.0',
        'flagstream_executor_result_bytes_total{agent="tester",step="take"} 4000.0',
        'flagstream_executor_wait_seconds_total{agent="tester",step="take"} 0.5',
        'flagstream_executor_task_skew_ratio{agent="tester",step="take"} 2.0',
    ):
        assert f"\n{line}\n" in said, line
    assert health.active == ()


def test_an_agent_without_a_cluster_has_no_series_of_executors(tmp_path: Path) -> None:
    observation = Observation(Settings.load(tmp_path, {}), "tester", None)
    observation.failed(BatchKey(QUERY, 1), TIMES, DataLossError("gone"))
    assert "\nflagstream_executor" not in page(observation)


def test_a_step_shows_its_jobs_and_their_tasks(figures: Figures) -> None:
    jobs, key = watched(), BatchKey(QUERY, 1)
    figures.begin(1)
    with collector() as found:
        traces = open_traces(TraceTarget(f"{found.url}/v1/traces"), "tester")
        traces.failed(key, TIMES, DataLossError("gone"), jobs.of(key))
        traces.close()
    (job,), (take,) = found.named("executors"), found.named("take")
    assert (job.parent, job.trace_id) == (take.span_id, take.trace_id)
    assert (job.began_ns, job.ended_ns) == (BEGAN_NS + SECOND, BEGAN_NS + 6 * SECOND)
    assert job.attributes == {
        "flagstream.executors.tasks": 3,
        "flagstream.executors.failed_tasks": 1,
        "flagstream.executors.seconds": 6.0,
        "flagstream.executors.waited_seconds": 0.5,
        "flagstream.executors.result_bytes": 4_000,
        "flagstream.executors.skew": 2.0,
    }
    tasks = found.named("task")
    assert {each.parent for each in tasks} == {job.span_id}
    assert [(each.attributes["flagstream.executor"], each.failed) for each in tasks] == [
        ("1", False),
        ("0", True),
    ]
