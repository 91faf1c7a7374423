"""A Delta table whose log is written by hand, action by action: what other engines write, without them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_TREEMAP, _WITHOUT_RUNS = 1681511377, 12346
PLAIN: Mapping[str, Any] = {"minReaderVersion": 1, "minWriterVersion": 2}


def features(*names: str) -> dict[str, Any]:
    """Return the protocol of a table with features that readers and writers must know."""
    return {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": list(names),
        "writerFeatures": list(names),
    }


@dataclass
class HandMadeTable:
    """Writes data files and log entries below a folder; each `commit` is a version."""

    path: Path
    protocol: Mapping[str, Any] = field(default_factory=lambda: dict(PLAIN))
    configuration: Mapping[str, str] = field(default_factory=dict)
    partitions: Sequence[str] = ()
    version: int = -1

    def declare(self, fields: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the action that says what the columns are."""
        return {
            "metaData": {
                "id": "made-by-hand",
                "format": {"provider": "parquet", "options": {}},
                "schemaString": json.dumps({"type": "struct", "fields": list(fields)}),
                "partitionColumns": list(self.partitions),
                "configuration": dict(self.configuration),
                "createdTime": 0,
            }
        }

    def add(
        self, name: str, rows: pa.Table, values: Mapping[str, str | None] | None = None, **more: Any
    ) -> dict[str, Any]:
        """Write a data file, and return the action that adds it; `more` are further keys of it."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, file)
        added = {
            "path": name,
            "partitionValues": dict(values or {}),
            "size": file.stat().st_size,
            "modificationTime": 0,
            "dataChange": True,
            "stats": json.dumps({"numRecords": rows.num_rows}),
            **more,
        }
        return {"add": added}

    def commit(self, *actions: Mapping[str, Any]) -> Path:
        """Write the next version; the first begins with the protocol."""
        self.version += 1
        entry = self.path / "_delta_log" / f"{self.version:020}.json"
        entry.parent.mkdir(parents=True, exist_ok=True)
        lines = [*([{"protocol": dict(self.protocol)}] if self.version == 0 else []), *actions]
        entry.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return entry


def removed(added: Mapping[str, Any]) -> dict[str, Any]:
    """Return the action that takes an added file away."""
    gone = {key: added["add"][key] for key in ("path", "deletionVector") if key in added["add"]}
    return {"remove": {**gone, "deletionTimestamp": 0, "dataChange": True}}


def column(name: str, kind: Any, **metadata: Any) -> dict[str, Any]:
    """Return a field of a schema as the log has it."""
    return {"name": name, "type": kind, "nullable": True, "metadata": metadata}


def deletion_vector(deleted: Sequence[int]) -> dict[str, Any]:
    """Return an inline deletion vector, of rows below 65,536."""
    values = sorted(deleted)
    bitmap = struct.pack("<II", _WITHOUT_RUNS, 1) + struct.pack("<HH", 0, len(values) - 1)
    bitmap += struct.pack("<I", len(bitmap) + 4) + struct.pack(f"<{len(values)}H", *values)
    content = struct.pack("<IQI", _TREEMAP, 1, 0) + bitmap
    return {
        "storageType": "i",
        "pathOrInlineDv": _z85(content + bytes(-len(content) % 4)),
        "sizeInBytes": len(content),
        "cardinality": len(values),
    }


def _z85(content: bytes) -> str:
    text = ""
    for (number,) in struct.iter_unpack(">I", content):
        digits = [number // 85**power % 85 for power in (4, 3, 2, 1, 0)]
        text += "".join(_Z85[digit] for digit in digits)
    return text
