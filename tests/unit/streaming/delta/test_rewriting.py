"""Rows leave append-only tables, or are changed, beside writers that notice nothing of it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from streaming.delta import forgetting
from streaming.delta.forgetting import forget_versions
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.log_tail import is_torn
from streaming.delta.maintenance import MaintenanceLimits, maintain
from streaming.delta.rewriting import Change, RewriteNotes, Rewritten, maintained_alone, newest_facts, rewrite
from streaming.delta.shared_table import SharedTable
from streaming.delta.stored import REMOVED_BEFORE, REMOVED_ROWS, StoredTable, open_version
from streaming.store.place import Place

SCHEMA = pa.schema([("n", pa.int64()), ("who", pa.string()), ("at", pa.timestamp("us", tz="UTC"))])


def rows(first: int, count: int, who: str = "somebody") -> pa.Table:
    numbers = range(first, first + count)
    return pa.table(
        {"n": numbers, "who": [who] * count, "at": [each * 1_000_000 for each in numbers]}, SCHEMA
    )


def opened(folder: Path, epoch: int = 1) -> LakeTable:
    table = LakeTable(Place.local(folder / "t"), SCHEMA, "agent/epoch", timedelta(days=30))
    table.claim(epoch)
    return table


def without_first(count: int) -> Change:
    def change(part: pa.Table) -> pa.Table:
        stays = pc.greater_equal(part["n"], count)
        return part if pc.all(stays).as_py() else part.filter(stays)

    return change


def cut(place: Place, count: int) -> Rewritten:
    with maintained_alone(place):
        return rewrite(
            place,
            without_first(count),
            lambda found, gone: RewriteNotes(
                {REMOVED_ROWS: found.removed_rows + gone, REMOVED_BEFORE: count}, deleted_at=1
            ),
        )


def numbers(place: Place) -> list[int]:
    table = open_version(place)
    assert table is not None
    found: list[int] = table.read("n", 0)["n"].to_pylist()
    return found


def test_whole_files_go_and_one_that_straddles_is_written_anew(tmp_path: Path) -> None:
    table = opened(tmp_path)
    for number in range(4):
        table.append(rows(10 * number, 10), Stamp("stream", number), {"batch": number})
    assert cut(table.place, 25) == Rewritten(files=3, removed=25)
    found = open_version(table.place)
    assert found is not None
    assert numbers(table.place) == list(range(25, 40))
    assert (found.removed_rows, found.removed_before, found.count()) == (25, 25, 15)
    assert found.next_number("n") == 40
    assert [each[1:] for each in found.ranges("n")] in ([(30, 39), (25, 29)], [(25, 29), (30, 39)])
    assert found.newest_metadata() == {"batch": 3}


def test_a_writer_with_an_older_handle_is_neither_fenced_nor_refused(tmp_path: Path) -> None:
    table = opened(tmp_path)
    table.append(rows(0, 10), Stamp("stream", 0))
    assert cut(table.place, 5).removed == 5
    assert table.append(rows(10, 10), Stamp("stream", 1))
    assert cut(table.place, 12).removed == 7
    assert table.append(rows(20, 1), Stamp("stream", 2), {"batch": 2})
    assert not table.append(rows(20, 1), Stamp("stream", 2))
    assert numbers(table.place) == list(range(12, 21))
    assert (table.removed_rows, table.removed_before) == (12, 12)
    assert table.newest_metadata() == {"batch": 2}


def test_writers_by_turns_go_on_as_well(tmp_path: Path) -> None:
    shared = SharedTable(Place.local(tmp_path / "t"), SCHEMA, timedelta(days=30))
    shared.by_turns(lambda: shared.append(rows(0, 10), Stamp("s", 0)))
    assert cut(shared.place, 5).removed == 5
    shared.by_turns(lambda: shared.append(rows(10, 1), Stamp("s", 1)))
    assert numbers(shared.place) == [*range(5, 11)]


def test_what_was_done_outlives_the_entries_of_the_log(tmp_path: Path) -> None:
    table = opened(tmp_path)
    table.append(rows(0, 10), Stamp("stream", 0), {"batch": 0})
    cut(table.place, 5)
    handle = DeltaTable(table.place.uri)
    handle.create_checkpoint()
    for entry in (tmp_path / "t" / "_delta_log").glob("*.json"):
        entry.unlink()
    found = open_version(table.place)
    assert found is not None
    assert (found.removed_rows, found.removed_before, found.rewritten_at) == (5, 5, handle.version())
    assert found.last_batch("stream") == 0


def test_a_rewriting_that_changes_nothing_makes_no_commit(tmp_path: Path) -> None:
    table = opened(tmp_path)
    table.append(rows(0, 10), Stamp("stream", 0))
    version = table.version
    assert cut(table.place, 0) == Rewritten()
    found = open_version(table.place)
    assert found is not None
    assert found.version == version


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_rewriting_that_a_power_cut_has_torn_is_recognised(tmp_path: Path, lost: int) -> None:
    table = opened(tmp_path)
    table.append(rows(0, 10), Stamp("stream", 0))
    cut(table.place, 5)
    newest = DeltaTable(table.place.uri).version()
    entry = tmp_path / "t" / "_delta_log" / f"{newest:020}.json"
    lines = entry.read_text().splitlines(keepends=True)
    assert not is_torn(table.place, newest)
    entry.write_text("".join(lines[:-lost]))
    assert is_torn(table.place, newest)


def test_nothing_but_the_newest_version_is_left(tmp_path: Path) -> None:
    table = opened(tmp_path)
    table.append(rows(0, 3, "customer42"), Stamp("stream", 0), {"batch": 0})
    table.append(rows(3, 3), Stamp("stream", 1), {"batch": 1})

    def renamed(part: pa.Table) -> pa.Table:
        if "customer42" not in part["who"].to_pylist():
            return part
        return part.set_column(1, SCHEMA.field(1), pa.array(["nobody"] * part.num_rows))

    with maintained_alone(table.place):
        facts = newest_facts(table)
        assert rewrite(table.place, renamed, lambda _, __: RewriteNotes(facts=facts)).files == 1
        assert forget_versions(table.place, shared=False) == 0
    for path in (tmp_path / "t").rglob("*"):
        assert path.is_dir() or b"customer42" not in path.read_bytes(), path
    found = open_version(table.place)
    assert found is not None
    assert found.newest_metadata() == {"batch": 1}
    assert open_version(table.place, 1) is None
    assert found.last_batch("stream") == 1
    again = opened(tmp_path, epoch=2)
    assert again.append(rows(6, 1), Stamp("stream", 2))
    assert numbers(table.place) == list(range(7))


def test_files_that_others_have_just_written_stay(tmp_path: Path) -> None:
    table = opened(tmp_path)
    table.append(rows(0, 3), Stamp("stream", 0))
    beside = tmp_path / "t" / "part-being-written.parquet"
    beside.write_bytes(b"PAR1")
    with maintained_alone(table.place):
        assert forget_versions(table.place, shared=True) == 1
    assert beside.exists()
    with maintained_alone(table.place):
        assert forget_versions(table.place, shared=False) == 0
    assert not beside.exists()


def test_a_commit_made_while_versions_are_forgotten_keeps_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version that stays was read before, and its data files are listed afterwards."""
    shared = SharedTable(Place.local(tmp_path / "t"), SCHEMA, timedelta(days=30))
    shared.by_turns(lambda: shared.append(rows(0, 10), Stamp("s", 0)))
    assert cut(shared.place, 5).removed == 5

    def commit(_: Place) -> None:
        monkeypatch.undo()
        shared.by_turns(lambda: shared.append(rows(10, 1), Stamp("s", 1)))

    monkeypatch.setattr(forgetting, "sync", commit)
    with maintained_alone(shared.place):
        assert forget_versions(shared.place, shared=True) == 0
    assert numbers(shared.place) == [*range(5, 11)]
    assert len(list((tmp_path / "t").glob("*.parquet"))) == 2


