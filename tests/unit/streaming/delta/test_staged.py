"""Commits to a store are made in a folder of this machine first, wherever that lies."""

from __future__ import annotations

from pathlib import Path

import obstore
import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable
from obstore.store import MemoryStore

from streaming.delta import commit_target, staged
from streaming.delta.staged import StagedCommits
from streaming.store import spool
from streaming.store.place import Place

SCHEMA = pa.schema([("number", pa.int64())])
TABLE = Place("s3://bucket/table")


@pytest.mark.parametrize("home", ["home", "my home", "Jürgens Käse"])
def test_a_spool_of_any_name_serves(home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    monkeypatch.setattr(commit_target, "client_of", lambda _: store)
    monkeypatch.setattr(staged, "_MADE_ANEW_AFTER", 2)
    monkeypatch.setattr(spool._SPOOL, "root", tmp_path / home)
    table = DeltaTable.create(tmp_path / "table", schema=SCHEMA)
    commits = StagedCommits(TABLE)
    for number in range(3):
        rows = pa.table({"number": [number]}, SCHEMA)
        assert commits.uploaded(table, number, rows, CommitProperties())().version == 1 + number
    names = [each["path"] for chunk in obstore.list(store) for each in chunk]
    assert sum(name.endswith(".parquet") for name in names) == 3
    assert [name for name in sorted(names) if name.endswith(".json")] == [
        f"table/_delta_log/{1 + number:020d}.json" for number in range(3)
    ]
    kept = list((tmp_path / home).rglob("*.parquet"))
    assert kept == []
