"""`flagstream databricks`: what is on a workspace, and the wheel for it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from databricks.sdk.service.jobs import BaseJob, BaseRun

from streaming.commands.deploy import BundleTarget, opened
from streaming.databricks.deployment import Deployment
from streaming.databricks.resolved import ResolvedBundle
from streaming.databricks.wheel import is_wheel_of_ours, platform_wheel
from streaming.databricks.workspace import Workspace, workspace_faults
from streaming.output.facts import show_facts
from streaming.output.tables import show_table
from streaming.output.terminal import Terminal, print_json, say_line


def show_target(at: BundleTarget, *, as_json: bool, **more: Any) -> None:
    """Print which version a target is at, and its jobs with the newest run of each."""
    workspace, bundle, _, _ = opened(at, **more)
    deployment = Deployment(workspace, bundle)
    there, begun = deployment.current(), deployment.unfinished()
    jobs = [_job(workspace, key, found) for key, found in _jobs(workspace, bundle)]
    facts = {
        "agent": bundle.name,
        "target": bundle.target,
        "workspace": workspace.host,
        "version_here": bundle.version,
        "version_there": None if there is None else there.version,
        "deployed_at": None if there is None else there.at,
        "deployed_by": None if there is None else there.by,
        "deployments": deployment.steps(),
        "interrupted_at": None if begun is None else begun.version,
        "jobs": jobs,
    }
    show_facts(facts, as_json=as_json)


def show_runs(at: BundleTarget, count: int, *, as_json: bool, **more: Any) -> None:
    """Print the newest runs of a target's jobs, the newest first."""
    workspace, bundle, _, _ = opened(at, **more)
    rows = [
        {"job": key, **_run(each)}
        for key, found in _jobs(workspace, bundle)
        for each in _newest(workspace, int(found.job_id or 0), count)
    ]
    rows = sorted(rows, key=lambda row: str(row["began"]), reverse=True)[:count]
    if as_json:
        print_json(rows)
        return
    heads = ("job", "run", "state", "began", "seconds", "page")
    show_table(Terminal(), heads, [[row[head] for head in heads] for row in rows])


def write_wheel(folder: Path) -> None:
    """Write the wheel for a workspace in place of an older one, and print its name."""
    wheel = platform_wheel()
    folder.mkdir(parents=True, exist_ok=True)
    for old in [each for each in folder.iterdir() if is_wheel_of_ours(each.name)]:
        old.unlink()
    (folder / wheel.file_name).write_bytes(wheel.content)
    say_line(str(folder / wheel.file_name))


def _jobs(workspace: Workspace, bundle: ResolvedBundle) -> Iterator[tuple[str, BaseJob]]:
    with workspace_faults("listing the jobs"):
        for key, name in bundle.names().items():
            for found in workspace.jobs.list(name=name):
                yield key, found


def _job(workspace: Workspace, key: str, job: BaseJob) -> dict[str, Any]:
    newest = next(iter(_newest(workspace, int(job.job_id or 0), 1)), None)
    run = {"state": None, "began": None} if newest is None else _run(newest)
    return {"job": key, "id": job.job_id, "state": run["state"], "began": run["began"]}


def _newest(workspace: Workspace, job_id: int, count: int) -> list[BaseRun]:
    found: list[BaseRun] = []
    with workspace_faults("listing the runs"):
        for each in workspace.jobs.list_runs(job_id=job_id):
            found.append(each)
            if len(found) == count:
                break
    return found


def _run(run: BaseRun) -> dict[str, Any]:
    status = run.status
    details = None if status is None else status.termination_details
    state = None if status is None or status.state is None else status.state.value
    code = None if details is None or details.code is None else details.code.value
    began = None
    if run.start_time:  # one that waits in a queue has none
        began = datetime.fromtimestamp(run.start_time / 1000, UTC).isoformat(timespec="seconds")
    seconds = None if not run.end_time or not run.start_time else (run.end_time - run.start_time) // 1000
    return {
        "run": run.run_id,
        "state": code or state,
        "began": began,
        "seconds": seconds,
        "page": run.run_page_url,
    }
