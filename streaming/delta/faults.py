"""Tells a disk that takes nothing, and a store that is away, from all else that can go wrong with a table."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltalake.exceptions import DeltaError

from schemas.errors import DiskError, FlagstreamError
from streaming.store.faults import fault_of_store
from streaming.store.place import Place

_NUMBERS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ENODEV,
    errno.ENXIO,
    errno.ESTALE,
    errno.ENOTCONN,
)
_LEAST_FREE_BYTES = 16 << 20
# Delta's library raises its own errors, which have the number in their text alone.
_MARKS = tuple(mark for number in _NUMBERS for mark in (f"(os error {number})", f"code: {number}, kind:"))


@contextmanager
def table_faults(place: Place) -> Iterator[None]:
    """Raise what the disk or the store that a table lies in has caused as such, and leave all else as it is.

    Raises:
        DiskError: the disk takes nothing.
        StoreError: the store is away or busy, or its credentials have expired.
        ConfigurationError: it does not admit this process, or there is no such bucket.
    """
    try:
        yield
    except (OSError, DeltaError) as fault:
        known: FlagstreamError | None
        if place.is_local:
            known = DiskError(f"{place}: {_last_words(fault)}") if is_of_the_disk(fault) else None
        else:
            known = fault_of_store(str(fault), place)
        if known is None:
            raise
        raise known from (fault if place.is_local else None)  # a store's words may quote a signed request


@contextmanager
def read_faults(place: Place) -> Iterator[None]:
    """Raise what keeps an open table from being read as the disk's, also where its folder is gone.

    Raises:
        DiskError: the disk gives nothing, or the table's folder is not there any more.
    """
    if not place.is_local:
        yield
        return
    try:
        with table_faults(place):
            yield
    except (FileNotFoundError, DeltaError) as fault:
        if place.path.is_dir():
            raise
        raise DiskError(f"{place} is gone") from fault


def is_of_the_disk(fault: BaseException) -> bool:
    """Say whether a fault is one of a disk that is full, read-only, failing or gone."""
    if isinstance(fault, OSError) and fault.errno is not None:
        return fault.errno in _NUMBERS
    return any(mark in str(fault) for mark in _MARKS)


def unusable(folder: Path, *, known: bool = False) -> str | None:
    """Say why a batch could not be stored below a folder; None where it could.

    Args:
        folder: may not be there yet.
        known: it has been there, so that its absence means that its disk is gone.

    Raises:
        OSError: a file cannot be written for a reason that is not the disk's.
    """
    if known and not folder.is_dir():
        return f"{folder} is gone"
    place = next(each for each in (folder, *folder.parents) if each.is_dir())
    seen = why_unusable(place)
    if seen is not None:
        return seen
    try:
        with tempfile.TemporaryFile(dir=place) as tried:
            tried.write(b"flagstream")
            tried.flush()
            os.fsync(tried.fileno())
    except OSError as fault:
        if not is_of_the_disk(fault):
            raise
        return f"{place}: {fault.strerror}"
    return None


def why_unusable(folder: Path, size: int = 0) -> str | None:
    """Say why nothing could be stored below a folder, as far as that shows without writing.

    Args:
        folder: is there.
        size: bytes that are to be stored, and leave what an agent needs.
    """
    try:
        seen = os.statvfs(folder)
    except OSError as fault:
        return f"{folder}: {fault.strerror}" if is_of_the_disk(fault) else None
    if seen.f_flag & os.ST_RDONLY:
        return f"{folder}: mounted read-only"
    free = seen.f_bavail * seen.f_frsize
    if free - size < _LEAST_FREE_BYTES:
        return f"{folder}: {free >> 20} MiB free, {(size + _LEAST_FREE_BYTES) >> 20} MiB needed"
    return None


def _last_words(fault: BaseException) -> str:
    """Return the cause alone: Delta's library draws the way to it as a tree, in colours."""
    lines = [line.replace("\N{ESCAPE}[31m↳\N{ESCAPE}[0m", "").strip() for line in str(fault).splitlines()]
    return [line for line in lines if line][-1]
