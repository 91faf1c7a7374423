"""What a handle has learnt of a version it need not ask for again, and forgets with the next version."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.delta.handles import Handle
from streaming.delta.lake import LakeTable, Stamp
from streaming.store.place import Place

ROWS = pa.table({"number": pa.array([1], pa.int64())})
APPS = ("a", "b")


def lake_table(folder: Path) -> LakeTable:
    found = LakeTable(Place.local(folder), ROWS.schema, "fence", timedelta(days=1))
    found.claim(found.epoch + 1)
    return found


@settings(max_examples=5)
@given(st.lists(st.tuples(st.sampled_from(APPS), st.booleans()), min_size=1, max_size=6))
def test_it_never_answers_from_before_a_commit_that_it_has_seen(
    tmp_path_factory: pytest.TempPathFactory, commits: list[tuple[str, bool]]
) -> None:
    table = lake_table(tmp_path_factory.mktemp("table") / "rows")
    reader, committed = Handle(DeltaTable(table.place.uri)), dict[str, int]()
    seen = dict(committed)
    for batch, (app, looks) in enumerate(commits):
        assert table.append(ROWS, Stamp(app, batch))
        committed[app] = batch
        if looks:
            reader.table().update_incremental()
            seen = dict(committed)
        assert {each: table.last_batch(each) for each in APPS} == {a: committed.get(a, -1) for a in APPS}
        assert [reader.transaction(each) for each in APPS] == [seen.get(each) for each in APPS]


def test_a_log_is_read_once_for_an_application_and_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, asked = lake_table(tmp_path / "rows"), list[str]()
    real = DeltaTable.transaction_version

    def counted(self: DeltaTable, app_id: str) -> int | None:
        asked.append(app_id)
        return real(self, app_id)

    monkeypatch.setattr(DeltaTable, "transaction_version", counted)
    for batch in range(3):
        assert [table.last_batch("a") for _ in range(5)] == [batch - 1] * 5
        assert table.append(ROWS, Stamp("a", batch))
    assert asked.count("a") == 3


def test_files_are_those_of_the_version_and_made_once_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, made = lake_table(tmp_path / "rows"), list[int]()
    real = DeltaTable.get_add_actions

    def counted(self: DeltaTable, *, flatten: bool = False) -> Any:
        made.append(self.version())
        return real(self, flatten=flatten)

    monkeypatch.setattr(DeltaTable, "get_add_actions", counted)
    for batch in range(3):
        assert table.append(ROWS, Stamp("a", batch))
        assert (table.count(), len(table.ranges("number")), len(table.file_sizes())) == (batch + 1,) * 3
        assert table.maximum("number") == 1
    assert len(made) == len(set(made)) == 3
