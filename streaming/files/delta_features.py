"""Which features of Delta are read, and how a table is refused that needs another one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from schemas.documents import clipped
from schemas.errors import ConfigurationError
from streaming.delta.log_files import version_of
from streaming.files.foreign_files import ForeignFiles
from streaming.store.place import Place

DELETION_VECTORS = "deletionVectors"
READ = frozenset(
    {
        "columnMapping",
        DELETION_VECTORS,
        "timestampNtz",
        "typeWidening",
        "typeWidening-preview",
        "v2Checkpoint",
        "vacuumProtocolCheck",
    }
)
# The library that decodes deletion vectors refuses tables with one of these.
APART = ("typeWidening", "typeWidening-preview", "vacuumProtocolCheck")
_NEWEST_READER = 3


def check_features(place: Place, table: DeltaTable) -> None:
    """Refuse a table that only a reader with a feature of another name understands.

    Features that writers alone must know stop no reader.

    Raises:
        ConfigurationError: naming the feature, and what to do.
    """
    protocol = table.protocol()
    _check(place, protocol.min_reader_version, protocol.reader_features or ())


def explain_refusal(files: ForeignFiles, version: int | None) -> None:
    """Say which feature keeps the library from opening a table, if that is the reason.

    Raises:
        ConfigurationError: it is.
    """
    protocol = _newest_protocol(files, version)
    least, named = protocol.get("minReaderVersion"), protocol.get("readerFeatures")
    features = [each for each in named if isinstance(each, str)] if isinstance(named, list) else []
    _check(files.place, least if isinstance(least, int) else 0, features)


def _check(place: Place, least: int, features: Iterable[str]) -> None:
    if least > _NEWEST_READER:
        raise ConfigurationError(
            f"the table needs a reader of version {least} of Delta's protocol, and version {_NEWEST_READER} "
            "is the newest that is read: copy what you need into a table of an older version",
            where=str(place),
        )
    unknown = sorted(set(features) - READ)
    if unknown:
        name = clipped(unknown[0])
        raise ConfigurationError(
            f"the table has the feature {name!r}, which is not read: copy what you need into a table without "
            f"it (CREATE TABLE ... AS SELECT), or take it away (ALTER TABLE ... DROP FEATURE `{name}`)",
            where=str(place),
        )


def apart_error(place: Place, features: Iterable[str]) -> ConfigurationError | None:
    """Return what is wrong where deletion vectors stand beside a feature that they are not read with."""
    beside = sorted(set(features) & set(APART))
    if not beside:
        return None
    return ConfigurationError(
        f"the table has the features {DELETION_VECTORS!r} and {beside[0]!r}, which are read each alone but "
        "not together: rewrite it without deletion vectors (REORG TABLE ... APPLY (PURGE), then "
        f"ALTER TABLE ... DROP FEATURE {DELETION_VECTORS}), or copy it",
        where=str(place),
    )


def _newest_protocol(files: ForeignFiles, version: int | None) -> Mapping[str, Any]:
    numbers = {name: number for name in files.log() if (number := version_of(name)) is not None}
    known = [name for name, number in numbers.items() if version is None or number <= version]
    for name in sorted(known, reverse=True):
        with suppress(OSError, ValueError, pa.ArrowException):
            found = [each for each in _protocols(files, name) if isinstance(each, dict)]
            if found:
                return found[-1]
    return {}


def _protocols(files: ForeignFiles, name: str) -> list[Any]:
    if name.endswith(".parquet"):
        checkpoint = pq.ParquetFile(pa.BufferReader(files.read_log(name)))
        if "protocol" not in checkpoint.schema_arrow.names:
            return []
        protocols: list[Any] = checkpoint.read(["protocol"])["protocol"].drop_null().to_pylist()
        return protocols
    if not name.endswith(".json"):
        return []
    actions = [json.loads(line) for line in files.read_log(name).splitlines()]
    return [each["protocol"] for each in actions if isinstance(each, dict) and "protocol" in each]
