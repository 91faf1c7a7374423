"""Tables stay small however long they are written to, and whoever writes meanwhile loses nothing."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from agent.audit.events import AuditEvent
from schemas.errors import FencedError
from streaming.audit.audit_check import check_audit
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.delta import maintenance
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.maintenance import (
    PAUSE_SECONDS,
    ROUND_SECONDS,
    Maintenance,
    MaintenanceLimits,
    clear,
    maintain,
)
from streaming.delta.shared_table import SharedTable
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.store.place import Place
from streaming.testing.live_lake import agent

SCHEMA = pa.schema([("n", pa.int64())])
AT_ONCE = MaintenanceLimits(files=16, entries=20, least_age=timedelta(0))
DAY_MS = 24 * 60 * 60 * 1000


def claimed(folder: Path, retention: timedelta = timedelta(days=30)) -> LakeTable:
    table = LakeTable(Place.local(folder / "things"), SCHEMA, "agent/epoch", retention)
    table.claim(table.epoch + 1)
    return table


def one(number: int) -> pa.Table:
    return pa.table({"n": [number]}, schema=SCHEMA)


def on_disk(path: Path) -> tuple[int, int]:
    return len(list(path.glob("*.parquet"))), len(list((path / "_delta_log").iterdir()))


@pytest.mark.long
def test_files_and_log_stay_few_over_many_commits(tmp_path: Path) -> None:
    table, most = claimed(tmp_path, timedelta(0)), (0, 0)
    for number in range(400):
        table.append(one(number), Stamp("app", number))
        if number % 10 == 9:
            maintain(table.place, AT_ONCE)
            clear(table.place, AT_ONCE)
            if number >= 100:
                most = max(most[0], on_disk(table.place.path)[0]), max(most[1], on_disk(table.place.path)[1])
    assert most[0] <= 2 * AT_ONCE.files + 10
    assert most[1] <= 3 * AT_ONCE.entries + 10
    assert claimed(tmp_path).read("n", 0)["n"].to_pylist() == list(range(400))


def test_of_two_that_compact_at_once_one_leaves_it_alone_and_no_row_is_there_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delta itself would let both of them replace the same files."""
    table, outcomes = claimed(tmp_path), list[bool]()
    for number in range(20):
        table.append(one(number), Stamp("app", number))

    def opened_while_another_maintains(path: Path) -> DeltaTable:
        found = DeltaTable(path)
        monkeypatch.setattr(maintenance, "newest_version", DeltaTable)
        outcomes.append(maintain(Place.local(path), AT_ONCE))
        return found

    monkeypatch.setattr(maintenance, "newest_version", opened_while_another_maintains)
    outcomes.append(maintain(table.place, AT_ONCE))
    assert outcomes == [False, True]
    assert claimed(tmp_path).read("n", 0)["n"].to_pylist() == list(range(20))
    assert on_disk(table.place.path)[0] == 21, "compacted once; what was replaced is kept"


