"""Kept rows are those of the table, whatever was written, rewritten or left on disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from schemas.errors import DiskError
from streaming.delta import faults, kept_rows
from streaming.delta.index_files import INDEX
from streaming.delta.kept_rows import KeptLayout, KeptRows
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.maintenance import MaintenanceLimits, clear, maintain
from streaming.delta.rewriting import maintained_alone, rewrite
from streaming.delta.stored import StoredTable, open_version
from streaming.store.place import Place

PARTS = pa.list_(pa.struct([("name", pa.string()), ("weight", pa.float64())]))
SCHEMA = pa.schema([("number", pa.int64()), ("id", pa.string()), ("amount", pa.float64()), ("parts", PARTS)])
COLUMNS = ["id", "parts"]
SPAN = 16
PLAIN, BLOCKS = KeptLayout(4), KeptLayout(4, 2)
Row = tuple[str | None, list[tuple[str, float]] | None]
NAMES = st.sampled_from(["a", "b", "ü", "", "\N{GRINNING FACE}"])
PARTS_OF = st.lists(st.tuples(NAMES, st.sampled_from([0.0, -1.5, 2.0])), max_size=3)
ROWS = st.lists(st.tuples(st.none() | NAMES, st.none() | PARTS_OF), max_size=30)


@pytest.fixture(autouse=True)
def _few_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_rows, "_MOST_PARTS", 2)


def table_of(folder: Path) -> LakeTable:
    table = LakeTable(Place.local(folder / "things"), SCHEMA, "agent/epoch", timedelta(0))
    table.claim(table.epoch + 1)
    return table


def stored_as(first: int, rows: Sequence[Row]) -> pa.Table:
    listed = [
        None if parts is None else [{"name": name, "weight": weight} for name, weight in parts]
        for _, parts in rows
    ]
    columns = {
        "number": range(first, first + len(rows)),
        "id": [each for each, _ in rows],
        "amount": [1.0] * len(rows),
        "parts": listed,
    }
    return pa.table(columns, schema=SCHEMA)


def put(table: LakeTable, number: int, rows: pa.Table) -> None:
    table.append(rows, Stamp("app", number))


def reading(folder: Path) -> StoredTable:
    table = open_version(Place.local(folder / "things"))
    assert table is not None
    return table


def kept_of(folder: Path, layout: KeptLayout = PLAIN) -> KeptRows:
    return KeptRows(reading(folder), "rows", "number", COLUMNS, layout)


def copy_of(folder: Path, layout: KeptLayout = PLAIN) -> KeptRows:
    return copied(kept_of(folder, layout))


def copied(kept: KeptRows) -> KeptRows:
    """Make all of the copy, as the worker of a server does."""
    while kept.build():
        kept._table.refresh()
    return kept


def at(
    kept: KeptRows, numbers: Sequence[int], columns: Sequence[str] | None = None
) -> list[dict[str, object]]:
    return kept.at(np.array(sorted(set(numbers)), np.int64), columns).to_pylist()


def ids(kept: KeptRows, numbers: Sequence[int]) -> list[object]:
    return [each["id"] for each in at(kept, numbers)]


def spans(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "things" / INDEX / "rows").glob("*.arrow"))


@pytest.mark.long
@given(
    commits=st.lists(ROWS, min_size=1, max_size=7),
    numbers=st.lists(st.integers(-2, 220), max_size=12),
    gap=st.integers(0, 40),
    layout=st.sampled_from([PLAIN, BLOCKS]),
    columns=st.sampled_from([None, ["parts"], ["parts", "id"], []]),
    again=st.booleans(),
    tidy=st.booleans(),
    builds=st.lists(st.booleans(), min_size=7, max_size=7),
)
@examples(deadline=None, max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
def test_rows_are_those_that_reading_the_table_gives(
    tmp_path_factory: pytest.TempPathFactory,
    commits: list[list[Row]],
    numbers: list[int],
    gap: int,
    layout: KeptLayout,
    columns: list[str] | None,
    again: bool,
    tidy: bool,
    builds: list[bool],
) -> None:
    """Whether they were copied, partly or wholly, or none of them was."""
    folder = tmp_path_factory.mktemp("lake")
    table, first = table_of(folder), 0
    kept, whole = kept_of(folder, layout), SCHEMA.empty_table()
    for number, rows in enumerate(commits):
        made = stored_as(first, rows)
        put(table, number, made)
        whole, first = pa.concat_tables([whole, made]), first + len(rows) + gap
        kept = kept_of(folder, layout) if again else kept
        kept._table.refresh()
        if builds[number]:
            kept.build()
        shown = whole.select(["number", *(COLUMNS if columns is None else columns)]).to_pylist()
        assert at(kept, numbers, columns) == [each for each in shown if each["number"] in numbers]
        if tidy:
            maintain(table.place, MaintenanceLimits(2, 2, 2, timedelta(0)))
            clear(table.place, MaintenanceLimits(2, 2, 2, timedelta(0)))


def some(count: int, name: str = "c") -> pa.Table:
    return stored_as(0, [(f"{name}{number % 3}", []) for number in range(count)])


@pytest.mark.parametrize("layout", [PLAIN, BLOCKS])
def test_full_spans_are_read_from_their_files_and_made_anew_where_they_are_damaged(
    tmp_path: Path, layout: KeptLayout
) -> None:
    put(table_of(tmp_path), 0, some(5 * SPAN))
    assert ids(copy_of(tmp_path, layout), [17, 79]) == ["c2", "c1"]
    assert len(spans(tmp_path)) == 5
    folder = tmp_path / "things" / INDEX / "rows"
    (folder / spans(tmp_path)[2]).write_bytes(b"torn")
    assert ids(copy_of(tmp_path, layout), [33, 79]) == ["c0", "c1"]
    again = kept_of(tmp_path, layout)
    again._table.read = None  # type: ignore[method-assign, assignment]  # nothing is left to be read
    assert not again.build()
    again._table.at = None  # type: ignore[method-assign, assignment]  # as above
    assert ids(again, [33, 79]) == ["c0", "c1"]


def test_where_no_copy_can_be_written_it_is_said_and_the_table_is_read(tmp_path: Path) -> None:
    put(table_of(tmp_path), 0, some(5 * SPAN))
    (tmp_path / "things" / INDEX).mkdir()
    (tmp_path / "things" / INDEX / "rows").write_text("in the way")
    kept = kept_of(tmp_path)
    for _ in range(2):
        with pytest.raises(DiskError, match="no room for copies of its rows, or no right to write them"):
            kept.build()
        assert ids(kept, [33, 79]) == ["c0", "c1"]


def test_a_copy_leaves_room_for_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with just what an agent needs."""
    put(table_of(tmp_path), 0, some(5 * SPAN))
    seen = os.statvfs(tmp_path)
    little = os.statvfs_result([*seen[:4], faults._LEAST_FREE_BYTES // seen.f_frsize, *seen[5:]])
    with monkeypatch.context() as full:
        full.setattr(faults.os, "statvfs", lambda _: little)
        kept = kept_of(tmp_path)
        with pytest.raises(DiskError, match="no room"):
            kept.build()
    assert spans(tmp_path) == []
    assert ids(copied(kept), [33, 79]) == ["c0", "c1"]
    assert len(spans(tmp_path)) == 5


def erased(folder: Path) -> None:
    """Put another id in place of one, as an erasure does."""

    def renamed(rows: pa.Table) -> pa.Table:
        names = ["gone" if each == "c2" else each for each in rows["id"].to_pylist()]
        return rows.set_column(rows.schema.get_field_index("id"), SCHEMA.field("id"), pa.array(names))

    with maintained_alone(Place.local(folder / "things")):
        rewrite(Place.local(folder / "things"), renamed)


@pytest.mark.parametrize("again", [False, True])
def test_nothing_of_an_erased_id_is_kept(tmp_path: Path, again: bool) -> None:
    """Neither by who has had it in use, nor on disk, even where nobody asks any more."""
    put(table_of(tmp_path), 0, some(4 * SPAN))
    kept = copy_of(tmp_path)
    assert ids(kept, [2, 50]) == ["c2", "c2"]
    before = spans(tmp_path)
    erased(tmp_path)
    assert not spans(tmp_path), "rows of before are gone at once"
    kept = kept_of(tmp_path) if again else kept
    kept._table.refresh()
    assert ids(kept, [2, 3, 50]) == ["gone", "c0", "gone"], "also before they are copied anew"
    assert ids(copied(kept), [2, 3, 50]) == ["gone", "c0", "gone"]
    assert len(spans(tmp_path)) == 4 and not set(spans(tmp_path)) & set(before)


def test_a_span_that_is_written_during_an_erasure_does_not_outlive_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(table_of(tmp_path), 0, some(2 * SPAN))
    kept = kept_of(tmp_path)
    read = kept._table.read

    def read_and_erased(*asked: object) -> pa.Table:
        found = read(*asked)  # type: ignore[arg-type]  # as they come
        monkeypatch.setattr(kept._table, "read", read)
        erased(tmp_path)
        return found

    monkeypatch.setattr(kept._table, "read", read_and_erased)
    assert ids(copied(kept), [2, 3]) == ["gone", "c0"]
    held = b"".join(path.read_bytes() for path in (tmp_path / "things" / INDEX / "rows").glob("*.arrow"))
    assert b"gone" in held and b"c2" not in held


def test_who_ends_within_a_long_copy_leaves_nothing_of_an_id_that_was_erased_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(table_of(tmp_path), 0, some(8 * SPAN))
    kept, asked = kept_of(tmp_path), list[object]()
    read = kept._table.read

    def read_or_end(*bounds: object) -> pa.Table:
        asked.append(bounds)
        if len(asked) == 3:
            erased(tmp_path)
        if len(asked) == 5:
            raise KeyboardInterrupt
        return read(*bounds)  # type: ignore[arg-type]  # as they come

    monkeypatch.setattr(kept._table, "read", read_or_end)
    with pytest.raises(KeyboardInterrupt):
        copied(kept)
    held = b"".join(path.read_bytes() for path in (tmp_path / "things" / INDEX / "rows").glob("*.arrow"))
    assert b"gone" in held and b"c2" not in held


def test_rows_that_retention_took_out_are_not_found(tmp_path: Path) -> None:
    put(table_of(tmp_path), 0, some(3 * SPAN))
    kept = copy_of(tmp_path)
    assert len(at(kept, range(48))) == 48
    with maintained_alone(Place.local(tmp_path / "things")):
        rewrite(Place.local(tmp_path / "things"), lambda rows: rows.slice(20))
    kept._table.refresh()
    assert [each["number"] for each in at(kept, range(48))] == list(range(20, 48))


def test_nobody_waits_while_a_large_table_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(table_of(tmp_path), 0, some(3 * SPAN))
    kept, begun, go_on = kept_of(tmp_path), threading.Event(), threading.Event()
    read = kept._table.read

    def slow(*asked: Any) -> pa.Table:
        begun.set()
        assert go_on.wait(60)
        return read(*asked)

    monkeypatch.setattr(kept._table, "read", slow)
    copying = threading.Thread(target=copied, args=[kept])
    copying.start()
    assert begun.wait(60)
    assert ids(kept, [2, 40]) == ["c2", "c1"]
    assert kept.missing == 3 * SPAN
    go_on.set()
    copying.join(60)
    assert (kept.missing, ids(kept, [2, 40])) == (0, ["c2", "c1"])
