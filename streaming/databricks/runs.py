"""One-time runs on a workspace: submitted once however often one asks, repaired, followed to the end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from databricks.sdk.service.jobs import (
    JobRunAs,
    Run,
    RunLifecycleStateV2State,
    RunTask,
    SubmitTask,
    TerminationCodeCode,
    TerminationTypeType,
)

from schemas.counts import count_of
from schemas.errors import ConfigurationError, FlagstreamError, MachineError
from streaming.databricks.bundle_tree import Tree
from streaming.databricks.resolved import ResolvedBundle
from streaming.databricks.workspace import Workspace, workspace_faults
from streaming.output.redaction import redacted

_FIRST_PAUSE, _LONGEST_PAUSE, _SLOWER = 2.0, 30.0, 1.5
_MOST_SAID = 2_000
_ENDED = RunLifecycleStateV2State.TERMINATED
_WELL = (TerminationCodeCode.SUCCESS, TerminationCodeCode.SUCCESS_WITH_FAILURES)
_TOKEN_CHARACTERS = 64


@dataclass(frozen=True)
class RunEnd:
    """How a run has ended.

    Attributes:
        code: the workspace's word for it.
        kind: whose fault it was, as far as the workspace says.
        page: where people see the run.
        said: what failed tasks have said, without secrets.
    """

    run_id: int
    code: str
    kind: TerminationTypeType | None
    page: str
    said: str = ""

    @property
    def is_well(self) -> bool:
        """Whether the run has done what it was for."""
        return self.code in {each.value for each in _WELL}

    @property
    def exit_code(self) -> int:
        """0 done, 1 the run failed, 2 its configuration is wrong, 3 the platform or its cloud has failed."""
        if self.is_well:
            return 0
        kinds = {
            TerminationTypeType.INTERNAL_ERROR: MachineError,
            TerminationTypeType.CLOUD_FAILURE: MachineError,
        }
        if self.kind in kinds:
            return kinds[self.kind].exit_code
        refused = (
            "INVALID_CLUSTER_REQUEST",
            "UNAUTHORIZED_ERROR",
            "LIBRARY_INSTALLATION_ERROR",
            "FEATURE_DISABLED",
        )
        return ConfigurationError.exit_code if self.code in refused else FlagstreamError.exit_code


@dataclass(frozen=True)
class OneTimeRun:
    """A run to be submitted.

    Attributes:
        purpose: what it is for, in a word; part of its name and of its token.
        tasks: of a job, with the cluster of each.
        about: what tells this submission from others of the same purpose and version.
    """

    purpose: str
    tasks: Sequence[Tree]
    about: Sequence[str] = ()


def task_on_its_own(job: Tree, words: Sequence[str] | None = None) -> Tree:
    """Return the only task of a job as a one-time run takes it: with its cluster.

    Args:
        job: as it was resolved.
        words: the parameters instead of its own.

    Raises:
        ConfigurationError: the job has several tasks, or its task a cluster that the job does not have.
    """
    if len(job["tasks"]) != 1:
        raise ConfigurationError(
            f"has {count_of(len(job['tasks']), 'task')}: a run on its own is of one; the job itself is begun "
            "by `databricks bundle run`",
            where=str(job["name"]),
        )
    (task,) = job["tasks"]
    clusters = {each["job_cluster_key"]: each.get("new_cluster") for each in job.get("job_clusters") or []}
    if "job_cluster_key" in task and clusters.get(task["job_cluster_key"]) is None:
        raise ConfigurationError(
            f"has no cluster {task['job_cluster_key']!r}, which its task names", where=str(job["name"])
        )
    found = {key: each for key, each in task.items() if key not in ("job_cluster_key", "depends_on")}
    if "job_cluster_key" in task:
        found["new_cluster"] = clusters[task["job_cluster_key"]]
    if words is not None:
        found["python_wheel_task"] = {**task["python_wheel_task"], "parameters": list(words)}
    return found


def token_of(bundle: ResolvedBundle, run: OneTimeRun, host: str) -> str:
    """Return what makes the workspace start one run however often it is asked."""
    parts = (host, bundle.name, bundle.target, bundle.version, run.purpose, *run.about)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_TOKEN_CHARACTERS]


def submit(workspace: Workspace, bundle: ResolvedBundle, run: OneTimeRun) -> int:
    """Submit a run and return its id: that of the run there is, where it was submitted before.

    One that has failed since is repaired: its failed tasks run again, under the same id.
    """
    with workspace_faults("submitting a run"):
        started = workspace.jobs.submit(
            run_name=f"{bundle.name}-{run.purpose}-{bundle.target}",
            tasks=[SubmitTask.from_dict(each) for each in run.tasks],
            run_as=JobRunAs.from_dict(dict(bundle.run_as)) if bundle.run_as else None,
            idempotency_token=token_of(bundle, run, workspace.host),
        )
        return int(started.bind()["run_id"])


def repair_if_failed(workspace: Workspace, run_id: int) -> bool:
    """Have the failed tasks of a run that has ended run again; False where nothing has failed."""
    with workspace_faults("repairing a run"):
        found = workspace.jobs.get_run(run_id, include_history=True)
        if not _has_ended(found) or _end_of(found).is_well:
            return False
        repairs = [each.id for each in found.repair_history or () if each.id is not None]
        workspace.jobs.repair_run(
            run_id, rerun_all_failed_tasks=True, latest_repair_id=repairs[-1] if repairs else None
        )
        return True


def page_of(workspace: Workspace, run_id: int) -> str:
    """Return where people see a run."""
    with workspace_faults("reading a run"):
        return str(workspace.jobs.get_run(run_id).run_page_url)


def follow(
    workspace: Workspace, run_id: int, say: Callable[[str], None], pause: Callable[[float], None]
) -> RunEnd:
    """Wait until a run has ended, say each change of its state, and return how it has ended.

    Args:
        say: receives a line when the state has changed.
        pause: waits so many seconds.
    """
    state, wait = "", _FIRST_PAUSE
    while True:
        with workspace_faults("following a run"):
            found = workspace.jobs.get_run(run_id)
        new = _state(found)
        if new != state:
            say(f"run {run_id}: {new}")
            state, wait = new, _FIRST_PAUSE
        if _has_ended(found):
            end = _end_of(found)
            return end if end.is_well else _with_reasons(workspace, end, found.tasks or ())
        pause(wait)
        wait = min(wait * _SLOWER, _LONGEST_PAUSE)


def _with_reasons(workspace: Workspace, end: RunEnd, tasks: Iterable[RunTask]) -> RunEnd:
    said = [text for task in tasks if (text := _error_of(workspace, task))]
    return RunEnd(end.run_id, end.code, end.kind, end.page, "\n".join(said) or end.said)


def _error_of(workspace: Workspace, task: RunTask) -> str:
    details = task.status.termination_details if task.status is not None else None
    if details is None or details.code in _WELL or task.run_id is None:
        return ""
    with workspace_faults("reading what a run has said"):
        output = workspace.jobs.get_run_output(task.run_id)
    return f"{task.task_key}: {redacted((output.error or details.message or str(details.code))[:_MOST_SAID])}"


def _has_ended(run: Run) -> bool:
    return run.status is not None and run.status.state == _ENDED


def _state(run: Run) -> str:
    state = run.status.state if run.status is not None else None
    return "unknown" if state is None else state.value.lower()


def _end_of(run: Run) -> RunEnd:
    details = run.status.termination_details if run.status is not None else None
    code = details.code.value if details is not None and details.code is not None else "UNKNOWN"
    said = "" if details is None or details.code in _WELL else details.message or ""
    kind = None if details is None else details.type
    return RunEnd(int(run.run_id or 0), code, kind, str(run.run_page_url), redacted(said[:_MOST_SAID]))
