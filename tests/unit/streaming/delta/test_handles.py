"""What a handle has learnt of a version it need not ask for again, and forgets with the next version."""

from __future__ import annotations

from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.delta import stored
from streaming.delta.handles import Handle
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.stored import open_version
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


def test_a_log_is_read_once_for_an_application_whoever_commits_through_the_handle(
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
    assert asked.count("a") == 1


def test_where_nobody_has_committed_nothing_is_opened_to_see_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, looked = lake_table(tmp_path / "rows"), list[int]()
    assert table.append(ROWS, Stamp("a", 0))
    reader = open_version(table.place)
    assert reader is not None
    real = DeltaTable.update_incremental

    def counted(self: DeltaTable) -> None:
        looked.append(self.version())
        real(self)

    monkeypatch.setattr(DeltaTable, "update_incremental", counted)
    for batch in range(1, 4):
        looked.clear()
        for _ in range(5):
            reader.refresh()
            assert reader.is_newest
            assert reader.count() == batch
        assert looked == []
        assert table.append(ROWS, Stamp("a", batch))
        assert not reader.is_newest
        reader.refresh()
        assert reader.version == table.version


def test_ranges_are_made_once_for_a_version_and_a_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, made = lake_table(tmp_path / "rows"), list[str]()
    real = stored._ranges_of

    def counted(actions: pa.Table, column: str) -> list[stored.FileRange]:
        made.append(column)
        return real(actions, column)

    monkeypatch.setattr(stored, "_ranges_of", counted)
    for batch in range(3):
        assert table.append(ROWS, Stamp("a", batch))
        for _ in range(4):
            assert (table.maximum("number"), len(table.ranges("number"))) == (1, batch + 1)
    assert made == ["number"] * 3


def test_files_go_on_from_those_of_the_version_before(
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
    of_the_table = [version for version in made if version == table.version]
    assert len(of_the_table) <= 1


KINDS = pa.schema(
    [
        ("number", pa.int64()),
        ("amount", pa.float64()),
        ("at", pa.timestamp("us", "UTC")),
        ("note", pa.string()),
        ("flag", pa.bool_()),
        ("tags", pa.list_(pa.string())),
    ]
)
SOME = st.lists(
    st.fixed_dictionaries(
        {
            "number": st.none() | st.integers(-(2**63), 2**63 - 1),
            "amount": st.none() | st.floats(),
            "at": st.none() | st.datetimes(timezones=st.just(UTC)),
            "note": st.none() | st.text(),
            "flag": st.none() | st.booleans(),
            "tags": st.none() | st.lists(st.text(max_size=3), max_size=2),
        }
    ),
    max_size=4,
)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.one_of(SOME, st.just("compacted"), st.just("read")), min_size=2, max_size=7))
def test_what_is_known_of_files_and_transactions_is_what_the_log_says(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    """Also for columns that hold nothing, and after a commit of somebody else's in between."""
    place = Place.local(tmp_path_factory.mktemp("table") / "rows")
    table = LakeTable(place, KINDS, "fence", timedelta(days=1))
    table.claim(1)
    for batch, step in enumerate(steps):
        if step == "compacted":
            DeltaTable(place.uri).optimize.compact()
        elif step == "read":
            table.count()
        else:
            table.append(pa.Table.from_pylist(step, KINDS), Stamp("a", batch))
            read, fresh = table, Handle(DeltaTable(place.uri))
            assert (read.last_batch("a"), read.epoch) == (fresh.transaction("a"), fresh.transaction("fence"))
            expected = {each["path"]: each for each in fresh.files().to_pylist()}
            found = {each["path"]: each for each in read._add_actions().to_pylist()}
            assert found.keys() == expected.keys()
            for name, want in expected.items():
                have = found[name]
                assert have["num_records"] == want["num_records"]
                for column in ("number", "amount", "at", "note"):
                    for kind in ("min", "max", "null_count"):
                        key = f"{kind}.{column}"
                        assert repr(have.get(key)) == repr(want.get(key)), key
