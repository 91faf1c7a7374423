"""Commits are made in a folder of this machine first, wherever that lies, and lose nothing on their way."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import obstore
import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable
from obstore.store import MemoryStore

from schemas.errors import DiskError
from streaming.delta import commit_target, staged
from streaming.delta.forgetting import forget_versions
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.shared_table import SharedTable
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
        assert commits.prepared(table, number, rows, CommitProperties())().version == 1 + number
    names = [each["path"] for chunk in obstore.list(store) for each in chunk]
    assert sum(name.endswith(".parquet") for name in names) == 3
    assert [name for name in sorted(names) if name.endswith(".json")] == [
        f"table/_delta_log/{1 + number:020d}.json" for number in range(3)
    ]
    kept = list((tmp_path / home).rglob("*.parquet"))
    assert kept == []


def test_nothing_of_what_was_committed_stays_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics quote rows, and an erasure looks into no process."""
    monkeypatch.setattr(spool._SPOOL, "root", tmp_path / "spool")
    names = pa.schema([("name", pa.string())])
    table = SharedTable(Place.local(tmp_path / "rows"), names, timedelta(days=1))
    for number in range(staged._MADE_ANEW_AFTER + 2):
        row = pa.table({"name": [f"anna-{number}"]}, names)
        assert table.by_turns(lambda row=row, number=number: table.append(row, Stamp("a", number)))
    kept = [file for file in (tmp_path / "spool").rglob("*") if file.is_file()]
    assert any(file.suffix == ".json" for file in kept)
    assert [file for file in kept if b"anna" in file.read_bytes()] == []
    assert table.count() == staged._MADE_ANEW_AFTER + 2


def _rows(number: int) -> pa.Table:
    return pa.table({"number": [number]}, SCHEMA)


def test_no_commit_takes_a_number_that_is_free_since_the_log_was_shortened(tmp_path: Path) -> None:
    """An erasure removes entries that a writer beside it has not read yet: its own would be lost there."""
    place = Place.local(tmp_path / "rows")
    ours = SharedTable(place, SCHEMA, timedelta(days=1))
    other = LakeTable(place, SCHEMA, "other/epoch", timedelta(days=1))
    turns = list[int]()

    def meanwhile() -> None:
        for batch in range(2) if len(turns) == 1 else ():
            other.append(_rows(batch), Stamp("other", batch))
        forget_versions(place, shared=True)

    def attempt() -> bool:
        turns.append(ours.version)
        return ours.append(_rows(9), Stamp("ours", 0), after=[meanwhile])

    assert ours.by_turns(attempt)
    assert turns == [0, 2]
    assert sorted(DeltaTable(place.uri).to_pyarrow_table()["number"].to_pylist()) == [0, 1, 9]


@pytest.mark.parametrize("step", ["write_bytes", "link"])
def test_what_is_on_its_way_into_a_log_does_not_stay_where_the_disk_is_full(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics in it quote the rows, and nobody would look for it."""
    table = SharedTable(Place.local(tmp_path / "rows"), SCHEMA, timedelta(days=1))

    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    def written(path: Path, content: bytes) -> NoReturn:
        path.write_text(content.decode()[:9])
        full()

    target, broken = (Path, written) if step == "write_bytes" else (os, full)
    monkeypatch.setattr(target, step, broken)
    with pytest.raises(DiskError):
        table.append(_rows(1), Stamp("ours", 0))
    assert [each.name for each in (tmp_path / "rows" / "_delta_log").iterdir()] == [f"{0:020d}.json"]
