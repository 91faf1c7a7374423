"""A canary, a promotion and rollbacks on a workspace whose runs do what their tasks say, on a real lake."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.triage.triage import POLICIES
from schemas.contract import CONTRACTS
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec, load_spec
from streaming.cli.job import main
from streaming.commands.deploy import BundleTarget, DeployOptions, deploy
from streaming.commands.job import TaskFailedError
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.live_lake import agent, events, judge, run_live, without_broker
from streaming.testing.workspace import TOKEN, LoopbackWorkspace, loopback_workspace
from streaming.versions.registry_table import read_entries, registry_place
from streaming.versions.stages import staged_versions
from tests.unit.streaming.databricks.samples import GIVEN, written

EASY = {"least_labels": 1, "maturity": "0s", "alerts_tolerance": 10}


class Node:
    """The node that a run gets: the workspace's files, a home of its own, and the command line."""

    def __init__(self, workspace: LoopbackWorkspace, folder: Path) -> None:
        self._workspace, self._folder = workspace, folder
        self.ran = list[list[str]]()

    def run(self, asked: dict[str, Any]) -> tuple[str, str]:
        """See WorkspaceRuns.execute."""
        (task,) = asked["tasks"]
        if "notebook_task" in task:
            return "SUCCESS", ""
        words = [self._here(word) for word in task["python_wheel_task"]["parameters"]]
        self.ran.append(words)
        try:
            main(words)
        except TaskFailedError as fault:
            return "RUN_EXECUTION_ERROR", str(fault)
        return "SUCCESS", ""

    def _here(self, word: str) -> str:
        if not word.startswith(("/Workspace/", "/Volumes/")):
            return word
        for path, content in self._workspace.files.items():
            place = self._folder / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(base64.b64decode(content))
        return str(self._folder / word.lstrip("/"))


def own(folder: Path, **changes: Any) -> AgentSpec:
    """A spec with a contract and a policy of its own, as bundles have them: files beside it."""
    folder.mkdir()
    shutil.copy(CONTRACTS / "simulator.yaml", folder / "contract.yaml")
    shutil.copy(POLICIES / "default.json", folder / "policy.json")
    content = agent(promotion=EASY, policy="./policy.json", **changes).model_dump(mode="json")
    content["data_sources"]["transactions"]["contract"] = "./contract.yaml"
    (folder / "spec.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_spec(folder / "spec.yaml")


class Target:
    """A target whose agent has decided some payments."""

    def __init__(self, workspace: LoopbackWorkspace, folder: Path) -> None:
        self._folder, self._settings = folder, Settings.load(folder / "home", {})
        self.node = Node(workspace, folder)
        workspace.runs.execute = self.node.run
        self.first = own(folder / "1.0.0", version="1.0.0")
        self.second = own(folder / "1.1.0", version="1.1.0", threshold=0.95)
        placed = PlacedAgent(self._settings, self.first)
        run_live(placed, events(600))
        alerted = LakeReader.of(placed).frame("alerts", ["transaction_id"])["transaction_id"].to_list()
        judge(placed, alerted)

    def deploy(self, spec: AgentSpec, **options: Any) -> int:
        bundle = self._folder / f"bundle-{spec.version}"
        if not bundle.exists():
            written(bundle, spec)
        at = BundleTarget(bundle, "prod", None, GIVEN)
        return deploy(at, DeployOptions(**options), as_json=True, pause=lambda _: None)

    def stages(self) -> dict[str, str]:
        found = staged_versions(read_entries(registry_place(PlacedAgent(self._settings, self.first))))
        return {each.version: each.stage for each in found.values()}


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    without_broker(monkeypatch)
    monkeypatch.setenv("FLAGSTREAM_HOME", str(tmp_path / "home"))
    with loopback_workspace() as workspace:
        monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        monkeypatch.setenv("DATABRICKS_CONFIG_FILE", os.devnull)
        yield Target(workspace, tmp_path)


@pytest.mark.long
def test_a_version_goes_from_canary_to_active_and_back_by_what_the_runs_do(target: Target) -> None:
    assert target.deploy(target.first, follow=True) == 0
    assert target.stages() == {}
    assert target.deploy(target.second, action="canary", percent=5.0, why="first a few") == 0
    assert target.stages() == {"1.0.0": "active", "1.1.0": "canary"}
    assert target.deploy(target.second, action="rollback", why="too many") == 0
    assert target.stages() == {"1.0.0": "active", "1.1.0": "sandbox"}
    assert target.deploy(target.second, action="canary", percent=5.0) == 0
    assert target.deploy(target.second, action="promote") == 0
    assert target.stages() == {"1.0.0": "retired", "1.1.0": "active"}
    assert target.deploy(target.second, action="rollback") == 0
    assert target.stages() == {"1.0.0": "active", "1.1.0": "sandbox"}


def test_where_nothing_decides_yet_no_version_decides_a_share(target: Target) -> None:
    with pytest.raises(ConfigurationError, match="nothing decides on prod yet: bring the first version"):
        target.deploy(target.second, action="canary", percent=5.0)
    assert (target.stages(), target.node.ran) == ({}, [])
