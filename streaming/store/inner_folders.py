"""Folders inside a whole folder of an object store, which are read with it and never written alone."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from schemas.errors import ConfigurationError
from streaming.store.place import Place


class _Outer(Protocol):
    def files(self, name: str) -> list[str]: ...
    def reading(self, name: str, part: str = "") -> AbstractContextManager[Path]: ...
    def read(self, name: str, file: str) -> bytes: ...
    def place_of(self, name: str) -> Place: ...


@dataclass(frozen=True)
class FoldersOfAnother:
    """Folders in a part of a whole folder; see streaming.store.folders.Folders.

    Args:
        outer: has the whole folder.
        name: of the whole folder.
        part: the folder in it that they lie in.
    """

    outer: _Outer
    name: str
    part: str

    @property
    def place(self) -> Place:
        """See Folders.place."""
        return self.outer.place_of(self.name) / self.part

    def holds(self, name: str) -> bool:
        """See Folders.holds."""
        return name in self.names()

    def names(self) -> list[str]:
        """See Folders.names."""
        try:
            files = self.outer.files(self.name)
        except FileNotFoundError:
            return []
        below = [file.removeprefix(f"{self.part}/") for file in files if file.startswith(f"{self.part}/")]
        return sorted({file.partition("/")[0] for file in below if "/" in file})

    def reading(self, name: str, part: str = "") -> AbstractContextManager[Path]:
        """See Folders.reading."""
        return self.outer.reading(self.name, self._at(name, part))

    def read(self, name: str, file: str) -> bytes:
        """See Folders.read."""
        return self.outer.read(self.name, self._at(name, file))

    def place_of(self, name: str) -> Place:
        """See Folders.place_of."""
        return self.place / name

    def below(self, name: str) -> FoldersOfAnother:
        """See Folders.below."""
        return FoldersOfAnother(self.outer, self.name, self._at(name))

    def parts(self) -> list[str]:
        """See Folders.parts."""
        return self.names()

    def within(self, name: str, part: str) -> FoldersOfAnother:
        """See Folders.within."""
        return FoldersOfAnother(self.outer, self.name, self._at(name, part))

    def writing(self, name: str, *, replace: bool = False) -> AbstractContextManager[Path]:
        """Refuse: what is whole is not changed."""
        raise self._refusal(f"{name} cannot be {'replaced' if replace else 'added'}")

    def drop(self, name: str) -> None:
        """Refuse: what is whole is not changed."""
        raise self._refusal(f"{name} cannot be dropped")

    def drop_all(self) -> None:
        """Refuse: what is whole is not changed."""
        raise self._refusal("nothing can be dropped")

    def tidy(self) -> None:
        """Nothing is left half-written here."""

    def _refusal(self, what: str) -> ConfigurationError:
        return ConfigurationError(f"{what}: what {self.name!r} holds stays as it is", where=str(self.place))

    def _at(self, *parts: str) -> str:
        return "/".join(part for part in (self.part, *parts) if part)
