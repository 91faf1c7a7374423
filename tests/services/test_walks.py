"""A stranger's walk needs the files that CONTRIBUTING.md names and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.walks import copy_of_the_tree, run, walks

WALKS = walks()
# What a walk of this kind could break elsewhere: digests of documents, imports, prompts, checks of plans.
EVERYWHERE = (
    "tests/unit/test_imports.py",
    "tests/unit/schemas/test_spec.py",
    "tests/unit/schemas/test_lake_tables.py",
    "tests/unit/agent/planning/test_plan_policy.py",
    "tests/unit/agent/planning/test_planning_prompts.py",
    "tests/unit/test_lake_of_2026_11.py",
)
FLAGSTREAM = "from streaming.cli.root import main; main()"
pytestmark = pytest.mark.timeout(480)


@pytest.mark.parametrize("title", WALKS)
def test_after_a_walk_the_checks_and_tests_pass(title: str, tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path)
    for edit in WALKS[title]:
        edit.apply(tree)
    reference = run(tree, "-c", FLAGSTREAM, "spec", "reference")
    (tree / "docs" / "reference.md").write_text(reference, encoding="utf-8")
    run(tree, "-m", "ruff", "check", "--no-cache", "agent", "schemas", "streaming", "tests")
    run(tree, "-m", "ruff", "format", "--no-cache", "--check", "agent", "schemas", "streaming", "tests")
    own = [edit.path for edit in WALKS[title] if edit.path.startswith("tests/")]
    assert own, "a walk ends with a test of its own"
    run(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", *own, *EVERYWHERE, "tests/unit/test_docs.py")
