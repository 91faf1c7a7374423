"""A folder that replaces another: one of the two is there, whenever the process ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import RetryableError
from streaming.store.local_folders import LocalFolders


class _EndedError(Exception):
    """The process is gone."""


def write(folders: LocalFolders, content: str) -> None:
    with folders.writing("a", replace=True) as folder:
        (folder / "file").write_text(content)


@pytest.mark.parametrize("renames", [0, 1, 2])
@pytest.mark.parametrize("then", ["write", "tidy"])
def test_of_the_old_and_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int, then: str
) -> None:
    folders, done = LocalFolders.of(tmp_path), [0]
    write(folders, "old")
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if done[0] == renames:
            raise _EndedError
        done[0] += 1
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        if renames < 2:
            with pytest.raises(_EndedError):
                write(folders, "new")
        else:
            write(folders, "new")
    if then == "write":
        with pytest.raises(RuntimeError), folders.writing("a") as _:
            raise RuntimeError
    else:
        folders.tidy()
    assert folders.read("a", "file") == (b"new" if renames == 2 else b"old")
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def interrupted(folders: LocalFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    """End between the two renamings: what was there is there no more under its name."""

    def rename(path: Path, target: Path) -> Path:
        if path.name.startswith(".unfinished-"):
            raise _EndedError
        return real(path, target)

    real = Path.rename
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        patch.setattr(LocalFolders, "_put_back", lambda *_: None)
        with pytest.raises(_EndedError):
            write(folders, "new")


@pytest.mark.parametrize("again", [False, True])
def test_what_was_dropped_never_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    folders = LocalFolders.of(tmp_path)
    write(folders, "old")
    interrupted(folders, monkeypatch)
    if again:
        (tmp_path / "a").mkdir()
    folders.drop("a")
    assert list(tmp_path.iterdir()) == []
    folders.tidy()
    assert folders.names() == []


def test_what_was_removed_while_it_was_filled_is_not_there_in_part(tmp_path: Path) -> None:
    """Delta's library makes a folder anew where it finds none."""
    folders = LocalFolders.of(tmp_path)

    def fill() -> None:
        with folders.writing("a") as folder:
            (folder / "first").write_text("rows")
            folders.tidy()
            folder.mkdir()
            (folder / "second").write_text("rows")

    with pytest.raises(RetryableError, match="while it was filled"):
        fill()
    assert list(tmp_path.iterdir()) == []
