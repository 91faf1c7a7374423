"""Named snapshots: deep copies of a span of history that maintenance cannot remove.

A snapshot is the folder `snapshots/NAME` below the lake: Delta tables named as in the spec, profiles as they
stood where the span begins, and a manifest with the size and SHA-256 of every file. It is written beside and
renamed into place, so one that is there is whole.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from schemas.documents import parse_json, read_text
from schemas.errors import ConfigurationError, DataLossError, nearest
from schemas.loading import Document, parse_document
from schemas.spec import AgentSpec
from streaming.delta.stored import open_version
from streaming.history.decided import DecidedHistory, Span, Tables
from streaming.home.whole_files import sync_path

MANIFEST = "manifest.json"
PROFILES = "profiles"
_FORMAT = 1
_MOST_BYTES = 1 << 26  # it names every file
_UNFINISHED = ".unfinished-"
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


@dataclass(frozen=True)
class Snapshot:
    """One snapshot that is in place.

    Attributes:
        span: the transactions that can be replayed from it.
        rows: rows by table; those before the span are what labels within it are about.
        versions: of the tables that it was copied from, by table.
        files: path below the folder → size in bytes and SHA-256.
    """

    path: Path
    span: Span
    rows: Mapping[str, int]
    versions: Mapping[str, int]
    files: Mapping[str, tuple[int, str]]
    created_at: datetime

    @property
    def name(self) -> str:
        """What it is called."""
        return self.path.name

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
            file = self.path / name
            if not file.is_file() or _size_and_sha256(file) != noted:
                raise DataLossError(f"snapshot {self.name!r} is damaged: {file} is not what was written")


class SnapshotHistory(DecidedHistory):
    """What was decided over the span of a snapshot, read from its copies alone."""

    def __init__(self, snapshot: Snapshot, spec: AgentSpec) -> None:
        super().__init__(snapshot.path, spec)
        self._span = snapshot.span
        self.profiles = snapshot.path / PROFILES

    @property
    def whole(self) -> Span:
        """The snapshot's span."""
        return self._span

    def tables(self, span: Span) -> Tables:
        """Open the copies.

        Raises:
            ConfigurationError: they cannot be read.
        """
        paths = (self.reader.path("transactions"), self.reader.path("alerts"))
        found = [table for path in paths if (table := open_version(path)) is not None]
        if len(found) != len(paths):
            raise ConfigurationError(f"{span} cannot be read from the snapshot", where=str(self.lake))
        return Tables(*found)


def snapshots(folder: Path) -> list[Snapshot]:
    """Return the snapshots below a folder, by name."""
    return [_read(path) for path in sorted(folder.glob(f"[!.]*/{MANIFEST}"))]


def find_snapshot(folder: Path, name: str) -> Snapshot:
    """Return the snapshot of a name.

    Raises:
        ConfigurationError: there is none, with the nearest name.
    """
    return _read(_manifest(folder, name))


def drop_snapshot(folder: Path, name: str) -> None:
    """Remove a snapshot, readable or not; half-way it no longer counts as one.

    Raises:
        ConfigurationError: there is none of this name.
    """
    present = _manifest(folder, name).parent
    leaving = folder / f"{_UNFINISHED}{name}"
    _remove(leaving)
    present.rename(leaving)
    _remove(leaving)


@contextmanager
def new_snapshot(folder: Path, name: str) -> Iterator[Path]:
    """Yield a folder to fill; `seal` it inside, and it is renamed into place at the end.

    Raises:
        ConfigurationError: the name cannot be used, or is taken.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"expected up to 64 letters, digits, dots, dashes and underscores, got {name!r}", where="NAME"
        )
    if (folder / name).exists():
        raise ConfigurationError(f"there is a snapshot {name!r} already: drop it first", where="NAME")
    unfinished = folder / f"{_UNFINISHED}{name}"
    _remove(unfinished)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        unfinished.rename(folder / name)
        sync_path(folder)
    finally:
        _remove(unfinished)


def seal(folder: Path, span: Span, rows: Mapping[str, int], versions: Mapping[str, int]) -> None:
    """Write the manifest of a filled folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "format": _FORMAT,
        "created_at": datetime.now(UTC).isoformat(),
        "span": list(span),
        "rows": dict(rows),
        "versions": dict(versions),
        "files": {str(path.relative_to(folder)): _size_and_sha256(path) for path in files},
    }
    for path in files:
        sync_path(path)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    sync_path(folder / MANIFEST)
    sync_path(folder)


def _manifest(folder: Path, name: str) -> Path:
    known = {path.parent.name: path for path in folder.glob(f"[!.]*/{MANIFEST}")}
    if name not in known:
        raise ConfigurationError(f"no snapshot {name!r}; {nearest(name, known) or 'there are none'}")
    return known[name]


def _read(manifest: Path) -> Snapshot:
    where = str(manifest)
    content = parse_json(read_text(manifest, _MOST_BYTES), where=where)
    if isinstance(content, dict) and content.get("format") != _FORMAT:
        raise ConfigurationError(
            f"cannot be read: format {content.get('format')} is not {_FORMAT}", where=where
        )
    noted = parse_document(content, _Manifest, where=where)
    return Snapshot(
        path=manifest.parent,
        span=Span(*noted.span),
        rows=noted.rows,
        versions=noted.versions,
        files=noted.files,
        created_at=noted.created_at,
    )


def _size_and_sha256(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
