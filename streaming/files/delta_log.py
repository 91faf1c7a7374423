"""Opens Delta tables that others wrote, and says in plain words why one cannot be opened."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar
from urllib.parse import unquote

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from schemas.documents import clipped
from schemas.errors import ConfigurationError, FlagstreamError
from streaming.delta.faults import table_faults
from streaming.delta.log_files import LOG, version_of
from streaming.delta.log_tail import checkpointed_version
from streaming.files.delta_features import check_features, explain_refusal
from streaming.files.foreign_files import ForeignFiles
from streaming.store.place import Place

Found = TypeVar("Found")


def open_delta(files: ForeignFiles, version: int | None = None) -> DeltaTable:
    """Open a table at a version, by default the newest.

    Raises:
        ConfigurationError: there is no such table or version, its log is not whole, or it uses a feature that
            is not read; or the store that it lies in does not admit this process.
        RetryableError: that store is away or busy.
    """
    place = files.place
    _check_name(place)
    _check_entries(files, version)
    try:
        with store_words(place):
            table = DeltaTable(place.uri, version=version, storage_options=place.storage_options)
    except TableNotFoundError:
        raise ConfigurationError(f"no Delta table: its folder {LOG} says nothing", where=str(place)) from None
    except (DeltaError, OSError) as fault:
        raise _why(files, version, fault) from None
    check_features(place, table)
    return table


def store_words(place: Place) -> AbstractContextManager[None]:
    """Return what raises as the project's errors what Delta's library says of a store; see table_faults."""
    return nullcontext() if place.is_local else table_faults(place)


def asked(place: Place, question: Callable[[], Found]) -> Found:
    """Ask an open table something; whatever its log says, the outcome is an answer or a refusal.

    Raises:
        ConfigurationError: its log says what nothing can hold.
    """
    try:
        with store_words(place):
            return question()
    except FlagstreamError:
        raise
    except Exception as fault:  # the library's own faults have no type in common
        said = clipped(str(fault).partition("\n")[0])
        raise ConfigurationError(f"its log cannot be read: {said}", where=str(place)) from None


def _why(files: ForeignFiles, version: int | None, fault: Exception) -> ConfigurationError:
    explain_refusal(files, version)
    names = files.log()
    for entry in _entries(names, version):
        if not _is_whole(files, entry):
            return _torn(files, entry)
    known = {*_entries(names, None).values()}
    newest = max(known, default=0)
    if version is not None:
        problem = (
            f"version {version} of it cannot be read: the newest is {newest}, and old ones are cleared away"
        )
        return ConfigurationError(problem, where=str(files.place))
    missing = sorted({*range(checkpointed_version(files.place) + 1, newest + 1)} - known)
    gone = f"entry {missing[0]} is missing, restore the folder {LOG} from a copy" if missing else None
    said = gone or clipped(str(fault).partition("\n")[0])
    return ConfigurationError(f"its log cannot be read: {said}", where=str(files.place))


def _check_name(place: Place) -> None:
    """The library takes `%41` for `A`, and would open a table beside this one."""
    really = str(place.path.resolve()) if place.is_local else place.uri
    if unquote(really) != really:
        problem = "a percent sign with two digits, as in %2F, leads elsewhere: rename the folder, or copy it"
        raise ConfigurationError(problem, where=really)


def _check_entries(files: ForeignFiles, version: int | None) -> None:
    """An empty entry would pass for one that changes nothing."""
    since, sizes = checkpointed_version(files.place), files.log()
    for name, number in _entries(sizes, version).items():
        if number > since and not sizes[name]:
            raise _torn(files, name)


def _entries(names: Collection[str], version: int | None) -> dict[str, int]:
    """Return the entries among the names of a log, up to a version: name → version."""
    numbers = {name: version_of(name) for name in sorted(names) if name[20:] == ".json"}
    known = {name: number for name, number in numbers.items() if number is not None}
    return {name: number for name, number in known.items() if version is None or number <= version}


def _is_whole(files: ForeignFiles, entry: str) -> bool:
    try:
        return all(isinstance(json.loads(line), dict) for line in files.read_log(entry).splitlines())
    except (OSError, ValueError):
        return False


def _torn(files: ForeignFiles, entry: str) -> ConfigurationError:
    return ConfigurationError(
        "this entry of a table's log is not whole: restore it from a copy, or read a version before it",
        where=str(files.place / LOG / entry),
    )
