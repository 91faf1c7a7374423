"""Which features of Delta are read, and how a table is refused that needs another one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from schemas.documents import clipped
from schemas.errors import ConfigurationError
from streaming.delta.log_files import LOG

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


def check_features(path: Path, table: DeltaTable) -> None:
    """Refuse a table that only a reader with a feature of another name understands.

    Features that writers alone must know stop no reader.

    Raises:
        ConfigurationError: naming the feature, and what to do.
    """
    protocol = table.protocol()
    _check(path, protocol.min_reader_version, protocol.reader_features or ())


def explain_refusal(path: Path, version: int | None) -> None:
    """Say which feature keeps the library from opening a table, if that is the reason.

    Raises:
        ConfigurationError: it is.
    """
    protocol = _newest_protocol(path / LOG, version)
    least, named = protocol.get("minReaderVersion"), protocol.get("readerFeatures")
    features = [each for each in named if isinstance(each, str)] if isinstance(named, list) else []
    _check(path, least if isinstance(least, int) else 0, features)


def _check(path: Path, least: int, features: Iterable[str]) -> None:
    if least > _NEWEST_READER:
        raise ConfigurationError(
            f"the table needs a reader of version {least} of Delta's protocol, and version {_NEWEST_READER} "
            "is the newest that is read: copy what you need into a table of an older version",
            where=str(path),
        )
    unknown = sorted(set(features) - READ)
    if unknown:
        name = clipped(unknown[0])
        raise ConfigurationError(
            f"the table has the feature {name!r}, which is not read: copy what you need into a table without "
            f"it (CREATE TABLE ... AS SELECT), or take it away (ALTER TABLE ... DROP FEATURE `{name}`)",
            where=str(path),
        )


def apart_error(path: Path, features: Iterable[str]) -> ConfigurationError | None:
    """Return what is wrong where deletion vectors stand beside a feature that they are not read with."""
    beside = sorted(set(features) & set(APART))
    if not beside:
        return None
    return ConfigurationError(
        f"the table has the features {DELETION_VECTORS!r} and {beside[0]!r}, which are read each alone but "
        "not together: rewrite it without deletion vectors (REORG TABLE ... APPLY (PURGE), then "
        f"ALTER TABLE ... DROP FEATURE {DELETION_VECTORS}), or copy it",
        where=str(path),
    )


def _newest_protocol(log: Path, version: int | None) -> Mapping[str, Any]:
    names = [each for each in log.iterdir() if each.name[:20].isdigit()] if log.is_dir() else []
    known = [each for each in names if version is None or int(each.name[:20]) <= version]
    for entry in sorted(known, key=lambda each: each.name, reverse=True):
        with suppress(OSError, ValueError, pa.ArrowException):
            found = [each for each in _protocols(entry) if isinstance(each, dict)]
            if found:
                return found[-1]
    return {}


def _protocols(entry: Path) -> list[Any]:
    if entry.suffix == ".parquet":
        if "protocol" not in pq.read_schema(entry).names:
            return []
        protocols: list[Any] = pq.read_table(entry, columns=["protocol"])["protocol"].drop_null().to_pylist()
        return protocols
    if entry.suffix != ".json":
        return []
    actions = [json.loads(line) for line in entry.read_bytes().splitlines()]
    return [each["protocol"] for each in actions if isinstance(each, dict) and "protocol" in each]
