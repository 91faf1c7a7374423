"""An image gets what runs, and nothing of what developers need."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streaming.setup.runtime_lock import locked_packages, main, runtime_packages

ROOT = Path(__file__).parents[4]
LOCK = """\
# Made by: hand
direct==1.0 \\
    --hash=sha256:aa
    # via flagstream (pyproject.toml)
below[extra]==2.0 ; python_full_version >= '3.11' \\
    --hash=sha256:bb \\
    --hash=sha256:cc
    # via
    #   direct
    #   tester
tester==3.0 \\
    --hash=sha256:dd
    # via flagstream (pyproject.toml)
below-tester==4.0 \\
    --hash=sha256:ee
    # via tester
Under_Below==5.0 \\
    --hash=sha256:ff
    # via below
"""
PROJECT = '[project]\ndependencies = ["Direct>=1"]\noptional-dependencies.dev = ["tester"]\n'


def names(lock: str, pyproject: str) -> list[str]:
    return [each.name for each in runtime_packages(lock, pyproject)]


def test_what_is_needed_directly_and_below_that_stays_with_its_hashes() -> None:
    found = runtime_packages(LOCK, PROJECT)
    assert [each.name for each in found] == ["direct", "below", "under-below"]
    assert found[1].text.count("--hash") == 2
    assert "".join(each.text for each in locked_packages(LOCK)) == LOCK.removeprefix("# Made by: hand\n")


def test_a_lock_that_lacks_something_is_refused() -> None:
    with pytest.raises(ValueError, match="absent"):
        names(LOCK, PROJECT.replace("Direct", "absent"))


def test_of_the_project_s_lock_the_tools_of_developers_go(tmp_path: Path) -> None:
    lock, file = ROOT / "requirements" / "lock.txt", tmp_path / "runtime.txt"
    main(lock, ROOT / "pyproject.toml", file)
    whole = {each.name for each in locked_packages(lock.read_text(encoding="utf-8"))}
    kept = {each.name for each in locked_packages(file.read_text(encoding="utf-8"))}
    assert {"pyspark", "py4j", "numba", "llvmlite", "deltalake", "prometheus-client", "xgboost-cpu"} <= kept
    assert {"pytest", "mypy", "ruff", "hypothesis", "testcontainers", "docker", "river"} <= whole - kept
    assert len(re.findall(r"^\S+==", file.read_text(encoding="utf-8"), re.MULTILINE)) >= len(kept) > 80
