"""Whole folders in an object store, which has no rename: the manifest makes one of its objects.

The manifest of folder `NAME` is the object `NAME.json`, written last and by create; without it there is no
such folder. It says under which prefix the files lie, one that no other attempt has written to, and how large
each is. Whoever drops a folder removes its manifest first.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import obstore
from obstore.store import ObjectStore

from schemas.errors import ConfigurationError
from streaming.store.client import client_of, key_of, name_in, store_faults
from streaming.store.downloads import AT_ONCE, PART_BYTES, download
from streaming.store.inner_folders import FoldersOfAnother
from streaming.store.object_files import ObjectFiles, delete_objects
from streaming.store.place import Place
from streaming.store.spool import spooled

_FORMAT = 1
_SPOOLED = "flagstream-folder-"
_SUFFIX = ".json"
_ATTEMPT = "."  # stands between the name of a folder and what tells one attempt at it from others


@dataclass(frozen=True)
class _FolderManifest:
    """What makes a folder of objects.

    Attributes:
        prefix: last part of the name that all of them have.
        files: path below the prefix → bytes.
    """

    prefix: str
    files: dict[str, int]

    def to_json(self) -> bytes:
        return json.dumps({"format": _FORMAT, "prefix": self.prefix, "files": self.files}, indent=1).encode()

    @classmethod
    def parse(cls, content: bytes, where: Place) -> _FolderManifest:
        noted: dict[str, Any] = json.loads(content)
        if noted["format"] != _FORMAT:
            raise ConfigurationError(f"format {noted['format']} is not {_FORMAT}", where=str(where))
        return cls(noted["prefix"], noted["files"])


@dataclass(frozen=True)
class ObjectFolders:
    """Folders under a prefix of a store; see streaming.store.folders.Folders.

    Args:
        place: the prefix.
        spool: a folder of this machine, where they are filled and read; by default this process's.
    """

    place: Place
    spool: Path | None = field(default=None, compare=False)

    def holds(self, name: str) -> bool:
        """See Folders.holds."""
        return self._files.read(f"{name}{_SUFFIX}") is not None

    def names(self) -> list[str]:
        """See Folders.names."""
        return [name.removesuffix(_SUFFIX) for name in self._files.names() if name.endswith(_SUFFIX)]

    @contextmanager
    def writing(self, name: str, *, replace: bool = False) -> Iterator[Path]:
        """See Folders.writing."""
        with spooled(_SPOOLED, self.spool) as folder:
            yield folder
            manifest = self._uploaded(name, folder)
            if replace:
                self._replace(name, manifest)
            elif self._files.create(f"{name}{_SUFFIX}", manifest.to_json()) is None:
                self._remove(manifest.prefix)
                raise FileExistsError(f"{self.place / name} is there already")

    @contextmanager
    def reading(self, name: str, part: str = "") -> Iterator[Path]:
        """See Folders.reading."""
        manifest = self._manifest(name)
        wanted = {file: size for file, size in manifest.files.items() if _is_in(file, part)}
        if not wanted:
            raise FileNotFoundError(f"{self.place / name} holds no {part or 'file'}")
        with spooled(_SPOOLED, self.spool) as folder:
            for file, size in wanted.items():
                download(self.place / manifest.prefix / file, size, folder / file)
            yield folder / part

    def read(self, name: str, file: str) -> bytes:
        """See Folders.read."""
        found = self._files.read(f"{self._manifest(name).prefix}/{file}")
        if found is None:
            raise FileNotFoundError(f"{self.place / name / file} is missing")
        return found.content

    def place_of(self, name: str) -> Place:
        """See Folders.place_of."""
        return self.place / self._manifest(name).prefix

    def below(self, name: str) -> ObjectFolders:
        """See Folders.below."""
        return ObjectFolders(self.place / name, self.spool)

    def parts(self) -> list[str]:
        """See Folders.parts."""
        return [each for each in self._prefixes() if not each.count(_ATTEMPT)]

    def within(self, name: str, part: str) -> FoldersOfAnother:
        """See Folders.within."""
        return FoldersOfAnother(self, name, part)

    def files(self, name: str) -> list[str]:
        """Return the paths of the files of a folder, relative to it.

        Raises:
            FileNotFoundError: there is none.
        """
        return list(self._manifest(name).files)

    def drop(self, name: str) -> None:
        """See Folders.drop."""
        with suppress(FileNotFoundError):
            manifest = self._manifest(name)
            self._files.remove(f"{name}{_SUFFIX}")
            self._remove(manifest.prefix)

    def drop_all(self) -> None:
        """See Folders.drop_all."""
        for name in self.names():
            self._files.remove(f"{name}{_SUFFIX}")
        self._remove("")

    def tidy(self) -> None:
        """See Folders.tidy."""
        found, there = self._prefixes(), self.names()
        kept = {self._manifest(name).prefix for name in there}
        for prefix in found:
            if prefix.count(_ATTEMPT) and prefix not in kept:
                self._remove(prefix)

    def _replace(self, name: str, manifest: _FolderManifest) -> None:
        """Put a manifest in place of another: of the two folders one is there, whenever the process ends."""
        file = f"{name}{_SUFFIX}"
        while True:
            there = self._files.read(file)
            if there is None:
                written = self._files.create(file, manifest.to_json())
            else:
                written = self._files.replace(file, manifest.to_json(), there)
            if written is not None:
                break
        if there is not None:
            self._remove(_FolderManifest.parse(there.content, self.place / name).prefix)

    def _prefixes(self) -> list[str]:
        with store_faults(self.place):
            found = obstore.list_with_delimiter(self._client, key_of(self.place))["common_prefixes"]
        return sorted(name_in(self.place, each) for each in found)

    @property
    def _files(self) -> ObjectFiles:
        return ObjectFiles(self.place)

    @property
    def _client(self) -> ObjectStore:
        return client_of(self.place)

    def _manifest(self, name: str) -> _FolderManifest:
        found = self._files.read(f"{name}{_SUFFIX}")
        if found is None:
            raise FileNotFoundError(f"{self.place / name} is not there")
        return _FolderManifest.parse(found.content, self.place / name)

    def _uploaded(self, name: str, folder: Path) -> _FolderManifest:
        prefix = f"{name}{_ATTEMPT}{uuid.uuid4().hex}"
        files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}

        def upload(file: str) -> int:
            size = files[file].stat().st_size
            with store_faults(self.place):
                obstore.put(
                    self._client,
                    key_of(self.place / prefix / file),
                    files[file],
                    chunk_size=PART_BYTES,
                    max_concurrency=AT_ONCE,
                )
            return size

        # No worker: the folder waits for all its files and raises what they raised.
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return _FolderManifest(prefix, dict(zip(files, pool.map(upload, files), strict=True)))

    def _remove(self, prefix: str) -> None:
        below = key_of(self.place / prefix) if prefix else key_of(self.place)
        with store_faults(self.place):
            for found in obstore.list(self._client, below, chunk_size=1000):
                delete_objects(self._client, [each["path"] for each in found])


def _is_in(file: str, part: str) -> bool:
    return not part or file == part or file.startswith(f"{part}/")
