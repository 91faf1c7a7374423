"""Deployments on a workspace of real paths: what is asked for, in which order, and what is not."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from databricks.sdk.clock import Clock
from typer.testing import CliRunner

from schemas.errors import ConfigurationError, RetryableError
from streaming.cli.root import app
from streaming.commands.databricks import show_runs, show_target
from streaming.commands.deploy import BundleTarget, DeployOptions, deploy, opened
from streaming.databricks.costs import job_costs
from streaming.databricks.workspace import connect
from streaming.output.redaction import redacted
from streaming.testing.workspace import (
    CLIENT,
    CLIENT_SECRET,
    TOKEN,
    LoopbackWorkspace,
    WorkspaceRequest,
    loopback_workspace,
)
from streaming.testing.workspace_runs import WorkspaceRun
from tests.unit.streaming.databricks.samples import GIVEN, written

SUBMIT, REPAIR = "/api/2.2/jobs/runs/submit", "/api/2.2/jobs/runs/repair"


class StoppedClock(Clock):
    """Nobody waits."""

    def __init__(self) -> None:
        self.slept = list[float]()

    def time(self) -> float:
        return sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackWorkspace]:
    with loopback_workspace() as found:
        monkeypatch.setenv("DATABRICKS_HOST", found.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        monkeypatch.setenv("DATABRICKS_CONFIG_FILE", os.devnull)
        yield found


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("bundle") / "b")


def at(bundle: Path, target: str = "prod") -> BundleTarget:
    return BundleTarget(bundle, target, None, GIVEN)


def deployed(bundle: Path, target: str = "prod", *, as_json: bool = True, **options: Any) -> int:
    return deploy(
        at(bundle, target),
        DeployOptions(**options),
        as_json=as_json,
        pause=lambda _: None,
        clock=StoppedClock(),
    )


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))


def paths(workspace: LoopbackWorkspace, start: str = "/api/2.2/jobs/") -> list[str]:
    return [
        each.path.removeprefix("/api/2.2/jobs/")
        for each in workspace.changes()
        if each.path.startswith(start)
    ]


def asked_for(requests: list[WorkspaceRequest]) -> list[tuple[str, str, Any]]:
    """What a dry run can know: without ids that the workspace gives, and of files their length."""
    found = []
    for each in requests:
        place, _, number = each.path.rpartition("/")
        body = dict(each.body)
        if not body.get("content", "(").startswith("("):
            body["content"] = f"({len(body['content']):,} characters of base64)"
        if body.get("path", "").endswith("deployments.json"):
            body["content"] = "what was when it was written"
        found.append((each.method, place if number.isdigit() else each.path, body))
    return found


@pytest.mark.long
@pytest.mark.parametrize("target", ["dev", "prod"])
def test_a_dry_run_prints_the_very_requests_and_sends_none(
    target: str, bundle: Path, workspace: LoopbackWorkspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployed(bundle, target, dry_run=True) == 0
    planned = said(capsys)["requests"]
    assert workspace.changes() == []
    assert deployed(bundle, target, follow=True) == 0
    plan = [WorkspaceRequest(each["method"], each["path"], {}, each["body"]) for each in planned]
    assert asked_for(plan) == asked_for(workspace.changes())


def test_a_dry_run_of_what_is_there_already_plans_only_what_is_missing(
    bundle: Path, workspace: LoopbackWorkspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployed(bundle, follow=True) == 0
    before = len(workspace.changes())
    capsys.readouterr()
    assert deployed(bundle, dry_run=True) == 0
    planned = [each["path"] for each in said(capsys)["requests"]]
    assert len(workspace.changes()) == before
    assert "/api/2.2/jobs/create" not in planned
    assert "/api/2.1/unity-catalog/schemas" not in planned
    assert planned.count("/api/2.0/workspace/import") == 2  # the history, before the jobs and after them


def estimated(bundle: Path, price: float) -> dict[str, float]:
    """Return what the jobs of a target cost a month."""
    jobs = opened(at(bundle), planned=True)[1].jobs
    return {each.job: each.usd for each in job_costs(jobs, price)}


def test_what_it_costs_is_in_the_json_by_job_and_what_is_not_known_as_such(
    bundle: Path, workspace: LoopbackWorkspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployed(bundle, compute_price=0.5, rate=20.0) == 0
    found = said(capsys)["estimate"]
    jobs = {each["job"]: each["usd"] for each in found["jobs"]}
    assert jobs == estimated(bundle, 0.5)
    assert jobs["agent"] == 720 * 0.5
    # The spec has no price of its model.
    assert (found["llm_usd_per_day"], found["usd_per_month"]) == (None, None)
    assert (found["usd_per_hour"], found["events_per_second"]) == (0.5, 20.0)
    assert len(workspace.runs.started) == 1


def test_what_it_costs_is_printed_before_anything_is_asked_for(
    bundle: Path, workspace: LoopbackWorkspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.refused[SUBMIT] = (403, "PERMISSION_DENIED")
    with pytest.raises(ConfigurationError, match="submitting a run"):
        deployed(bundle, as_json=False, compute_price=0.5)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{720 * 0.5:,.2f} runs all the time" in printed
    assert "USD a month: nodes at 0.5 USD an hour; tokens" in printed


def test_the_smoke_run_comes_first_and_jobs_only_once_it_has_ended_well(
    bundle: Path, workspace: LoopbackWorkspace
) -> None:
    workspace.runs.outcomes.append(("RUN_EXECUTION_ERROR", "RuntimeError: not ready: brokers"))
    assert deployed(bundle, follow=True) == 1
    assert paths(workspace) == ["runs/submit"]
    assert workspace.jobs == {}
    assert deployed(bundle, follow=True) == 0
    assert paths(workspace)[:3] == ["runs/submit", "runs/submit", "runs/repair"]
    assert {job["name"] for job in workspace.jobs.values()} >= {
        "card-fraud-agent-prod",
        "card-fraud-smoke-prod",
    }
    assert all(
        job["run_as"] == {"service_principal_name": GIVEN["service_principal"]}
        for job in workspace.jobs.values()
    )


def test_what_a_failed_task_has_said_is_shown_with_the_page(
    bundle: Path, workspace: LoopbackWorkspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.runs.outcomes.append(("RUN_EXECUTION_ERROR", f"no login: Bearer {TOKEN}"))
    assert deployed(bundle, follow=True) == 1
    facts = said(capsys)
    assert facts["said"] == "smoke: no login: Bearer [redacted]"
    assert facts["page"] == f"{workspace.url}/#job/run/500"
    assert facts["state"] == "RUN_EXECUTION_ERROR"


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("SUCCESS", 0),
        ("SUCCESS_WITH_FAILURES", 0),
        ("RUN_EXECUTION_ERROR", 1),
        ("USER_CANCELED", 1),
        ("INVALID_CLUSTER_REQUEST", 2),
        ("LIBRARY_INSTALLATION_ERROR", 2),
        ("CLUSTER_ERROR", 3),
        ("INTERNAL_ERROR", 3),
    ],
)
def test_the_exit_code_is_the_run_s(
    code: str, exit_code: int, bundle: Path, workspace: LoopbackWorkspace
) -> None:
    workspace.runs.outcomes.append((code, ""))
    assert deployed(bundle, follow=True) == exit_code
    assert bool(workspace.jobs) == (exit_code == 0)


def test_the_same_version_is_one_run_however_often_it_is_submitted(
    bundle: Path, workspace: LoopbackWorkspace
) -> None:
    for _ in range(3):
        assert deployed(bundle) == 0
    tokens = {each.body["idempotency_token"] for each in workspace.changes() if each.path == SUBMIT}
    assert len(workspace.runs.started) == 1
    (token,) = tokens
    assert len(token) == 64


def test_any_other_job_runs_each_time_that_it_is_asked_for(
    bundle: Path, workspace: LoopbackWorkspace
) -> None:
    for _ in range(3):
        assert deployed(bundle, job="reconcile") == 0
    assert len(workspace.runs.started) == 3


def test_a_repair_names_the_one_before(bundle: Path, workspace: LoopbackWorkspace) -> None:
    workspace.runs.outcomes += [("RUN_EXECUTION_ERROR", "first"), ("CLUSTER_ERROR", "second")]
    assert [deployed(bundle, follow=True) for _ in range(3)] == [1, 3, 0]
    repairs = [each.body for each in workspace.changes() if each.path == REPAIR]
    assert [each.get("latest_repair_id") for each in repairs] == [None, 9000]
    assert all(each["rerun_all_failed_tasks"] for each in repairs)


def test_a_workspace_that_is_busy_is_asked_again_and_given_up_in_the_end(
    bundle: Path, workspace: LoopbackWorkspace
) -> None:
    workspace.throttled = 3
    assert deployed(bundle, follow=True) == 0
    workspace.throttled = 100_000
    with pytest.raises(RetryableError, match=r"does not answer|stays busy"):
        deployed(bundle, follow=True)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "PERMISSION_DENIED", ConfigurationError),
        (400, "INVALID_PARAMETER_VALUE", ConfigurationError),
        (500, "INTERNAL_ERROR", RetryableError),
        (502, "BAD_GATEWAY", RetryableError),
        (503, "SERVICE_UNDER_MAINTENANCE", RetryableError),
        (504, "DEADLINE", RetryableError),
        (409, "ABORTED", RetryableError),
    ],
)
def test_a_refusal_is_one_of_our_errors_and_says_what_was_being_done(
    status: int, code: str, error: type[Exception], bundle: Path, workspace: LoopbackWorkspace
) -> None:
    workspace.refused[SUBMIT] = (status, code)
    with pytest.raises(error, match="submitting a run"):
        deployed(bundle)


@pytest.mark.usefixtures("workspace")
def test_a_wrong_token_is_named_and_not_shown(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-of-somebody-else")
    with pytest.raises(ConfigurationError, match="does not know this login") as fault:
        deployed(bundle)
    assert "dapi" not in str(fault.value)
    assert redacted("dapi-of-somebody-else") == "[redacted]"


def as_a_service_principal(monkeypatch: pytest.MonkeyPatch, secret: str = CLIENT_SECRET) -> None:
    monkeypatch.delenv("DATABRICKS_TOKEN")
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", CLIENT)
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", secret)


def test_a_service_principal_logs_in_by_its_secret(
    bundle: Path, workspace: LoopbackWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_a_service_principal(monkeypatch)
    assert deployed(bundle) == 0
    assert len(workspace.runs.started) == 1
    assert redacted(f"{CLIENT_SECRET} {TOKEN}") == "[redacted] [redacted]"


@pytest.mark.usefixtures("workspace")
def test_a_wrong_secret_of_a_service_principal_is_a_login_that_is_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_a_service_principal(monkeypatch, "dose-of-somebody-else")
    with pytest.raises(
        ConfigurationError, match=r"logging in: the login is refused.*invalid_client"
    ) as fault:
        deployed(bundle)
    assert "dose-" not in str(fault.value)


def test_without_a_workspace_it_says_what_to_set(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("DATABRICKS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigurationError, match="DATABRICKS_HOST"):
        deployed(bundle)


def test_grants_and_permissions_are_those_of_the_bundle(bundle: Path, workspace: LoopbackWorkspace) -> None:
    assert deployed(bundle, follow=True) == 0
    agent = GIVEN["service_principal"]
    schema = workspace.grants["schema/main.card_fraud_prod"]
    assert schema["analysts"] == ["USE_SCHEMA"]
    assert schema[agent] == ["USE_SCHEMA", "CREATE_TABLE", "SELECT", "MODIFY"]
    assert workspace.grants["volume/main.card_fraud_prod.state"] == {agent: ["READ_VOLUME", "WRITE_VOLUME"]}
    assert workspace.scopes == {"card-fraud-prod": {agent: "READ", "operators": "WRITE"}}
    levels = {each.get("group_name"): each["permission_level"] for each in workspace.permissions["jobs/1000"]}
    assert levels == {"analysts": "CAN_VIEW", "operators": "CAN_MANAGE_RUN"}
    assert not any(each.path.endswith("secrets/put") for each in workspace.asked)


def test_what_others_have_granted_stays(bundle: Path, workspace: LoopbackWorkspace) -> None:
    workspace.grants["schema/main.card_fraud_prod"] = {"auditors": ["SELECT"]}
    assert deployed(bundle, follow=True) == 0
    assert workspace.grants["schema/main.card_fraud_prod"]["auditors"] == ["SELECT"]


def test_a_job_of_somebody_else_is_left_alone(bundle: Path, workspace: LoopbackWorkspace) -> None:
    for number in range(5):  # on the third page of the list
        workspace.jobs[number] = {"name": f"other-{number}", "tags": {}}
    workspace.jobs[7] = {"name": "card-fraud-agent-prod", "tags": {"flagstream_agent": "card-fraud"}}
    with pytest.raises(ConfigurationError, match="card-fraud-agent-prod: a job of this name"):
        deployed(bundle, follow=True)
    assert workspace.jobs[7] == {"name": "card-fraud-agent-prod", "tags": {"flagstream_agent": "card-fraud"}}


def version_of(bundle: Path, folder: Path, threshold: str, version: str = "1.1.0") -> Path:
    """The same bundle with another spec."""
    other = written(folder)
    spec = other / "agent" / "spec.yaml"
    text = spec.read_text(encoding="utf-8").replace("0.995", threshold).replace("1.0.0", version)
    spec.write_text(text, encoding="utf-8")
    assert (bundle / "agent" / "spec.yaml").read_text(encoding="utf-8") != text
    return other


def spec_of_the_agent(workspace: LoopbackWorkspace) -> str:
    (agent,) = (job for job in workspace.jobs.values() if job["name"] == "card-fraud-agent-prod")
    words = agent["tasks"][0]["python_wheel_task"]["parameters"]
    content = workspace.files[words[words.index("--spec") + 1]]
    return base64.b64decode(content).decode()


def test_a_rollback_withdraws_in_the_registry_and_brings_the_former_version_back(
    bundle: Path, tmp_path: Path, workspace: LoopbackWorkspace, capsys: pytest.CaptureFixture[str]
) -> None:
    other = version_of(bundle, tmp_path / "b", "0.9")
    assert deployed(bundle, follow=True) == 0
    first = said(capsys)["jobs_at"]
    assert deployed(other, follow=True) == 0
    assert "threshold: 0.9\n" in spec_of_the_agent(workspace)
    capsys.readouterr()
    assert deployed(other, action="rollback", why="too many alerts") == 0
    assert said(capsys)["jobs_at"] == first
    assert "threshold: 0.995" in spec_of_the_agent(workspace)
    run = list(workspace.runs.started.values())[-1].asked
    words = run["tasks"][0]["python_wheel_task"]["parameters"]
    assert words[4:8] == ["rollback", "--why", "too many alerts", "--if-any"]
    # The one job that never ends is begun anew under each version.
    (number,) = (key for key, job in workspace.jobs.items() if "continuous" in job)
    assert workspace.runs.cancelled == [number, number]


@pytest.mark.long
def test_where_the_registry_refuses_a_rollback_the_jobs_stay(
    bundle: Path, tmp_path: Path, workspace: LoopbackWorkspace
) -> None:
    other = version_of(bundle, tmp_path / "b", "0.9")
    assert [deployed(each, follow=True) for each in (bundle, other)] == [0, 0]
    workspace.runs.outcomes.append(("RUN_EXECUTION_ERROR", "another driver took over"))
    assert deployed(other, action="rollback") == 1
    assert "threshold: 0.9\n" in spec_of_the_agent(workspace)


def versions(bundle: Path, folder: Path, *thresholds: str) -> list[Path]:
    """The bundle, and others with further versions of its spec."""
    more = [version_of(bundle, folder / each, each, f"1.{at}.0") for at, each in enumerate(thresholds, 1)]
    return [bundle, *more]


def test_a_rollback_of_a_canary_leaves_the_jobs_where_they_are(
    bundle: Path, tmp_path: Path, workspace: LoopbackWorkspace
) -> None:
    first, second, tried = versions(bundle, tmp_path, "0.9", "0.8")
    assert [deployed(each, follow=True) for each in (first, second)] == [0, 0]
    before, runs = json.dumps(workspace.jobs, sort_keys=True), len(workspace.runs.started)
    for action in ("canary", "rollback", "canary", "rollback"):
        assert deployed(tried, action=action, percent=5.0) == 0
        assert json.dumps(workspace.jobs, sort_keys=True) == before
    assert len(workspace.runs.started) == runs + 4
    assert deployed(second, action="rollback") == 0
    assert "threshold: 0.995" in spec_of_the_agent(workspace)


def test_a_canary_that_was_promoted_is_one_step_back(
    bundle: Path, tmp_path: Path, workspace: LoopbackWorkspace
) -> None:
    first, second = versions(bundle, tmp_path, "0.9")
    assert deployed(first, follow=True) == 0
    for action in ("canary", "promote", "rollback"):
        assert deployed(second, action=action, percent=5.0) == 0
    assert "threshold: 0.995" in spec_of_the_agent(workspace)


def test_a_second_rollback_goes_further_back_and_never_forward_again(
    bundle: Path, tmp_path: Path, workspace: LoopbackWorkspace
) -> None:
    all_of_them = versions(bundle, tmp_path, "0.9", "0.8")
    assert [deployed(each, follow=True) for each in all_of_them] == [0, 0, 0]
    for threshold in ("0.9\n", "0.995"):
        assert deployed(bundle, action="rollback") == 0
        assert f"threshold: {threshold}" in spec_of_the_agent(workspace)
    with pytest.raises(ConfigurationError, match="no version of card-fraud was on prod before"):
        deployed(bundle, action="rollback")
    assert "threshold: 0.995" in spec_of_the_agent(workspace)


def places_of_specs(workspace: LoopbackWorkspace) -> set[str]:
    """Where the jobs look for their spec: one place, where all of them are of one version."""
    tasks = [task for job in workspace.jobs.values() for task in job["tasks"]]
    words = [task["python_wheel_task"]["parameters"] for task in tasks if "python_wheel_task" in task]
    return {each[each.index("--spec") + 1] for each in words}


@pytest.mark.parametrize("action", ["submit", "promote"])
def test_a_switch_that_was_interrupted_is_taken_back_to_the_version_before_it(
    action: str,
    bundle: Path,
    tmp_path: Path,
    workspace: LoopbackWorkspace,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second, third = versions(bundle, tmp_path, "0.9", "0.8")
    assert [deployed(each, follow=True) for each in (first, second)] == [0, 0]
    stopped = "/api/2.0/permissions/jobs/1003"
    workspace.refused[stopped] = (500, "INTERNAL_ERROR")
    with pytest.raises(RetryableError, match="switching the jobs"):
        deployed(third, action=action, follow=True)
    assert len(places_of_specs(workspace)) == 2
    show_target(at(third), as_json=True)
    found = said(capsys)
    assert found["interrupted_at"] == found["version_here"] != found["version_there"]
    del workspace.refused[stopped]
    assert deployed(third, action="rollback") == 0
    assert len(places_of_specs(workspace)) == 1
    assert "threshold: 0.9\n" in spec_of_the_agent(workspace)
    assert deployed(third, action="rollback") == 0
    assert "threshold: 0.995" in spec_of_the_agent(workspace)


def test_a_rollback_that_was_interrupted_goes_on_where_it_was(
    bundle: Path, tmp_path: Path, workspace: LoopbackWorkspace
) -> None:
    all_of_them = versions(bundle, tmp_path, "0.9", "0.8")
    assert [deployed(each, follow=True) for each in all_of_them] == [0, 0, 0]
    runs = len(workspace.runs.started)
    stopped = "/api/2.0/permissions/jobs/1003"
    workspace.refused[stopped] = (500, "INTERNAL_ERROR")
    with pytest.raises(RetryableError, match="switching the jobs"):
        deployed(bundle, action="rollback")
    del workspace.refused[stopped]
    assert deployed(bundle, action="rollback") == 0
    assert len(workspace.runs.started) == runs + 1  # the registry was rolled back once
    assert len(places_of_specs(workspace)) == 1
    assert "threshold: 0.9\n" in spec_of_the_agent(workspace)


@pytest.mark.usefixtures("workspace")
def test_without_a_former_version_a_rollback_says_so(bundle: Path) -> None:
    assert deployed(bundle, follow=True) == 0
    with pytest.raises(ConfigurationError, match="no version of card-fraud was on prod before"):
        deployed(bundle, action="rollback")


def test_where_nothing_was_ever_deployed_a_rollback_asks_for_no_node(
    bundle: Path, workspace: LoopbackWorkspace
) -> None:
    with pytest.raises(ConfigurationError, match="no version of card-fraud was on prod before"):
        deployed(bundle, action="rollback")
    assert workspace.runs.started == {}


def test_a_canary_is_the_registry_s_stage_on_that_target_and_changes_no_job(
    bundle: Path, tmp_path: Path, workspace: LoopbackWorkspace
) -> None:
    other = version_of(bundle, tmp_path / "b", "0.9")
    assert deployed(bundle, follow=True) == 0
    before = json.dumps(workspace.jobs, sort_keys=True)
    assert deployed(other, action="canary", percent=5.0, why="first a few") == 0
    assert json.dumps(workspace.jobs, sort_keys=True) == before
    (task,) = list(workspace.runs.started.values())[-1].asked["tasks"]
    words = task["python_wheel_task"]["parameters"]
    spec = words[words.index("add") + 1]
    promoted = words[words.index("promote") :]
    assert words[4:7] == ["registry", "add", spec]
    assert promoted == [
        "promote", "1.1.0", "--to", "canary", "--percent", "5", "--why", "first a few", "--spec", spec,
    ]  # fmt: skip
    assert spec in workspace.files
    assert "new_cluster" in task


def test_a_promotion_switches_the_jobs(bundle: Path, tmp_path: Path, workspace: LoopbackWorkspace) -> None:
    other = version_of(bundle, tmp_path / "b", "0.9")
    assert deployed(bundle, follow=True) == 0
    assert deployed(other, action="promote") == 0
    assert "threshold: 0.9\n" in spec_of_the_agent(workspace)


@pytest.mark.long
@pytest.mark.parametrize("action", ["canary", "promote"])
def test_after_a_rollback_what_was_done_before_is_done_again(
    action: str, bundle: Path, tmp_path: Path, workspace: LoopbackWorkspace
) -> None:
    other = version_of(bundle, tmp_path / "b", "0.9")
    assert [deployed(each, follow=True) for each in (bundle, other)] == [0, 0]
    before = len(workspace.runs.started)
    for each in (action, "rollback", action):
        assert deployed(other, action=each, percent=5.0) == 0
    assert len(workspace.runs.started) == before + 3


@pytest.mark.parametrize("why", ["x" * 201, "two\nlines", "card 4111111111111111", ""])
def test_a_reason_that_the_registry_would_refuse_is_refused_before_a_node_is_asked_for(
    why: str, bundle: Path, workspace: LoopbackWorkspace
) -> None:
    for action in ("canary", "promote", "rollback"):
        with pytest.raises(ConfigurationError, match="--why: expected a line"):
            deployed(bundle, action=action, percent=5.0, why=why)
    assert workspace.asked == []


def test_a_workspace_is_told_the_version_that_is_installed(
    workspace: LoopbackWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.databricks.workspace.version", lambda _: "9.8.7")
    assert "flagstream/9.8.7" in connect(workspace.url).user_agent


def test_status_and_runs_show_what_is_there(
    bundle: Path, workspace: LoopbackWorkspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployed(bundle, follow=True) == 0
    number = next(key for key, job in workspace.jobs.items() if job["name"] == "card-fraud-reconcile-prod")
    for at_ in range(3):
        asked = {"job_id": number, "tasks": []}
        workspace.runs.started[600 + at_] = WorkspaceRun(600 + at_, asked, "SUCCESS", step=2)
    capsys.readouterr()
    show_target(at(bundle), as_json=True)
    found = said(capsys)
    assert found["version_there"] == found["version_here"]
    assert found["deployments"] == 1
    assert {each["job"]: each["state"] for each in found["jobs"]}["reconcile"] == "SUCCESS"
    show_runs(at(bundle), 2, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [(row["job"], row["run"], row["seconds"]) for row in rows] == [
        ("reconcile", 602, 30), ("reconcile", 601, 30),
    ]  # fmt: skip


def test_a_run_that_waits_in_a_queue_has_not_begun_long_ago(
    bundle: Path, workspace: LoopbackWorkspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployed(bundle, follow=True) == 0
    number = next(key for key, job in workspace.jobs.items() if job["name"] == "card-fraud-reconcile-prod")
    for each, waits in ((600, False), (601, True)):
        workspace.runs.started[each] = WorkspaceRun(each, {"job_id": number, "tasks": []}, "", waits=waits)
    capsys.readouterr()
    show_runs(at(bundle), 2, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [(row["run"], row["began"] is None) for row in rows] == [(601, True), (600, False)]


def test_one_thing_at_a_time_and_never_nothing() -> None:
    result = CliRunner().invoke(app, ["deploy", "databricks", "--canary", "5", "--rollback"])
    assert "one of these at a time" in str(result.exception)
    result = CliRunner().invoke(app, ["deploy", "databricks", "--target", "prod"])
    assert "nothing to do" in str(result.exception)


@pytest.mark.parametrize("words", [["deploy", "databricks", "--dry-run"], ["databricks", "status"]])
def test_outside_of_a_bundle_it_says_where_one_comes_from(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ConfigurationError)
    assert str(done.exception) == (
        f"{tmp_path}: no bundle is here, as there is no databricks.yml: name its folder with --bundle; "
        "`flagstream deploy databricks --spec SPEC --to FOLDER` writes one"
    )
