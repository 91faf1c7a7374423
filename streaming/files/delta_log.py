"""Opens Delta tables that others wrote, and says in plain words why one cannot be opened."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from schemas.documents import clipped
from schemas.errors import ConfigurationError
from streaming.delta.log_files import LOG
from streaming.delta.log_tail import checkpointed_version
from streaming.files.delta_features import check_features, explain_refusal
from streaming.store.place import Place

Found = TypeVar("Found")


def open_delta(path: Path, version: int | None = None) -> DeltaTable:
    """Open a table at a version, by default the newest.

    Raises:
        ConfigurationError: there is no such table or version, its log is not whole, or it uses a feature that
            is not read.
    """
    _check_name(path)
    _check_entries(path, version)
    try:
        table = DeltaTable(path, version=version)
    except TableNotFoundError:
        raise ConfigurationError(f"no Delta table: its folder {LOG} says nothing", where=str(path)) from None
    except (DeltaError, OSError) as fault:
        raise _why(path, version, fault) from None
    check_features(path, table)
    return table


def asked(path: Path, question: Callable[[], Found]) -> Found:
    """Ask an open table something; whatever its log says, the outcome is an answer or a refusal.

    Raises:
        ConfigurationError: its log says what nothing can hold.
    """
    try:
        return question()
    except Exception as fault:  # the library's own faults have no type in common
        said = clipped(str(fault).partition("\n")[0])
        raise ConfigurationError(f"its log cannot be read: {said}", where=str(path)) from None


def _why(path: Path, version: int | None, fault: Exception) -> ConfigurationError:
    explain_refusal(path, version)
    for entry in _entries(path, version):
        if not _is_whole(entry):
            return _torn(entry)
    known = {int(each.name[:20]) for each in _entries(path, None)}
    newest = max(known, default=0)
    if version is not None:
        problem = (
            f"version {version} of it cannot be read: the newest is {newest}, and old ones are cleared away"
        )
        return ConfigurationError(problem, where=str(path))
    missing = sorted({*range(checkpointed_version(Place.local(path)) + 1, newest + 1)} - known)
    gone = f"entry {missing[0]} is missing, restore the folder {LOG} from a copy" if missing else None
    said = gone or clipped(str(fault).partition("\n")[0])
    return ConfigurationError(f"its log cannot be read: {said}", where=str(path))


def _check_name(path: Path) -> None:
    """The library takes `%41` for `A`, and would open a table beside this one."""
    really = str(path.resolve())
    if unquote(really) != really:
        problem = "a percent sign with two digits, as in %2F, leads elsewhere: rename the folder, or copy it"
        raise ConfigurationError(problem, where=really)


def _check_entries(path: Path, version: int | None) -> None:
    """An empty entry would pass for one that changes nothing."""
    since = checkpointed_version(Place.local(path))
    for entry in _entries(path, version):
        if int(entry.name[:20]) > since and not entry.stat().st_size:
            raise _torn(entry)


def _entries(path: Path, version: int | None) -> Iterator[Path]:
    log = path / LOG
    names = sorted(each.name for each in log.iterdir()) if log.is_dir() else []
    for name in names:
        if name[:20].isdigit() and name[20:] == ".json" and (version is None or int(name[:20]) <= version):
            yield log / name


def _is_whole(entry: Path) -> bool:
    try:
        return all(isinstance(json.loads(line), dict) for line in entry.read_bytes().splitlines())
    except (OSError, ValueError):
        return False


def _torn(entry: Path) -> ConfigurationError:
    return ConfigurationError(
        "this entry of a table's log is not whole: restore it from a copy, or read a version before it",
        where=str(entry),
    )
