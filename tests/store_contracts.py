"""What files and whole folders do wherever they lie: the same checks for this machine and for real stores."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from streaming.store.files import Files
from streaming.store.folders import Folders

THREADS = 8


def check_files(files: Files) -> None:
    """Files are made once, replaced if unchanged, listed and removed."""
    assert files.read("one") is None
    assert files.names() == []
    first = files.create("one", b"first")
    assert first is not None
    assert files.create("one", b"other") is None
    second = files.replace("one", b"second", first)
    assert second is not None
    assert files.replace("one", b"third", first) is None, "it is no longer what was written first"
    read = files.read("one")
    assert read is not None
    assert read.content == b"second"
    assert files.replace("one", b"fourth", read) is not None
    assert files.create("two", b"") is not None
    assert files.create("below/three", b"") is not None
    assert [each for each in files.names() if not each.endswith(".lock")] == ["one", "two"]
    for _ in range(2):
        files.remove("one")
    assert files.read("one") is None
    assert files.replace("one", b"fifth", read) is None, "what is gone is not replaced"


def check_races(files: Files) -> None:
    """Of writers at once one makes a file, and of steps of a counter none is lost."""
    with ThreadPoolExecutor(THREADS) as pool:
        made = list(pool.map(lambda number: files.create("race", f"{number}".encode()), range(THREADS)))
    winners = [number for number, each in enumerate(made) if each is not None]
    found = files.read("race")
    assert found is not None
    assert [f"{each}".encode() for each in winners] == [found.content]
    files.create("counter", b"0")

    def step(_: int) -> None:
        written = None
        while written is None:
            held = files.read("counter")
            assert held is not None
            steps = int(held.content.split()[0]) + 1
            written = files.replace("counter", f"{steps} by {uuid.uuid4().hex}".encode(), held)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(step, range(3 * THREADS)))
    counted = files.read("counter")
    assert counted is not None
    assert int(counted.content.split()[0]) == 3 * THREADS


def fill(folder: Path, text: str, *, large: int = 0) -> None:
    """Write what a whole folder holds."""
    (folder / "inner" / "deep").mkdir(parents=True)
    (folder / "manifest.json").write_text(text)
    (folder / "inner" / "deep" / "leaf").write_text(f"{text} leaf")
    (folder / "inner" / "large").write_bytes(text.encode() * large)


def check_folders(folders: Folders, large: int = 1) -> None:
    """A folder is there whole or not at all, is read as a folder of this machine, and is dropped."""
    assert folders.names() == []
    assert not folders.holds("one")
    with folders.writing("one") as folder:
        fill(folder, "first", large=large)
        assert not folders.holds("one"), "not before all of it is there"
    assert folders.names() == ["one"]
    assert folders.read("one", "manifest.json") == b"first"
    with folders.reading("one") as folder:
        assert (folder / "inner" / "deep" / "leaf").read_text() == "first leaf"
        assert (folder / "inner" / "large").read_bytes() == b"first" * large
    with folders.reading("one", "inner/deep/leaf") as file:
        assert file.read_text() == "first leaf"
    inner = folders.within("one", "inner")
    assert inner.names() == ["deep"]
    assert inner.read("deep", "leaf") == b"first leaf"
    with inner.reading("deep") as folder:
        assert [each.name for each in folder.iterdir()] == ["leaf"]
    with pytest.raises(FileNotFoundError), folders.reading("one", "absent") as path:
        path.read_bytes()
    with pytest.raises(FileNotFoundError):
        folders.read("one", "absent")


def check_writers(folders: Folders) -> None:
    """What fails leaves nothing, what is there is replaced only if that is meant, and leftovers go."""
    with folders.writing("one") as folder:
        fill(folder, "first")
    with pytest.raises(ZeroDivisionError), folders.writing("two") as folder:
        fill(folder, "never")
        raise ZeroDivisionError
    with pytest.raises(FileExistsError), folders.writing("one") as folder:
        fill(folder, "other")
    assert folders.read("one", "manifest.json") == b"first"
    with folders.writing("one", replace=True) as folder:
        fill(folder, "second")
    assert folders.names() == ["one"]
    assert folders.read("one", "manifest.json") == b"second"
    below = folders.below("apart")
    with below.writing("three") as folder:
        fill(folder, "third")
    assert below.names() == ["three"]
    folders.tidy()
    assert below.read("three", "manifest.json") == b"third"
    below.drop_all()
    assert below.names() == []
    for _ in range(2):
        folders.drop("one")
    assert not folders.holds("one")


def check_racing_writers(folders: Folders) -> None:
    """Of writers of one name one prevails, whole."""

    def write(number: int) -> bool:
        try:
            with folders.writing("race") as folder:
                fill(folder, f"{number}")
        except (FileExistsError, OSError):
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(write, range(4)))
    assert sum(written) == 1
    winner = f"{written.index(True)}"
    assert folders.read("race", "manifest.json").decode() == winner
    assert folders.read("race", "inner/deep/leaf").decode() == f"{winner} leaf"


CHECKS: dict[str, Callable[[Files], None]] = {"one after the other": check_files, "at once": check_races}
