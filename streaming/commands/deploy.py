"""`flagstream deploy databricks`: a bundle written, brought to a workspace, tried, used, taken back."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from databricks.sdk.core import ApiClient

from schemas.counts import count_of
from schemas.errors import ConfigurationError, nearest
from schemas.spec import AgentSpec, load_spec
from streaming.commands.cost import first_estimate
from streaming.commands.deploy_costs import estimate, show_estimate
from streaming.databricks.bundle import bundle_files, write_bundle
from streaming.databricks.bundle_tree import read_bundle
from streaming.databricks.costs import job_costs
from streaming.databricks.definition_files import SPEC
from streaming.databricks.deployment import Deployment
from streaming.databricks.jobs import SMOKE
from streaming.databricks.resolved import ResolvedBundle, bundle_host, resolve
from streaming.databricks.runs import OneTimeRun, RunEnd, follow, page_of, repair_if_failed, submit
from streaming.databricks.sequences import canary_run, job_run, promotion_run, rollback_run, spec_of
from streaming.databricks.wheel import PlatformWheel, platform_wheel
from streaming.databricks.workspace import (
    PlannedRequest,
    PlannedRequests,
    Workspace,
    connect,
    workspace_faults,
)
from streaming.history.cost import known_price
from streaming.output.facts import show_facts
from streaming.output.terminal import print_json, say_line
from streaming.versions.registry import check_reason

Action = Literal["submit", "canary", "promote", "rollback"]
_VARIABLE = "BUNDLE_VAR_"
_CONTENT = "content"


@dataclass(frozen=True)
class BundleTarget:
    """A bundle and the target of it that is meant.

    Attributes:
        profile: of the login, None for the environment's.
        given: variable → value, over what the bundle says.
    """

    folder: Path
    target: str
    profile: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DeployOptions:
    """What is to be done.

    Attributes:
        follow: wait for the end of the run, and take the version into use where it ends well.
        dry_run: print the requests and send none that changes anything.
        job: whose run is submitted, by its key.
        percent: of primary entities that a canary decides.
        why: goes to the registry and to its audit log.
        rate: events per second that the estimate assumes.
        compute_price: USD per hour of a node, None for the spec's.
    """

    action: Action = "submit"
    follow: bool = False
    dry_run: bool = False
    job: str = SMOKE
    percent: float = 0.0
    why: str = "deployed"
    rate: float = 100.0
    compute_price: float | None = None


def write(spec: AgentSpec, folder: Path, given: Mapping[str, str], *, as_json: bool) -> None:
    """Write an agent's bundle and say what is to be done next.

    Raises:
        ConfigurationError: the definition cannot travel, or a file is there already.
    """
    written = write_bundle(bundle_files(spec, given), folder)
    if as_json:
        print_json({"written": [str(each) for each in written]})
        return
    say_line(f"wrote {count_of(len(written), 'file')} into {folder}; README.md says how to go on")


def opened(at: BundleTarget, **more: Any) -> tuple[Workspace, ResolvedBundle, ApiClient, PlatformWheel]:
    """Return a workspace, and what a bundle asks for there.

    Args:
        at: bundle and target.
        more: `planned=True` keeps requests that change something instead of sending them; the rest is for
            the library's configuration.

    Raises:
        ConfigurationError: the bundle cannot be used, or there is no way to reach the workspace.
    """
    planned = bool(more.pop("planned", False))
    config = connect(bundle_host(at.folder, at.target), at.profile, **more)
    api = PlannedRequests(config) if planned else ApiClient(config)
    workspace, wheel = Workspace(api), platform_wheel()
    with workspace_faults("logging in"):
        user = workspace.user()
    bundle = resolve(at.folder, at.target, {**_from_environment(), **at.given}, user, wheel)
    return workspace, bundle, api, wheel


def deploy(
    at: BundleTarget,
    options: DeployOptions,
    *,
    as_json: bool,
    pause: Callable[[float], None] = time.sleep,
    **more: Any,
) -> int:
    """Do what is asked for and return the exit code: that of the run where it was followed.

    Args:
        at: bundle and target.
        options: what is to be done.
        as_json: one JSON object instead of lines.
        pause: waits so many seconds before the run is asked about again.
        more: for the library's configuration.

    Raises:
        ConfigurationError: something cannot be used.
        RetryableError: the workspace does not answer.
    """
    if options.action != "submit":
        check_reason(options.why, "--why")  # the run would do so once its node is there
    read_bundle(at.folder, at.target)  # before anything of it is missed
    spec = load_spec(at.folder / SPEC)
    workspace, bundle, api, wheel = opened(at, planned=options.dry_run, **more)
    _check_job(bundle, options.job)
    doing = _Doing(
        Deployment(workspace, bundle), workspace, bundle, spec, options, as_json=as_json, pause=pause
    )
    doing.estimate()
    end = doing.run(lambda: wheel.content)
    if isinstance(api, PlannedRequests):
        doing.show_requests(api.planned)
    return doing.ended(end)


@dataclass(frozen=True)
class _Doing:
    """One deployment on its way; see deploy()."""

    deployment: Deployment
    workspace: Workspace
    bundle: ResolvedBundle
    spec: AgentSpec
    options: DeployOptions
    as_json: bool
    pause: Callable[[float], None]
    facts: dict[str, Any] = field(default_factory=dict)

    def estimate(self) -> None:
        """Say what the jobs would cost, before anything is asked for."""
        price = known_price(self.spec, self.options.compute_price)
        costs = job_costs(self.bundle.jobs, price or 0.0)
        tokens = first_estimate(self.spec, self.options.rate, price)
        self.facts["estimate"] = estimate(costs, tokens, price)
        if not self.as_json:
            show_estimate(costs, tokens, price)

    def run(self, wheel: Callable[[], bytes]) -> RunEnd | None:
        """Bring the version, submit the run, follow it, and take the version into use where that is meant."""
        self.facts.update({"version": self.bundle.version, "target": self.bundle.target})
        self.deployment.bring(wheel)
        if self.options.action == "submit":
            self.deployment.prepare()
        run_id = self._submitted(self._wanted())
        end = self._end_of(run_id) if self._follows else None
        if self.options.dry_run or (end is not None and end.is_well):
            self._take_into_use()
        return end

    def show_requests(self, requests: list[PlannedRequest]) -> None:
        """Print the requests as they would be sent; the content of a file as how long it is."""
        shown = [{"method": each.method, "path": each.path, "body": _legible(each.body)} for each in requests]
        self.facts["requests"] = shown
        if not self.as_json:
            for each in shown:
                say_line(f"{each['method']} {each['path']}")
                print_json(each["body"], indent=1)

    def ended(self, end: RunEnd | None) -> int:
        """Print what has come of it, and return the exit code."""
        if end is not None:
            self.facts.update({"run": end.run_id, "state": end.code, "page": end.page, "said": end.said})
        if self.as_json:
            print_json(self.facts)
        else:
            show_facts(
                {name: each for name, each in self.facts.items() if name not in ("estimate", "requests")},
                as_json=False,
            )
        return 0 if end is None else end.exit_code

    @property
    def _follows(self) -> bool:
        """What changes the registry is followed always: the jobs go by how it has ended."""
        return not self.options.dry_run and (self.options.follow or self.options.action != "submit")

    def _wanted(self) -> OneTimeRun:
        options = self.options
        if options.action == "submit":
            return job_run(self.bundle, options.job, uuid.uuid4().hex)
        before = self.deployment.steps()
        if options.action == "canary":
            in_force = spec_of(self.deployment.jobs_in_force(), self.bundle.name)
            return canary_run(self.bundle, self.spec, options.percent, options.why, before, in_force)
        if options.action == "promote":
            return promotion_run(self.bundle, self.spec, options.why, before)
        if not self.deployment.history():
            self.deployment.former()  # says that there is none, before a node is asked for
        return rollback_run(self.bundle, options.why, before)

    def _submitted(self, run: OneTimeRun) -> int:
        run_id = submit(self.workspace, self.bundle, run)
        if not self.options.dry_run:
            if repair_if_failed(self.workspace, run_id):
                self._say(f"run {run_id} had failed before: its failed tasks run again")
            self.facts.update({"run": run_id, "page": page_of(self.workspace, run_id)})
            self._say(f"run {run_id}: {self.facts['page']}")
        return run_id

    def _end_of(self, run_id: int) -> RunEnd:
        return follow(self.workspace, run_id, self._say, self.pause)

    def _take_into_use(self) -> None:
        """A canary changes no job: the agent that runs lets it decide its share."""
        action = self.options.action
        if action == "rollback":
            self.facts["jobs_at"] = self.deployment.switch_back()
        elif action == "canary":
            self.deployment.note_canary()
        elif action == "promote" or (action == "submit" and self.options.job == SMOKE):
            self.facts["jobs"] = self.deployment.switch()
            self.facts["jobs_at"] = self.bundle.version

    def _say(self, text: str) -> None:
        if not self.as_json:
            say_line(text)


def _check_job(bundle: ResolvedBundle, job: str) -> None:
    if job not in bundle.jobs:
        raise ConfigurationError(f"no such job; {nearest(job, bundle.jobs)}", where="--job")


def _from_environment() -> dict[str, str]:
    return {
        name.removeprefix(_VARIABLE): value
        for name, value in os.environ.items()
        if name.startswith(_VARIABLE) and value
    }


def _legible(body: Mapping[str, Any]) -> dict[str, Any]:
    found = json.loads(json.dumps(body))
    if isinstance(found.get(_CONTENT), str):
        found[_CONTENT] = f"({len(found[_CONTENT]):,} characters of base64)"
    return dict(found)
