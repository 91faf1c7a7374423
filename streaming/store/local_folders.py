"""Whole folders on this machine: filled beside, and renamed into place.

One that makes room for another is renamed first. Where the process ends between the two renamings it is put
back, by whoever writes under the name next or tidies up.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import RetryableError
from streaming.store.place import Place
from streaming.store.whole_files import sync_path

_UNFINISHED = ".unfinished-"
_REPLACED = ".replaced-"


@dataclass(frozen=True)
class LocalFolders:
    """Folders of a folder of this machine; see streaming.store.folders.Folders."""

    place: Place

    @classmethod
    def of(cls, path: Path) -> LocalFolders:
        """Return those below a path."""
        return cls(Place.local(path))

    @property
    def path(self) -> Path:
        """Where they lie."""
        return self.place.path

    def holds(self, name: str) -> bool:
        """See Folders.holds."""
        return (self.path / name).is_dir()

    def names(self) -> list[str]:
        """See Folders.names."""
        if not self.path.is_dir():
            return []
        return sorted(each.name for each in self.path.iterdir() if each.name[0] != "." and each.is_dir())

    @contextmanager
    def writing(self, name: str, *, replace: bool = False) -> Iterator[Path]:
        """See Folders.writing."""
        unfinished, target = self.path / f"{_UNFINISHED}{name}", self.path / name
        _remove(unfinished)
        self._put_back(name)
        unfinished.mkdir(parents=True)
        try:
            with _still_there(unfinished):
                yield unfinished
            _sync_tree(unfinished)
            if replace and target.exists():
                target.rename(self._replaced(name))
            if target.exists():
                raise FileExistsError(f"{target} is there already")
            unfinished.rename(target)
            sync_path(self.path)
        finally:
            self._put_back(name)
            _remove(unfinished)

    @contextmanager
    def reading(self, name: str, part: str = "") -> Iterator[Path]:
        """See Folders.reading."""
        yield self.path / name / part

    def read(self, name: str, file: str) -> bytes:
        """See Folders.read."""
        return (self.path / name / file).read_bytes()

    def place_of(self, name: str) -> Place:
        """See Folders.place_of."""
        return self.place / name

    def below(self, name: str) -> LocalFolders:
        """See Folders.below."""
        return LocalFolders(self.place / name)

    def parts(self) -> list[str]:
        """See Folders.parts."""
        return self.names()

    def within(self, name: str, part: str) -> LocalFolders:
        """See Folders.within."""
        return LocalFolders(self.place / name / part)

    def drop(self, name: str) -> None:
        """See Folders.drop."""
        leaving = self._leaving(name)
        # What has made room goes first, since without the other it would be put back.
        for present in (self._replaced(name), self.path / name):
            if present.exists():
                _remove(leaving)
                present.rename(leaving)
                _remove(leaving)

    def _leaving(self, name: str) -> Path:
        return self.path / f"{_UNFINISHED}dropped-{name}"

    def _replaced(self, name: str) -> Path:
        return self.path / f"{_REPLACED}{name}"

    def _put_back(self, name: str) -> None:
        """Of a folder and what it replaces one is always there, whenever the process ends."""
        replaced, target = self._replaced(name), self.path / name
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        _remove(replaced)

    def drop_all(self) -> None:
        """See Folders.drop_all."""
        shutil.rmtree(self.path, ignore_errors=True)

    def tidy(self) -> None:
        """See Folders.tidy."""
        for replaced in self.path.glob(f"{_REPLACED}*"):
            self._put_back(replaced.name.removeprefix(_REPLACED))
        for leftover in self.path.glob(f"{_UNFINISHED}*"):
            _remove(leftover)


@contextmanager
def _still_there(folder: Path) -> Iterator[None]:
    """Check in the end that a folder is the one it was: what others have removed a library may make anew."""
    held = os.open(folder, os.O_RDONLY)
    try:
        yield
        if not folder.exists() or not os.path.samestat(os.fstat(held), folder.stat()):
            raise RetryableError(f"{folder}: somebody has removed it while it was filled; try again")
    finally:
        os.close(held)


def _sync_tree(folder: Path) -> None:
    for each in folder.rglob("*"):
        sync_path(each)
    sync_path(folder)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
