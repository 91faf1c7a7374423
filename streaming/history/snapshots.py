"""Named snapshots: deep copies of a span of history that maintenance cannot remove.

A snapshot is the folder `NAME` among the lake's `snapshots`: Delta tables named as in the spec, profiles as
they stood where the span begins, and a manifest with the size and SHA-256 of every file. It is there whole or
not at all, see streaming.store.folders.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from schemas.documents import parse_json, read_text
from schemas.errors import ConfigurationError, DataLossError, nearest
from schemas.loading import Document, parse_document
from schemas.spec import AgentSpec
from streaming.delta.lake_reader import AgentLake
from streaming.history.decided import DecidedHistory
from streaming.history.spans import Span, Tables
from streaming.store.folders import ARTEFACTS, Folders
from streaming.store.place import Place

MANIFEST = "manifest.json"
PROFILES = "profiles"
_FORMAT = 1
_MOST_BYTES = 1 << 26  # it names every file
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class _Manifest(Document):
    """A manifest."""

    model_config = ConfigDict(extra="ignore")

    format: int
    span: tuple[int, int]
    rows: dict[str, int]
    versions: dict[str, int]
    files: dict[str, tuple[int, str]]
    created_at: datetime
    made_on: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """One snapshot that is in place.

    Attributes:
        folders: the snapshots that it is one of.
        name: what it is called.
        span: the transactions that can be replayed from it.
        rows: rows by table; those before the span are what labels within it are about.
        versions: of the tables that it was copied from, by table.
        files: path below the folder → size in bytes and SHA-256.
        made_on: fingerprint of the machine that has computed its profiles, None where that was not noted.
    """

    folders: Folders
    name: str
    span: Span
    rows: Mapping[str, int]
    versions: Mapping[str, int]
    files: Mapping[str, tuple[int, str]]
    created_at: datetime
    made_on: str | None = None

    @property
    def place(self) -> Place:
        """Where its tables lie."""
        return self.folders.place_of(self.name)

    def facts(self) -> dict[str, Any]:
        """Return it JSON-serialisable."""
        return {
            "name": self.name,
            "first_sequence": self.span.first,
            "next_sequence": self.span.end,
            "rows": dict(self.rows),
            "versions": dict(self.versions),
            "bytes": sum(size for size, _ in self.files.values()),
            "created_at": self.created_at.isoformat(),
        }

    def check(self) -> None:
        """Read every file again.

        Raises:
            DataLossError: one is missing, or differs from what was written.
        """
        for name, noted in self.files.items():
            try:
                with self.folders.reading(self.name, name) as file:
                    sound = _size_and_sha256(file) == noted
            except FileNotFoundError:
                sound = False
            if not sound:
                raise DataLossError(
                    f"snapshot {self.name!r} is damaged: {self.place / name} is not what was written"
                )


class SnapshotHistory(DecidedHistory):
    """What was decided over the span of a snapshot, read from its copies alone."""

    def __init__(self, snapshot: Snapshot, spec: AgentSpec) -> None:
        super().__init__(AgentLake(snapshot.place, spec))
        self._span, self._snapshot = snapshot.span, snapshot
        self.profiles = snapshot.folders.within(snapshot.name, PROFILES)

    def artefacts(self, spool: Path) -> Folders:  # noqa: ARG002 -- that of the snapshots
        """Return the copies of the trained models."""
        return self._snapshot.folders.within(self._snapshot.name, ARTEFACTS)

    @property
    def whole(self) -> Span:
        """The snapshot's span."""
        return self._span

    def elsewhere_from(self, here: str) -> int | None:
        """See DecidedHistory; the state before the span is from the machine that made the snapshot."""
        if self._snapshot.made_on not in (None, here):
            return self._span.first
        return super().elsewhere_from(here)

    def tables(self, span: Span) -> Tables:
        """Open the copies.

        Raises:
            ConfigurationError: they cannot be read.
        """
        transactions, alerts = self.reader.at("transactions"), self.reader.at("alerts")
        if transactions is None or alerts is None:
            raise ConfigurationError(f"{span} cannot be read from the snapshot", where=str(self.lake))
        return Tables(transactions, alerts)


