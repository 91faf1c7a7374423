"""The files of a table that others wrote: its log and its data, in a folder or in an object store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

import obstore

from schemas.addresses import is_uri, scheme_of
from schemas.errors import ConfigurationError
from streaming.delta.log_files import LOG
from streaming.delta.remote_log import read_log_file
from streaming.store.client import client_of, key_of, store_faults
from streaming.store.downloads import download
from streaming.store.listing import objects_below
from streaming.store.place import Place
from streaming.store.spool import spooled

_SPOOLED = "flagstream-table-"


class ForeignFiles(Protocol):
    """The files of one table of others.

    From any call, where it lies in a store:

    Raises:
        ConfigurationError: the store does not admit this process, or there is no such bucket.
        RetryableError: the store is away or busy.
    """

    @property
    def place(self) -> Place:
        """Where the table lies."""

    def log(self) -> Mapping[str, int]:
        """Return what lies in its log: name → bytes."""

    def read_log(self, name: str) -> bytes:
        """Return a file of its log.

        Raises:
            OSError: it cannot be read.
        """

    def located(self, name: str) -> Place:
        """Return where a data file lies that the log names: relative to the table, or by a URI as in clones.

        Raises:
            ConfigurationError: it lies where this table's files are not read from.
        """

    def size(self, file: Place) -> int | None:
        """Return the bytes of a data file, None where it is missing."""

    def here(self, file: Place) -> AbstractContextManager[Path]:
        """Yield the path of a file of this machine that holds a data file.

        Raises:
            OSError: it is missing.
        """


def files_of_table(place: Place) -> ForeignFiles:
    """Return the files of a table."""
    return FilesInFolder(place) if place.is_local else FilesInBucket(place)


@dataclass(frozen=True)
class FilesInFolder:
    """See ForeignFiles."""

    place: Place

    def log(self) -> Mapping[str, int]:
        """See ForeignFiles."""
        log, found = self.place.path / LOG, dict[str, int]()
        for each in log.iterdir() if log.is_dir() else ():
            with suppress(FileNotFoundError):  # writers move entries into place, and clear old ones away
                found[each.name] = each.stat().st_size
        return found

    def read_log(self, name: str) -> bytes:
        """See ForeignFiles."""
        return (self.place.path / LOG / name).read_bytes()

    def located(self, name: str) -> Place:
        """See ForeignFiles."""
        if not is_uri(name):
            return Place.local(self.place.path / unquote(name))
        if scheme_of(name) != "file":
            problem = f"its log names {name}, and only files of this machine are read"
            raise ConfigurationError(problem, where=str(self.place))
        return Place.local(Path("/" + unquote(name.removeprefix("file:")).lstrip("/")))

    def size(self, file: Place) -> int | None:
        """See ForeignFiles."""
        with suppress(OSError, ValueError):  # a name may be none that a disk can have
            return file.path.stat().st_size
        return None

    @contextmanager
    def here(self, file: Place) -> Iterator[Path]:
        """See ForeignFiles."""
        yield file.path


@dataclass(frozen=True)
class FilesInBucket:
    """See ForeignFiles; a data file is fetched whole when it is read, one at a time."""

    place: Place

    def log(self) -> Mapping[str, int]:
        """See ForeignFiles."""
        return _sizes(self.place / LOG)

    def read_log(self, name: str) -> bytes:
        """See ForeignFiles."""
        found = read_log_file(self.place, name)
        if found is None:
            raise FileNotFoundError(f"{self.place / LOG / name} is missing")
        return found

    def located(self, name: str) -> Place:
        """See ForeignFiles."""
        if not is_uri(name):
            return self.place / unquote(name)
        if scheme_of(name) == "file":
            problem = f"its log names {name}, and of a table in a store only files in stores are read"
            raise ConfigurationError(problem, where=str(self.place))
        # What holds for a place that somebody names does not for keys, in which engines escape as they like.
        scheme, _, rest = name.partition("://")
        bucket, _, key = rest.partition("/")
        root = Place.parse(f"{scheme}://{bucket}", str(self.place))
        return Place(root.uri, self.place.options) / unquote(key)

    def size(self, file: Place) -> int | None:
        """See ForeignFiles."""
        inside = f"{self.place.uri}/"
        if file.uri.startswith(inside):
            return self._listed.get(file.uri.removeprefix(inside))
        with suppress(FileNotFoundError), store_faults(file):
            return obstore.head(client_of(file), key_of(file))["size"]
        return None

    @contextmanager
    def here(self, file: Place) -> Iterator[Path]:
        """See ForeignFiles."""
        size = self.size(file)
        if size is None:
            raise FileNotFoundError(f"{file} is missing")
        with spooled(_SPOOLED) as folder:
            path = folder / "data"
            download(file, size, path)
            yield path

    @cached_property
    def _listed(self) -> Mapping[str, int]:
        return _sizes(self.place)


def _sizes(place: Place) -> dict[str, int]:
    """Return the bytes of all objects below a place, by name relative to it."""
    return {name: each["size"] for name, each in objects_below(place)}