def test_statistics_of_written_files_are_the_librarys(tmp_path: Path) -> None:
    table = opened(tmp_path)
    table.append(rows(0, 10), Stamp("stream", 0))
    cut(table.place, 5)
    found: StoredTable | None = open_version(table.place)
    assert found is not None
    entry = next(
        json.loads(line)["add"]
        for path in sorted((tmp_path / "t" / "_delta_log").glob("*.json"), reverse=True)
        for line in path.read_text().splitlines()
        if "add" in json.loads(line)
    )
    said = json.loads(entry["stats"])
    assert said["numRecords"] == 5
    assert said["minValues"]["n"] == 5
    assert found.read("at", 7_000_000)["n"].to_pylist() == [7, 8, 9]


def test_rows_are_there_once_while_they_are_written_cut_and_compacted(tmp_path: Path) -> None:
    table = opened(tmp_path)
    often, commits, cuts = MaintenanceLimits(files=4, entries=8), 60, 12

    def write() -> None:
        for number in range(commits):
            assert table.append(rows(10 * number, 10), Stamp("stream", number), {"batch": number})

    with ThreadPoolExecutor(1) as beside:
        writing, reached, gone = beside.submit(write), 0, 0
        while not writing.done() or reached < cuts:
            gone += cut(table.place, 10 * reached).removed
            maintain(table.place, often)
            reached = min(reached + 1, cuts)
        writing.result()
    gone += cut(table.place, 10 * cuts).removed
    found = open_version(table.place)
    assert found is not None
    assert numbers(table.place) == list(range(10 * cuts, 10 * commits))
    assert (found.removed_rows, found.count()) == (10 * cuts, 10 * (commits - cuts)) == (gone, found.count())
    assert found.newest_metadata() == {"batch": commits - 1}
