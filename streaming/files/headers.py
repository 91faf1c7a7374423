"""Names of a table's columns: a repeated one is addressed by its number, as `Account#2`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from schemas.errors import ConfigurationError, nearest


@dataclass(frozen=True)
class Header:
    """The names of a table's columns, in order, blanks around them left out.

    A name that stands there several times is none by itself; `name#1` is the first of them.
    """

    columns: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[str]) -> Header:
        """Return the header of these names."""
        return cls(tuple(name.strip() for name in names))

    @cached_property
    def unique(self) -> tuple[str, ...]:
        """A name of its own for each column, in order: numbers again where one is called `name#1` anyway."""
        seen: dict[str, int] = {}
        names: list[str] = []
        for name in self.columns:
            seen[name] = seen.get(name, 0) + 1
            repeated = self.columns.count(name) > 1
            names.append(f"{name}#{seen[name]}" if repeated else name)
        return tuple(names) if len(set(names)) == len(names) else Header(tuple(names)).unique

    def check(self, wanted: Iterable[str], where: str) -> None:
        """Refuse a table that lacks a column, or holds several of its name.

        Raises:
            ConfigurationError: it names the nearest column, or the numbered ones.
        """
        if not any(self.columns):
            raise ConfigurationError("it has no columns", where=where)
        for name in wanted:
            if name not in self.unique:
                raise ConfigurationError(self._absence(name), where=where)

    def _absence(self, name: str) -> str:
        called = zip(self.columns, self.unique, strict=True)
        places = [
            place for place, (own, unique) in enumerate(called, 1) if name in (own, unique.rpartition("#")[0])
        ]
        if not places:
            return f"no column {name!r}; {nearest(name, self.unique)}"
        numbered = [f"{self.unique[place - 1]!r} (column {place})" for place in places]
        return f"{len(places)} columns are called {name!r}: name {' or '.join(numbered)}"
