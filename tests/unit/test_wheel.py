"""What is installed: three packages with all their files, the licence, and nothing that is for a clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("agent", "schemas", "streaming")
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
NOT_SOURCE = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, unpacked; building writes into the tree, so that is a copy."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in (*PACKAGES, "benchmarks"):
        shutil.copytree(ROOT / name, folder / "tree" / name, ignore=NOT_SOURCE)
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, folder / "tree" / name)
    (folder / "tree" / "tests").mkdir()
    (folder / "tree" / "tests" / "__init__.py").touch()
    command = [sys.executable, "-c", BUILD, str(folder)]
    subprocess.run(command, cwd=folder / "tree", check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_it_holds_every_file_of_three_packages_and_nothing_else(wheel: Path) -> None:
    found = {name for name in files(wheel) if not name.startswith("flagstream-")}
    tree = wheel.parent / "tree"
    assert found == {f"{name}/{each}" for name in PACKAGES for each in files(tree / name)}
    assert {"agent/prompts/triage/cases.yaml", "streaming/setup/jars.lock"} <= found


def test_it_says_under_which_licence_it_is_and_brings_it(wheel: Path) -> None:
    (information,) = wheel.glob("flagstream-*.dist-info")
    assert "License-Expression: Apache-2.0" in (information / "METADATA").read_text(encoding="utf-8")
    licence = (information / "licenses" / "LICENSE").read_text(encoding="utf-8")
    assert licence == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence


def flagstream(wheel: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    command = [sys.executable, "-c", "from streaming.cli.root import main; main()", *arguments]
    return subprocess.run(command, cwd=wheel, env=environment, capture_output=True, text=True, check=False)


def test_the_installed_command_says_that_benchmarks_need_a_clone(wheel: Path) -> None:
    child = flagstream(wheel, "bench", "recovery", "--entities", "1000")
    assert (child.returncode, child.stdout) == (2, "")
    assert "clone the repository" in child.stderr
    assert "Traceback" not in child.stderr


def test_the_installed_command_works_on_what_it_brings(wheel: Path) -> None:
    child = flagstream(wheel, "spec", "validate", str(wheel / "agent" / "specs" / "card-fraud.yaml"))
    assert child.returncode == 0, child.stderr


def test_a_clone_finds_its_benchmarks_from_anywhere(tmp_path: Path) -> None:
    child = flagstream(tmp_path, "bench", "recovery", "--entities", "1")
    assert "--entities" in child.stderr  # 1,000 at least: it was parsed
    command = [
        sys.executable,
        "-c",
        "from streaming.cli import bench; bench.find_benchmarks(); import benchmarks.growth",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
