"""The jobs of a bundle: the agent itself, what is done beside it on a schedule, and what people start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from databricks.bundles.core import VariableOrList
from databricks.bundles.jobs import (
    Continuous,
    CronSchedule,
    Job,
    JobEmailNotifications,
    JobParameterDefinition,
    JobPermission,
    JobPermissionLevel,
    JobsHealthMetric,
    JobsHealthOperator,
    JobsHealthRule,
    JobsHealthRules,
    NotebookTask,
    PauseStatus,
    PythonWheelTask,
    QueueSettings,
    Task,
    TaskDependency,
    TaskRetryMode,
)

from schemas.spec import AgentSpec
from streaming.databricks.catalog import SCHEMA
from streaming.databricks.cluster import CLUSTER, STORE, job_cluster, libraries

ENTRY_POINT = "flagstream-job"
PACKAGE = "flagstream"
SMOKE, AGENT, TABLES = "smoke", "agent", "tables"
KEPT = f"/Volumes/${{var.catalog}}/{SCHEMA}/${{var.volume}}/${{bundle.target}}"
_SPEC = "${workspace.file_path}/agent/spec.yaml"
_NOTIFIED: VariableOrList[str] = ["${var.notify}"]
_HOUR = 3_600


@dataclass(frozen=True)
class _Scheduled:
    """A command that runs on a schedule, in UTC.

    Attributes:
        cron: Quartz's fields: second, minute, hour, day of month, month, day of week.
        hours: after which it has taken too long.
    """

    words: tuple[str, ...]
    cron: str
    hours: int
    meaning: str


_SCHEDULED: Mapping[str, _Scheduled] = {
    "maintenance": _Scheduled(
        ("maintain",),
        "0 17 3 * * ?",
        4,
        "Compacts tables, clears files that no version names, shortens logs.",
    ),
    "reconcile": _Scheduled(
        ("reconcile",), "0 23 * * * ?", 1, "Compares transactions, alerts in Delta and alerts on Kafka."
    ),
    "snapshot": _Scheduled(
        ("snapshot", "create", "week-{{job.start_time.iso_date}}"),
        "0 41 4 ? * SUN",
        8,
        "Keeps history for longer than the tables' retention.",
    ),
}


def jobs_of(spec: AgentSpec) -> dict[str, Job]:
    """Return the jobs by their keys."""
    return {
        SMOKE: _smoke(spec),
        AGENT: _agent(spec),
        TABLES: _tables(spec),
        **{name: _scheduled(spec, name, each) for name, each in _SCHEDULED.items()},
        "replay": _replay(spec),
    }


def wheel_task(key: str, words: Sequence[str], after: Sequence[str] = ()) -> Task:
    """Return a task that runs one command of flagstream on the spec of the bundle.

    Args:
        key: of the task.
        words: the command, without `flagstream` and `--spec`.
        after: keys of the tasks that must have succeeded.
    """
    return Task(
        task_key=key,
        job_cluster_key=CLUSTER,
        depends_on=[TaskDependency(task_key=each) for each in after],
        libraries=[*libraries()],
        python_wheel_task=PythonWheelTask(
            package_name=PACKAGE,
            entry_point=ENTRY_POINT,
            parameters=["--kept", KEPT, "--credentials", "${var.credentials}", *words, "--spec", _SPEC],
        ),
    )


def _smoke(spec: AgentSpec) -> Job:
    given = {"spec": _SPEC, "kept": KEPT, "credentials": "${var.credentials}"}
    task = Task(
        task_key=SMOKE,
        job_cluster_key=CLUSTER,
        libraries=[*libraries()],
        notebook_task=NotebookTask(notebook_path="../notebooks/smoke.py", base_parameters={**given}),
    )
    return _job(
        spec, SMOKE, "Reads what the agent needs, writes nothing: the first job of a new workspace.", [task]
    )


def _agent(spec: AgentSpec) -> Job:
    found = _job(spec, AGENT, "Watches the transactions without an end.", [wheel_task(AGENT, ["run"])])
    found.continuous = Continuous(pause_status=PauseStatus.UNPAUSED, task_retry_mode=TaskRetryMode.ON_FAILURE)
    found.health = _health(STREAMING_BACKLOG_SECONDS=600, STREAMING_BACKLOG_RECORDS=1_000_000)
    found.email_notifications = JobEmailNotifications(
        on_failure=_NOTIFIED, on_streaming_backlog_exceeded=_NOTIFIED
    )
    # A job that runs without an end is never queued: the run before it would have to end first.
    found.queue = None
    return found


def _tables(spec: AgentSpec) -> Job:
    given = {name: f"${{var.{name}}}" for name in ("catalog", "readers")}
    task = Task(
        task_key=TABLES,
        job_cluster_key=CLUSTER,
        notebook_task=NotebookTask(
            notebook_path="../notebooks/tables.py",
            base_parameters={**given, "schema": SCHEMA, "store": STORE},
        ),
    )
    found = _job(
        spec, TABLES, "Declares the lake's tables in Unity Catalog, and the views for readers.", [task]
    )
    found.schedule = CronSchedule(quartz_cron_expression="0 47 2 * * ?", timezone_id="UTC")
    return found


def _scheduled(spec: AgentSpec, name: str, how: _Scheduled) -> Job:
    found = _job(spec, name, how.meaning, [wheel_task(name, how.words)])
    found.schedule = CronSchedule(quartz_cron_expression=how.cron, timezone_id="UTC")
    found.health = _health(RUN_DURATION_SECONDS=how.hours * _HOUR)
    found.email_notifications = JobEmailNotifications(
        on_failure=_NOTIFIED, on_duration_warning_threshold_exceeded=_NOTIFIED
    )
    found.timeout_seconds = 2 * how.hours * _HOUR
    return found


def _replay(spec: AgentSpec) -> Job:
    span = {"from_time": "1970-01-01", "to_time": "9999-12-31"}
    words = [
        word for name in span for word in (f"--{name.replace('_', '-')}", f"{{{{job.parameters.{name}}}}}")
    ]
    found = _job(
        spec,
        "replay",
        "Decides stored transactions anew and compares.",
        [wheel_task("replay", ["replay", *words])],
    )
    found.parameters = [JobParameterDefinition(name=name, default=value) for name, value in span.items()]
    return found


def _job(spec: AgentSpec, name: str, meaning: str, tasks: list[Task]) -> Job:
    return Job(
        name=f"{spec.name}-{name}-${{bundle.target}}",
        description=meaning,
        tasks=[*tasks],
        job_clusters=[job_cluster(spec)],
        max_concurrent_runs=1,
        queue=QueueSettings(enabled=True),
        permissions=[
            JobPermission(level=JobPermissionLevel.CAN_VIEW, group_name="${var.readers}"),
            JobPermission(level=JobPermissionLevel.CAN_MANAGE_RUN, group_name="${var.operators}"),
        ],
        email_notifications=JobEmailNotifications(on_failure=_NOTIFIED),
        tags={"flagstream_agent": spec.name, "flagstream_target": "${bundle.target}"},
    )


def _health(**limits: int) -> JobsHealthRules:
    rules = [
        JobsHealthRule(metric=JobsHealthMetric[name], op=JobsHealthOperator.GREATER_THAN, value=value)
        for name, value in limits.items()
    ]
    return JobsHealthRules(rules=[*rules])
