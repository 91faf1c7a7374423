"""The part of the lock that an agent needs to run, without what only its developers need.

`python streaming/setup/runtime_lock.py LOCK PYPROJECT FILE` writes it to FILE. Nothing is installed yet when
it runs, so it needs Python alone. Whoever needs a package stands in the lock, in comments below it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^[A-Za-z0-9][^\n]*\n(?:[ #][^\n]*\n)*", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_NEEDED_BY = re.compile(r"^    #(?: via|  ) ([A-Za-z0-9][\w.-]*)", re.MULTILINE)


@dataclass(frozen=True)
class LockedPackage:
    """A package of the lock.

    Attributes:
        name: as it is compared, in lower case with hyphens.
        text: its lines: version, hashes, comments.
        needed_by: names of the packages that need it.
    """

    name: str
    text: str
    needed_by: frozenset[str]


def locked_packages(lock: str) -> list[LockedPackage]:
    """Return the packages of a lock, in its order."""
    blocks: list[str] = _BLOCK.findall(lock)
    return [
        LockedPackage(_name_in(block), block, frozenset(map(_same, _NEEDED_BY.findall(block))))
        for block in blocks
    ]


def runtime_packages(lock: str, pyproject: str) -> list[LockedPackage]:
    """Return what the project needs without extras, and what that needs.

    Args:
        lock: its text.
        pyproject: text of the pyproject.toml that the lock was made of.

    Raises:
        ValueError: the lock lacks a package that the project needs.
    """
    packages = locked_packages(lock)
    direct = {_name_in(each) for each in tomllib.loads(pyproject)["project"]["dependencies"]}
    missing = direct - {each.name for each in packages}
    if missing:
        raise ValueError(f"the lock lacks {', '.join(sorted(missing))}: make it anew")
    needed = _closure(packages, direct)
    return [each for each in packages if each.name in needed]


def _closure(packages: Iterable[LockedPackage], needed: set[str]) -> set[str]:
    more = {each.name for each in packages if each.needed_by & needed} | needed
    return needed if more == needed else _closure(packages, more)


def _name_in(line: str) -> str:
    found = _NAME.match(line)
    if found is None:
        raise ValueError(f"no name of a package in {line!r}")
    return _same(found[0])


def _same(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main(lock: Path, pyproject: Path, file: Path) -> None:
    """Write the part of `lock` that runs to `file`."""
    packages = runtime_packages(lock.read_text(encoding="utf-8"), pyproject.read_text(encoding="utf-8"))
    file.write_text("".join(each.text for each in packages), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
