"""The walks of CONTRIBUTING.md fit the tree as it is; tests/services takes them to their end."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from tests.walks import ROOT, Edit, walks

WALKS = walks()


def test_there_are_walks() -> None:
    assert set(WALKS) == {"Add a detector", "Add an action", "Add a column", "Add a table"}
    assert all(len(edits) >= 3 for edits in WALKS.values())


@pytest.mark.parametrize("title", WALKS)
def test_a_walk_fits_the_files_that_it_names(title: str, tmp_path: Path) -> None:
    for edit in WALKS[title]:
        (tmp_path / edit.path).parent.mkdir(parents=True, exist_ok=True)
        assert (ROOT / edit.path).parent.is_dir()
        if not edit.is_new:
            shutil.copy(ROOT / edit.path, tmp_path / edit.path)
        edit.apply(tmp_path)
        if edit.path.endswith(".py"):
            ast.parse((tmp_path / edit.path).read_text(encoding="utf-8"))


def test_an_edit_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\ntwo\n", encoding="utf-8")
    Edit("a.py", (" one\n+between\n two\n",), is_new=False).apply(tmp_path)
    assert (tmp_path / "a.py").read_text(encoding="utf-8") == "one\nbetween\ntwo\n"
    with pytest.raises(AssertionError, match=r"a\.py holds this 0 times"):
        Edit("a.py", (" one\n+between\n two\n",), is_new=False).apply(tmp_path)
    with pytest.raises(AssertionError, match="there already"):
        Edit("a.py", ("",), is_new=True).apply(tmp_path)