def test_what_another_maintainer_is_writing_is_not_cleared_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are on disk before a commit names them."""
    table, cleared = claimed(tmp_path), list[int | None]()
    table.append(one(0), Stamp("app", 0))

    def opened_while_another_clears(path: Path) -> DeltaTable:
        monkeypatch.setattr(maintenance, "newest_version", DeltaTable)
        cleared.append(clear(Place.local(path), AT_ONCE))
        return DeltaTable(path)

    monkeypatch.setattr(maintenance, "newest_version", opened_while_another_clears)
    maintain(table.place, AT_ONCE)
    assert (cleared, clear(table.place, AT_ONCE)) == ([None], 0)


@pytest.mark.long
def test_rows_stay_what_they_are_while_several_maintain_a_table_that_is_written_to(tmp_path: Path) -> None:
    table, over = claimed(tmp_path), threading.Event()
    others = [Maintenance(lambda: [table.place], AT_ONCE) for _ in range(3)]

    def go_round(each: Maintenance) -> None:
        while not over.is_set():
            each.round()

    with ThreadPoolExecutor(len(others)) as pool:
        rounds = [pool.submit(go_round, each) for each in others]
        try:
            for number in range(200):
                table.append(one(number), Stamp("app", number))
        finally:
            over.set()
        for each in rounds:
            each.result()
    assert claimed(tmp_path).read("n", 0)["n"].to_pylist() == list(range(200))


def test_files_that_a_checkpoint_has_forgotten_are_cleared_all_the_same(tmp_path: Path) -> None:
    table = claimed(tmp_path, timedelta(0))
    for number in range(20):
        table.append(one(number), Stamp("app", number))
    maintain(table.place, AT_ONCE)
    DeltaTable(table.place.path).create_checkpoint()
    assert clear(table.place, AT_ONCE) == 20
    assert on_disk(table.place.path)[0] == 1


def test_a_file_that_no_commit_has_named_yet_stays(tmp_path: Path) -> None:
    table = claimed(tmp_path, timedelta(0))
    table.append(one(0), Stamp("app", 0))
    for name, age in (("part-under-way.parquet", 60), ("part-left-behind.parquet", 7_200)):
        pq.write_table(one(1), table.place.path / name)
        os.utime(table.place.path / name, (time.time() - age,) * 2)
    assert clear(table.place) == 1
    assert (table.place.path / "part-under-way.parquet").exists()


def test_files_that_a_readable_version_names_stay(tmp_path: Path) -> None:
    table = claimed(tmp_path)
    for number in range(20):
        table.append(one(number), Stamp("app", number))
    before = table.version
    maintain(table.place, AT_ONCE)
    assert clear(table.place, AT_ONCE) == 0
    assert len(DeltaTable(table.place.path).file_uris()) == 1
    assert DeltaTable(table.place.path, version=before).to_pyarrow_table().num_rows == 20


def test_a_few_small_files_are_compacted_once_they_are_a_day_old(tmp_path: Path) -> None:
    table = claimed(tmp_path)
    for number in range(9):
        table.append(one(number), Stamp("app", number))
    assert not maintain(table.place)
    assert maintain(table.place, now_ms=int(time.time() * 1000) + 2 * DAY_MS)
    assert len(DeltaTable(table.place.path).file_uris()) == 1


@pytest.mark.long
def test_writers_lose_nothing_while_a_table_is_maintained(tmp_path: Path) -> None:
    mine, ended = claimed(tmp_path, timedelta(0)), threading.Event()
    shared = [SharedTable(Place.local(tmp_path / "shared"), SCHEMA, timedelta(0)) for _ in range(2)]

    def write(app: str) -> None:
        for number in range(60):
            assert mine.append(one(number), Stamp(app, number))
            mine.renew()

    def share(table: SharedTable) -> None:
        for _ in range(40):
            table.by_turns(
                lambda: table.append(one(table.count()), Stamp("shared", table.last_batch("shared") + 1))
            )

    def keep() -> None:
        maintenance = Maintenance(
            lambda: [mine.place, shared[0].place], MaintenanceLimits(4, 4, 7), timedelta(0)
        )
        while not ended.wait(0.01):
            maintenance.round()

    with ThreadPoolExecutor(5) as threads:
        keeper = threads.submit(keep)
        writers = [threads.submit(write, app) for app in ("batches", "late")]
        writers += [threads.submit(share, table) for table in shared]
        for each in writers:
            each.result()
        ended.set()
        keeper.result()
    again = claimed(tmp_path)
    assert (again.count(), again.last_batch("batches"), again.last_batch("late")) == (120, 59, 59)
    assert SharedTable(Place.local(tmp_path / "shared"), SCHEMA, timedelta(0)).read("n", 0)[
        "n"
    ].to_pylist() == list(range(80))
    with pytest.raises(FencedError):
        mine.append(one(0), Stamp("batches", 60))


def test_a_table_that_cannot_be_maintained_keeps_no_other_from_it(tmp_path: Path) -> None:
    broken, sound = claimed(tmp_path / "a"), claimed(tmp_path / "b")
    for number in range(20):
        sound.append(one(number), Stamp("app", number))
    (broken.place.path / "_delta_log" / f"{1:020}.json").write_text("{")
    maintenance = Maintenance(lambda: [broken.place, sound.place], AT_ONCE)
    with pytest.raises(Exception, match="is not whole"):
        maintenance.round()
    assert len(DeltaTable(sound.place.path).file_uris()) == 1


def test_tables_that_are_due_together_are_worked_off_one_after_the_other(tmp_path: Path) -> None:
    tables = [claimed(tmp_path / name) for name in "abc"]
    for table in tables:
        for number in range(20):
            table.append(one(number), Stamp("app", number))
    maintenance = Maintenance(lambda: [table.place for table in tables], AT_ONCE, timedelta(days=1))
    small, waited = list[list[int]](), list[float]()
    for _ in range(4):
        waited.append(maintenance.round())
        small.append([len(DeltaTable(table.place.path).file_uris()) for table in tables])
    assert small[:3] == [[1, 20, 20], [1, 1, 20], [1, 1, 1]]
    assert waited == [PAUSE_SECONDS] * 3 + [ROUND_SECONDS]


def test_runs_of_commands_leave_nothing_in_the_log_for_good(tmp_path: Path) -> None:
    spec = agent()
    places = AuditPlaces(PlacedAgent(Settings.load(tmp_path, {}), spec))
    for number in range(30):
        log = LakeAudit(places, timedelta(0))
        event = AuditEvent("action", "labels", {"rows": number}, f"command/{number}", 0)
        log.record([event])
        log.record([event])  # told again by the same run
    maintain(places.table, AT_ONCE)
    [checkpoint] = ((places.table / "_delta_log").path).glob("*.checkpoint.parquet")
    rows = pq.read_table(checkpoint, columns=["txn"])["txn"].to_pylist()
    assert len([row for row in rows if row is not None]) == 2
    report = check_audit(places)
    assert (report.rows, report.findings) == (30, ())


def test_work_that_fails_beside_it_keeps_no_table_from_it(tmp_path: Path) -> None:
    table = LakeTable(Place.local(tmp_path / "t"), SCHEMA, "agent/epoch", timedelta(days=30))
    table.claim(1)
    for number in range(20):
        table.append(pa.table({"n": [number]}), Stamp("stream", number))

    def fail() -> bool:
        raise ZeroDivisionError

    kept = Maintenance(lambda: [table.place], AT_ONCE, also=fail)
    with pytest.raises(ZeroDivisionError):
        kept.round()
    assert DeltaTable(table.place.uri).get_add_actions().num_rows == 1
    assert Maintenance(lambda: [table.place], AT_ONCE, also=lambda: True).round() == PAUSE_SECONDS
