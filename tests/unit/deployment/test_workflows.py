"""What the workflows of GitHub promise: who approves, what comes before what, and that no test is left out.

tests/services lints them.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml

from agent import SPECS
from schemas.spec import load_spec
from streaming.databricks.bundle import bundle_files
from streaming.home.settings import Settings
from tests.deployment import ROOT
from tests.prometheus import LOCK, installed

Jobs = dict[str, dict[str, Any]]
DEPLOY = "flagstream deploy databricks"


def jobs_of(name: str) -> Jobs:
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["jobs"])


def commands(job: dict[str, Any]) -> list[str]:
    return [line.strip() for step in job["steps"] for line in step.get("run", "").splitlines()]


def test_the_image_is_built_and_tried_at_each_change() -> None:
    (build,) = commands(jobs_of("test")["image"])
    assert build == "docker/build-image.sh --try"
    assert os.access(ROOT / build.split()[0], os.X_OK)


def before(jobs: Jobs, name: str) -> list[str]:
    """Return a job and all that it waits for, the first one last."""
    needed = jobs[name].get("needs")
    return [name] if needed is None else [name, *before(jobs, needed)]


def misses(jobs: Jobs) -> list[str]:
    """Say what is not as promised: approval, a person's order, a canary first, one deployment at a time."""
    changing = {
        name: job
        for name, job in jobs.items()
        if any(DEPLOY in each and "--dry-run" not in each for each in commands(job))
    }
    found = [f"{name}: {what}" for name, job in changing.items() for what in _lacks(jobs, name, job)]
    (promoting,) = (
        name for name, job in changing.items() if any("--promote" in each for each in commands(job))
    )
    if before(jobs, promoting) != ["promote", "canary", "deploy"]:
        found.append("a version is promoted that was no canary, or tried on no other target")
    return found


def _lacks(jobs: Jobs, name: str, job: dict[str, Any]) -> list[str]:
    ordered = (
        jobs[before(jobs, name)[-1]].get("if", "").startswith("github.event_name == 'workflow_dispatch'")
    )
    # A condition of a later job's own would let it run after one that has failed or was skipped.
    alone = "needs" in job and "if" in job
    lacks = {"environment": "environment" not in job, "order": not ordered or alone}
    return [*(what for what, is_so in lacks.items() if is_so), *(() if "concurrency" in job else ("turn",))]


def test_what_changes_a_workspace_is_ordered_and_approved_and_a_canary_comes_before_a_promotion() -> None:
    jobs = jobs_of("databricks")
    assert misses(jobs) == []
    assert jobs["canary"]["environment"] != jobs["promote"]["environment"]  # each has an approval of its own
    assert jobs["deploy"]["strategy"]["matrix"]["target"] == ["dev", "staging"]
    assert jobs["deploy"]["strategy"]["max-parallel"] == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda jobs: jobs["deploy"].pop("environment"),
        lambda jobs: jobs["canary"].pop("environment"),
        lambda jobs: jobs["promote"].pop("environment"),
        lambda jobs: jobs["rollback"].pop("environment"),
        lambda jobs: jobs["promote"].update(needs="deploy"),
        lambda jobs: jobs["canary"].pop("needs"),
        lambda jobs: jobs["promote"].update({"if": "always()"}),
        lambda jobs: jobs["deploy"].pop("if"),
        lambda jobs: jobs["rollback"].pop("concurrency"),
    ],
)
def test_what_is_missing_is_found(spoil: Callable[[Jobs], object]) -> None:
    jobs = copy.deepcopy(jobs_of("databricks"))
    spoil(jobs)
    assert misses(jobs)


def test_a_pull_request_has_the_bundle_validated_and_nothing_changed() -> None:
    job = jobs_of("databricks")["validate"]
    assert job["if"] == "github.event_name == 'pull_request'"
    assert [each for each in commands(job) if each.startswith(("databricks", "flagstream"))] == [
        "databricks bundle validate --target dev",
        f"{DEPLOY} --target dev --dry-run",
    ]


def test_the_spec_that_is_deployed_unless_another_is_named_can_be_a_bundle() -> None:
    text = (ROOT / ".github" / "workflows" / "databricks.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"inputs\.spec \|\| '([\w-]+)'", text))
    named |= {yaml.load(text, yaml.BaseLoader)["on"]["workflow_dispatch"]["inputs"]["spec"]["default"]}
    (name,) = named
    assert bundle_files(load_spec(SPECS / f"{name}.yaml"), {})


def test_all_tests_run_where_what_they_need_can_be_had() -> None:
    jobs = jobs_of("test")
    ran = {name: commands(job) for name, job in jobs.items()}
    assert {"make check", "make test"} <= set(ran["test"])
    assert "make test-services" in ran["services"]
    assert "make test-platform" in ran["platform"]
    assert jobs["services"]["timeout-minutes"] >= 90
    assert jobs["services"]["env"]["LANG"] == "C.UTF-8"
    name, _, release = jobs["services"]["container"]["image"].partition(":")
    assert (name, f"+deb{release}" in LOCK.read_text(encoding="utf-8")) == ("debian", True)


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_its_package_prometheus_is_skipped_and_in_ci_it_fails(
    ci: str, outcome: type[BaseException], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(outcome, match="no apt-get"):
        installed(replace(settings, cache=settings.home / "cache"))