def snapshots(folders: Folders) -> list[Snapshot]:
    """Return the snapshots that are there, by name."""
    return [_read(folders, name) for name in _names(folders)]


def find_snapshot(folders: Folders, name: str) -> Snapshot:
    """Return the snapshot of a name.

    Raises:
        ConfigurationError: there is none, with the nearest name.
    """
    return _read(folders, _known(folders, name))


def drop_snapshot(folders: Folders, name: str) -> None:
    """Remove a snapshot, readable or not; half-way it no longer counts as one.

    Raises:
        ConfigurationError: there is none of this name.
    """
    folders.drop(_known(folders, name))


@contextmanager
def new_snapshot(folders: Folders, name: str) -> Iterator[Path]:
    """Yield a folder to fill; `seal` it inside, and it is a snapshot at the end.

    Raises:
        ConfigurationError: the name cannot be used, or is taken.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"expected up to 64 letters, digits, dots, dashes and underscores, got {name!r}", where="NAME"
        )
    if folders.holds(name):
        raise _taken(name)
    try:
        with folders.writing(name) as unfinished:
            yield unfinished
    except FileExistsError:
        raise _taken(name) from None


@contextmanager
def remade_snapshot(snapshot: Snapshot) -> Iterator[Path]:
    """Yield a copy of a snapshot to change; it is sealed, and takes the snapshot's place, at the end.

    Raises:
        DataLossError: the snapshot is damaged.
    """
    snapshot.check()
    folders, name = snapshot.folders, snapshot.name
    with folders.writing(name, replace=True) as made:
        with folders.reading(name) as held:
            shutil.copytree(held, made, dirs_exist_ok=True)
        yield made
        (made / MANIFEST).unlink()
        seal(made, snapshot.span, snapshot.rows, snapshot.versions, snapshot.made_on, snapshot.created_at)


def seal(
    folder: Path,
    span: Span,
    rows: Mapping[str, int],
    versions: Mapping[str, int],
    made_on: str | None,
    created_at: datetime | None = None,
) -> None:
    """Write the manifest of a filled folder.

    Args:
        made_on: see Snapshot.
        created_at: now unless given.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "format": _FORMAT,
        "created_at": (created_at or datetime.now(UTC)).isoformat(),
        "span": list(span),
        "rows": dict(rows),
        "versions": dict(versions),
        "made_on": made_on,
        "files": {str(path.relative_to(folder)): _size_and_sha256(path) for path in files},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _taken(name: str) -> ConfigurationError:
    return ConfigurationError(f"there is a snapshot {name!r} already: drop it first", where="NAME")


def _names(folders: Folders) -> list[str]:
    """Return the names of the folders that have a manifest."""
    found = []
    for name in folders.names():
        with suppress(FileNotFoundError), folders.reading(name, MANIFEST) as manifest:
            found += [name] if manifest.is_file() else []
    return found


def _known(folders: Folders, name: str) -> str:
    known = _names(folders)
    if name not in known:
        raise ConfigurationError(f"no snapshot {name!r}; {nearest(name, known) or 'there are none'}")
    return name


def _read(folders: Folders, name: str) -> Snapshot:
    where = str(folders.place / name / MANIFEST)
    with folders.reading(name, MANIFEST) as manifest:
        content = parse_json(read_text(manifest, _MOST_BYTES), where=where)
    if isinstance(content, dict) and content.get("format") != _FORMAT:
        raise ConfigurationError(
            f"cannot be read: format {content.get('format')} is not {_FORMAT}", where=where
        )
    noted = parse_document(content, _Manifest, where=where)
    return Snapshot(
        folders=folders,
        name=name,
        span=Span(*noted.span),
        rows=noted.rows,
        versions=noted.versions,
        files=noted.files,
        created_at=noted.created_at,
        made_on=noted.made_on,
    )


def _size_and_sha256(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
