"""The workflows of GitHub are such as its runners take: actionlint, built from its pinned source, says so."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = Path(".github", "workflows")
MODULE = Path(__file__).parent / "actionlint"
Lint = Callable[[Path], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def actionlint(tmp_path_factory: pytest.TempPathFactory) -> Lint:
    """The linter, whose sums go.sum holds."""
    go = shutil.which("go")
    if go is None:
        pytest.fail("the linter of workflows is built by Go 1.25 or newer, and there is no `go`: install it")
    program = tmp_path_factory.mktemp("actionlint") / "actionlint"
    source = "github.com/rhysd/actionlint/cmd/actionlint"
    environment = {**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false"}
    subprocess.run([go, "build", "-o", str(program), source], check=True, cwd=MODULE, env=environment)

    def lint(project: Path) -> subprocess.CompletedProcess[str]:
        # Of the programs that it would call, a machine may have any version or none.
        command = [str(program), "-no-color", "-shellcheck=", "-pyflakes="]
        return subprocess.run(command, check=False, cwd=project, capture_output=True, text=True)

    return lint


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of all that the linter reads."""
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    (tmp_path / ".git").mkdir()  # by which it finds where a project begins
    return tmp_path


def test_every_workflow_is_one(actionlint: Lint, project: Path) -> None:
    assert len(list((project / WORKFLOWS).glob("*.yml"))) >= 3
    done = actionlint(project)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("needs: canary", "needs: canery"),
        ("inputs.percent", "inputs.procent"),
        ("runs-on: ubuntu-24.04", "runs_on: ubuntu-24.04"),
        ("spec: ${{ env.SPEC }}", "spek: ${{ env.SPEC }}"),
    ],
)
def test_the_linter_finds_what_is_wrong(actionlint: Lint, project: Path, right: str, wrong: str) -> None:
    file = project / WORKFLOWS / "databricks.yml"
    text = file.read_text(encoding="utf-8")
    assert right in text
    file.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    done = actionlint(project)
    assert done.returncode == 1, done.stdout
    assert wrong.partition(":")[0].rpartition(".")[2] in done.stdout
