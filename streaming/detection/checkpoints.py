"""Keeps the whole scorer state: written as a folder that is there whole, checked before it is believed.

A checkpoint is the folder `<next_sequence, 20 digits>` with one Arrow IPC file per kind of entities, one
per part of a stateful detector's or a pattern's memory, one for calibration, and a manifest, written last,
with the size and CRC-32 of each file.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from streaming.detection.checkpoint_files import (
    MANIFEST,
    ScorerSnapshot,
    check_manifest,
    read_files,
    write_files,
)
from streaming.store.folders import BASE, Folders
from streaming.store.place import Place

KEPT = 3
_DIGITS = 20
# What a file that is not what was written may make of its reading.
_TORN = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, pa.ArrowException
)  # fmt: skip


@dataclass(frozen=True)
class Skipped:
    """A checkpoint that was not used, and why."""

    place: Place
    reason: str


@dataclass(frozen=True)
class FoundCheckpoint:
    """The newest usable checkpoint, if any, and those passed over on the way to it."""

    snapshot: ScorerSnapshot | None
    skipped: tuple[Skipped, ...]


def write(snapshot: ScorerSnapshot, folders: Folders) -> str:
    """Write a snapshot and drop all but the newest three; returns the checkpoint's name.

    After a crash at any moment either the whole checkpoint is there or none of it counts. Only one
    writer may work on `folders` at a time. The same sequence written again replaces the earlier one.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints are still there.
        RetryableError: the store is away; earlier checkpoints are still there.
    """
    folders.tidy()
    name = f"{snapshot.next_sequence:0{_DIGITS}d}"
    with folders.writing(name, replace=True) as unfinished:
        write_files(snapshot, unfinished)
    for outdated in _newest_first(folders)[KEPT:]:
        folders.drop(outdated)
    return name


def newest(
    folders: Folders, definition_hash: str, *, through: int | None = None, beyond: int = -1
) -> FoundCheckpoint:
    """Read the newest checkpoint that is whole and was made under the same profile definition.

    Args:
        folders: where write() put them.
        definition_hash: checkpoints of another definition are skipped.
        through: skip those with a later next_sequence than this.
        beyond: skip those with a next_sequence up to this, without reading them.

    Raises:
        RetryableError: the store is away.
    """
    skipped: list[Skipped] = []
    # Retention leaves the state in which the first rows that are left were met.
    places = (folders, folders.below(BASE).below(definition_hash))
    found = [(place, name) for place in places for name in _newest_first(place)]
    for place, name in sorted(found, key=lambda each: -int(each[1])):
        if int(name) <= beyond or (through is not None and int(name) > through):
            continue
        try:
            return FoundCheckpoint(_found(place, name, definition_hash), tuple(skipped))
        except _TORN as fault:
            skipped.append(Skipped(place.place / name, f"{fault}" or type(fault).__name__))
    return FoundCheckpoint(None, tuple(skipped))


def drop_after(folders: Folders, next_sequence: int) -> None:
    """Remove checkpoints of rows that the lake does not hold: it was set back, and will hold others there."""
    bases = folders.below(BASE)
    for place in (folders, *(bases.below(definition) for definition in bases.parts())):
        for name in _newest_first(place):
            if int(name) > next_sequence:
                place.drop(name)


def change_all(folders: Folders, change: Callable[[ScorerSnapshot], ScorerSnapshot]) -> int:
    """Write every checkpoint anew as a change leaves it, and remove those that are torn.

    Returns:
        How many there are.

    Raises:
        OSError: the disk cannot be read, which tells nothing of what lies there.
    """
    found = list(reversed(_newest_first(folders)))
    for name in found:
        try:
            state = _found(folders, name)
        except _TORN as fault:
            if isinstance(fault, OSError) and fault.errno not in (None, errno.ENOENT):
                raise  # after retention there may be no rows to build it from again
            folders.drop(name)
        else:
            write(change(state), folders)
    return len(found)


def all_below(folders: Folders) -> Iterator[Folders]:
    """Yield these and all below them that may hold checkpoints, of versions in every stage."""
    yield folders
    for part in folders.parts():
        if not _is_checkpoint(part):
            yield from all_below(folders.below(part))


def count(folders: Folders) -> int:
    """Return how many checkpoints they hold."""
    return len(_newest_first(folders))


def _is_checkpoint(name: str) -> bool:
    return len(name) == _DIGITS and name.isdecimal()


def _newest_first(folders: Folders) -> list[str]:
    return sorted(filter(_is_checkpoint, folders.names()), reverse=True)


def _found(folders: Folders, name: str, definition_hash: str | None = None) -> ScorerSnapshot:
    """Read one; of another definition than the one wanted, if any, it is not fetched."""
    check_manifest(json.loads(folders.read(name, MANIFEST)), definition_hash)
    with folders.reading(name) as path:
        return read_files(path)
