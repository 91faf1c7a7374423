"""Files as they lie on a disk: of which kind, how compressed, and which of a folder's belong to it."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Literal, cast
from urllib.parse import unquote

import pyarrow as pa

from schemas.errors import ConfigurationError
from streaming.delta.log_files import LOG
from streaming.delta.remote_log import is_in_store
from streaming.store.endpoints import check_endpoints
from streaming.store.options import options_of
from streaming.store.place import SCHEMES, Place

Kind = Literal["csv", "json", "parquet"]

ENDINGS: Mapping[str, Kind] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".psv": "csv",
    ".txt": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}
_COMPRESSED = (".gz", ".gzip", ".zst", ".zstd", ".bz2")
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
_URI = re.compile(r"(?:^|/)[A-Za-z][A-Za-z0-9+.-]+:/")
_IN_STORE = re.compile(rf"(?:^|/)({'|'.join(SCHEMES)}):/+(.+)$")
_OF_THIS_MACHINE = re.compile(r"(?:^|/)file:/+(.+)$")
_LOGIN = re.compile(r"(?<=:/).*:.*@")
_FROM_FOLDERS = (
    "of a store Delta tables alone are read, and there is none; files are read from folders of this machine: "
    "copy it here, or mount its store"
)
_HIDDEN = ("_", ".")
_DELETED_ROWS = "deletion_vector_"
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_FOREIGN_LOGS = {".hoodie": "Hudi", "metadata/version-hint.text": "Iceberg"}


@dataclass(frozen=True)
class DataFile:
    """One file of rows.

    Attributes:
        path: where it lies.
        kind: how it is read.
        partition: columns that its folders' names give to all its rows, as `day=2026-11-28` does.
    """

    path: Path
    kind: Kind
    partition: Mapping[str, str | None] = field(default_factory=dict)

    def completed(self, rows: pa.RecordBatch | pa.Table) -> pa.RecordBatch | pa.Table:
        """Return rows with the columns of the partition, as text."""
        for name, value in self.partition.items():
            if name not in rows.schema.names:
                column = pa.repeat(pa.scalar(value, pa.string()), rows.num_rows)
                rows = rows.append_column(name, column)
        return rows


def source_place(path: Path) -> Place:
    """Return where a source lies: what is given as a path may be a URI of a store.

    A path has one slash where a URI has two, and may have got the folder of a spec before it.

    Raises:
        ConfigurationError: the URI is none of a store that is supported, or names what lies on this machine.
    """
    found = _IN_STORE.search(str(path))
    if found is None:
        _check_is_path(path)
        return Place.local(path)
    place = Place.parse(f"{found[1]}://{found[2]}", _without_login(path))
    check_endpoints(place, os.environ)
    return replace(place, options=options_of(os.environ))


def _check_is_path(path: Path) -> None:
    found = _OF_THIS_MACHINE.search(str(path))
    if found is not None and not path.exists():
        problem = f"what lies on this machine is named by its path, not by a URI: /{found[1]}"
        raise ConfigurationError(problem, where=str(path))


def _without_login(path: Path) -> str:
    """Return a URI as it may be shown: whoever put a login or a signed query into it finds it by the rest."""
    return _LOGIN.sub("…@", str(path).partition("?")[0])


def is_delta(path: Path) -> bool:
    """Return whether there is a Delta table.

    Raises:
        ConfigurationError: the store that a URI names is not supported, or does not admit this process.
        RetryableError: it is away.
    """
    place = source_place(path)
    return (place.path / LOG).is_dir() if place.is_local else is_in_store(place / LOG)


def data_files(path: Path) -> list[DataFile]:
    """Return a file, or the files of a folder as Spark writes it, by ascending path.

    Names that begin with `_` or `.`, such as `_SUCCESS`, and empty files of a folder are passed over.

    Raises:
        ConfigurationError: there is none, an ending is unknown, a folder holds several kinds, or a log says
            elsewhere which of the files count.
    """
    _check_is_path(path)
    if _URI.search(str(path)) is not None and not path.exists():
        raise ConfigurationError(_FROM_FOLDERS, where=_without_login(path))
    _check_no_log_above(path)
    if path.is_file():
        return [DataFile(path, kind_of(path))]
    if not path.is_dir():
        raise ConfigurationError("no such file", where=str(path))
    found = [DataFile(each, kind_of(each), _partition(path, each)) for each in _shown(path)]
    kinds = sorted({each.kind for each in found})
    if len(kinds) != 1:
        problem = (
            f"a folder with files of {' and '.join(kinds)}" if kinds else "a folder without files of data"
        )
        raise ConfigurationError(f"{problem}; expected files of one kind, or a Delta table", where=str(path))
    return found


def kind_of(path: Path) -> Kind:
    """Return how a file is read, by its ending below one of a compression.

    Raises:
        ConfigurationError: the ending is unknown; those that are not are listed.
    """
    names = [path.name.lower()]
    names += [names[0].removesuffix(each) for each in _COMPRESSED if names[0].endswith(each)]
    for ending, kind in ENDINGS.items():
        if names[-1].endswith(ending):
            return kind
    known = f"{', '.join(ENDINGS)}, each also with {', '.join(_COMPRESSED)}"
    raise ConfigurationError(f"unknown ending {path.suffix!r}; expected one of: {known}", where=str(path))


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for reading what it holds: gzip, zstd and bzip2 are recognised by their first bytes."""
    compression = _compression(path)
    if compression is None:
        return path.open("rb")
    stream = pa.input_stream(str(path), compression=compression)
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), 1 << 20))


def is_packed(path: Path) -> bool:
    """Return whether a file's first bytes are those of gzip, zstd or bzip2."""
    return _compression(path) is not None


def _compression(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(4)
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def _check_no_log_above(path: Path) -> None:
    """A table's files hold rows that were deleted, and lack what its log alone knows."""
    for folder in path.absolute().parents:
        if is_delta(folder):
            problem = f"it lies in the Delta table {folder}, whose log says what counts: give the table"
            raise ConfigurationError(problem, where=str(path))


def _check_no_table(folder: Path) -> None:
    if is_delta(folder):
        raise ConfigurationError(
            "a Delta table within a folder of files: give it by itself", where=str(folder)
        )
    for name, maker in _FOREIGN_LOGS.items():
        if (folder / name).exists():
            problem = f"a table of {maker}, which is not read: copy what you need into Parquet or Delta"
            raise ConfigurationError(problem, where=str(folder))


def _shown(folder: Path) -> Iterator[Path]:
    _check_no_table(folder)
    for each in sorted(folder.iterdir()):
        if each.name.startswith(_DELETED_ROWS):
            raise ConfigurationError(
                f"deletion vectors of a Delta table without its folder {LOG}: copy that along",
                where=str(each),
            )
        if each.name.startswith(_HIDDEN):
            continue
        if each.is_dir():
            yield from _shown(each)
        elif each.stat().st_size:
            yield each


def _partition(folder: Path, file: Path) -> dict[str, str | None]:
    steps = (step.partition("=") for step in file.relative_to(folder).parts[:-1] if "=" in step)
    return {unquote(name): None if value == _NO_VALUE else unquote(value) for name, _, value in steps}
