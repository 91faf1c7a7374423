from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.audit.chain import NOTHING_YET, Head
from agent.audit.events import AuditEvent
from schemas.errors import ConfigurationError, DataLossError
from schemas.loading import parse_document
from schemas.spec import AgentSpec
from streaming.audit import audit_check
from streaming.audit.audit_check import check_audit, check_span
from streaming.audit.audit_guard import Anchor, AnchorFile
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.audit.audit_reading import events_from, newest_events
from streaming.delta.maintenance import MaintenanceLimits, maintain
from streaming.delta.stored import StoredTable
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.store.place import Place

SPEC = parse_document(
    {
        "name": "tester",
        "version": "1.0.0",
        "data_sources": {"transactions": {"contract": "simulator", "topic": "in"}},
        "alerts": {"topic": "out"},
    },
    AgentSpec,
    where="test",
)
RETENTION = timedelta(days=30)
MORNING = datetime(2026, 1, 1, tzinfo=UTC)
NOBODY = "4111111111111111 anna@example.org"


class CrashError(Exception):
    """Stands for the end of the process."""


def places(home: Path, **environ: str) -> AuditPlaces:
    return AuditPlaces(PlacedAgent(Settings.load(home, environ), SPEC))


def log(home: Path, **environ: str) -> LakeAudit:
    return LakeAudit(places(home, **environ), RETENTION, clock=lambda: MORNING)


def batch(number: int, count: int = 2) -> list[AuditEvent]:
    return [
        AuditEvent("action", f"step_{step}", {"batch_id": number, "step": step}, "tester/q", number)
        for step in range(count)
    ]


def told(home: Path) -> list[tuple[int, int]]:
    """Batch and step of each row, in order."""
    rows = newest_events(places(home), None, 1_000)
    return [(row["detail"]["batch_id"], row["detail"]["step"]) for row in rows]


def problems(home: Path, copy: Path | None = None) -> list[tuple[int, str]]:
    return [(each.number, each.problem) for each in check_audit(places(home), copy).findings]


def filled(home: Path, batches: int = 5) -> AuditPlaces:
    audit = log(home)
    for number in range(batches):
        audit.record(batch(number))
    return places(home)


class DyingAnchor(AnchorFile):
    """Stays where it is: the process ends before it moves."""

    def advance(self, anchor: Anchor) -> None:
        raise CrashError(anchor)


def crash_before_anchoring(home: Path, events: Sequence[AuditEvent]) -> None:
    """Append `events` and die before the anchor moves on."""
    where = places(home)
    log(home)
    where.anchor = DyingAnchor.at(where.anchor.place.path)
    with pytest.raises(CrashError):
        LakeAudit(where, RETENTION).record(events)


def rewrite(path: Path, change: str) -> None:
    """Edit the file that holds row 4, as someone with access to the disk would."""
    table = DeltaTable(path)
    for name in pa.table(table.get_add_actions())["path"].to_pylist():
        rows = pq.read_table(path / name).to_pylist()
        if rows[0]["number"] == 4:
            if change == "edit":
                rows[0]["detail"] = rows[0]["detail"].replace("2", "3")
            elif change == "swap":
                rows[0]["number"], rows[1]["number"] = 5, 4
            elif change == "forget":
                rows[0]["number"] = None
            else:
                del rows[0]
            pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(table.schema())), path / name)


def test_events_are_chained_anchored_and_sound(tmp_path: Path) -> None:
    filled(tmp_path)
    report = check_audit(places(tmp_path))
    assert (report.sound, report.rows, report.last, report.anchored) == (True, 10, 9, 9)
    assert told(tmp_path) == [(number, step) for number in range(5) for step in range(2)]


def test_events_told_again_are_recorded_once(tmp_path: Path) -> None:
    audit = log(tmp_path)
    audit.record(batch(0))
    audit.record(batch(0))
    audit.record([*batch(0), *batch(1, 1)])
    log(tmp_path).record(batch(1, 1))
    assert told(tmp_path) == [(0, 0), (0, 1), (1, 0)]
    assert audit.position("tester/q") == 1
    assert audit.position("tester/other") == -1


def test_a_crash_between_append_and_anchor_is_neither_an_alarm_nor_a_hole(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    crash_before_anchoring(tmp_path, batch(2))
    report = check_audit(places(tmp_path))
    assert (report.sound, report.last, report.anchored) == (True, 5, 3)
    repaired = log(tmp_path)
    repaired.record(batch(2))
    assert check_audit(places(tmp_path)).anchored == 5
    repaired.record(batch(3))
    assert told(tmp_path) == [(number, step) for number in range(4) for step in range(2)]
    assert problems(tmp_path) == []


def test_a_crash_in_the_very_first_append_is_repaired_too(tmp_path: Path) -> None:
    crash_before_anchoring(tmp_path, batch(0))
    assert check_audit(places(tmp_path)).anchored == NOTHING_YET
    log(tmp_path).record(batch(0))
    assert (told(tmp_path), problems(tmp_path)) == ([(0, 0), (0, 1)], [])


def test_the_anchor_is_never_more_than_one_append_behind(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    crash_before_anchoring(tmp_path, batch(1))
    crash_before_anchoring(tmp_path, batch(2))
    report = check_audit(places(tmp_path))
    assert (report.sound, report.last, report.anchored) == (True, 3, 1)
    log(tmp_path).record(batch(2))
    assert told(tmp_path) == [(number, step) for number in range(3) for step in range(2)]
    assert check_audit(places(tmp_path)).anchored == 5


def test_two_writers_side_by_side_do_not_fork_the_chain(tmp_path: Path) -> None:
    log(tmp_path)
    started = threading.Barrier(2)

    def write(name: str) -> None:
        audit = log(tmp_path)
        started.wait()
        for number in range(8):
            audit.record([AuditEvent("action", name, {"step": number}, f"tester/{name}", number)])

    writers = [threading.Thread(target=write, args=(name,)) for name in ("one", "two")]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    rows = newest_events(places(tmp_path), None, 100)
    assert [row["number"] for row in rows] == list(range(16))
    for name in ("one", "two"):
        assert [row["detail"]["step"] for row in rows if row["subject"] == name] == list(range(8))
    assert check_audit(places(tmp_path)).anchored == 15
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("edit", [(4, "edited")]),
        ("delete", [(4, "missing")]),
        ("swap", [(4, "moved"), (5, "moved")]),
        ("forget", [(-1, "edited"), (4, "missing")]),
    ],
)
def test_files_changed_on_the_disk_are_found_by_row(
    tmp_path: Path, change: str, expected: list[tuple[int, str]]
) -> None:
    rewrite((filled(tmp_path).table).path, change)
    assert problems(tmp_path) == expected


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 9, 10, 1_000])
def test_a_part_of_a_sound_log_is_sound(tmp_path: Path, most: int) -> None:
    where = filled(tmp_path)
    for before in (None, 1, 4, 5, 10, 99):
        found = check_span(where, before, most)
        end = 10 if before is None else min(before, 10)
        assert (found.sound, found.last, found.anchored) == (True, end - 1, 9), (before, found)
        assert found.rows == end - found.first == min(most, end)
    assert check_span(where, 0, most).rows == 0


@pytest.mark.parametrize(
    ("change", "expected"), [("edit", {4: "edited"}), ("delete", {4: "missing"}), ("forget", {4: "missing"})]
)
def test_a_part_that_was_changed_is_found_and_those_beside_it_are_sound(
    tmp_path: Path, change: str, expected: dict[int, str]
) -> None:
    where = filled(tmp_path)
    rewrite(where.table.path, change)
    for before in (None, 6, 5):
        found = {each.number: each.problem for each in check_span(where, before, 6).findings}
        assert found == expected
    assert check_span(where, 4, 6).sound
    assert check_span(where, None, 4).sound


def test_a_part_at_the_end_that_is_cut_off_is_found(tmp_path: Path) -> None:
    where = filled(tmp_path)
    sorted(((where.table / "_delta_log").path).glob("*.json"))[-1].unlink()
    assert [(each.number, each.problem) for each in check_span(where, None, 4).findings] == [(8, "cut")]


@pytest.mark.parametrize("written", ["before the table is opened", "after it"])
def test_a_part_that_others_write_on_meanwhile_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    where, anchored = filled(tmp_path), AnchorFile.read
    read, opened = list[str](), audit_check.open_for_reading

    def write(step: str) -> None:
        read.append(step)
        if len(read) == (1 if written == "before the table is opened" else 2):
            log(tmp_path).record(batch(5))

    def read_anchor(self: AnchorFile) -> Anchor | None:
        found = anchored(self)
        if "anchor" not in read:
            write("anchor")
        return found

    def open_table(place: Place) -> DeltaTable | None:
        found = opened(place)
        if "table" not in read:
            write("table")
        return found

    monkeypatch.setattr(AnchorFile, "read", read_anchor)
    monkeypatch.setattr(audit_check, "open_for_reading", open_table)
    found = check_span(where, None, 4)
    assert sorted(read) == ["anchor", "table"]
    assert found.sound, found


def test_the_end_of_the_log_cut_off_is_found_and_not_written_over(tmp_path: Path) -> None:
    table = filled(tmp_path).table
    newest = sorted(((table / "_delta_log").path).glob("*.json"))[-1]
    newest.unlink()
    assert problems(tmp_path) == [(8, "cut")]
    with pytest.raises(DataLossError, match="ends at row 7"):
        log(tmp_path).record(batch(5))


def test_a_table_set_back_with_its_anchor_is_found_by_a_copy_kept_elsewhere(tmp_path: Path) -> None:
    where = filled(tmp_path / "home", 2)
    shutil.copytree(tmp_path / "home", tmp_path / "earlier")
    log(tmp_path / "home").record(batch(2))
    copy = shutil.copy(where.anchor.place.path, tmp_path / "copy")
    shutil.rmtree(tmp_path / "home")
    shutil.copytree(tmp_path / "earlier", tmp_path / "home")
    assert problems(tmp_path / "home") == []
    assert problems(tmp_path / "home", Path(copy)) == [(4, "cut")]


def test_an_old_copy_of_the_anchor_still_fits(tmp_path: Path) -> None:
    where = filled(tmp_path, 1)
    copy = Path(shutil.copy(where.anchor.place.path, tmp_path / "copy"))
    filled(tmp_path, 4)
    assert problems(tmp_path, copy) == []


def test_the_table_or_a_file_of_it_gone_is_found(tmp_path: Path) -> None:
    table = filled(tmp_path).table
    next(iter(sorted(table.path.glob("*.parquet")))).unlink()
    found = problems(tmp_path)
    assert found[0] == (-1, "unreadable")
    assert [problem for _, problem in found[1:]] in (["missing"], ["cut"])
    shutil.rmtree(table.path)
    assert problems(tmp_path) == [(-1, "unreadable"), (0, "cut")]
    with pytest.raises(DataLossError, match="anchor"):
        log(tmp_path).record(batch(9))


def test_delta_itself_refuses_to_delete_and_update(tmp_path: Path) -> None:
    table = filled(tmp_path).table
    with pytest.raises(DeltaError):
        DeltaTable(table.path).delete("number = 3")
    assert problems(tmp_path) == []


def test_rows_appended_behind_the_logs_back_are_found(tmp_path: Path) -> None:
    where = filled(tmp_path, 1)
    rows = read_stored(where.table)
    assert rows is not None
    write_deltalake(where.table.uri, rows, mode="append")
    assert sorted(problems(tmp_path)) == [(0, "doubled"), (1, "doubled")]


def test_a_lost_anchor_is_found_and_nothing_is_written_without_it(tmp_path: Path) -> None:
    where = filled(tmp_path)
    where.anchor.place.path.unlink()
    assert problems(tmp_path) == [(-1, "anchor")]
    with pytest.raises(DataLossError, match="restore it from a copy"):
        log(tmp_path)
    where.anchor.place.path.write_text("{}", encoding="utf-8")
    assert problems(tmp_path) == [(-1, "anchor")]


def test_the_anchor_never_moves_back(tmp_path: Path) -> None:
    where = filled(tmp_path, 3)
    anchor = where.anchor.read()
    assert anchor is not None
    where.anchor.advance(Anchor(Head(2, "earlier"), anchor.key))
    assert where.anchor.read() == anchor


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    filled(tmp_path)
    key = tmp_path / "audit" / "tester" / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_text().strip()) == 64
    assert [path.name for path in key.parent.iterdir() if str(os.getpid()) in path.name] == []
    before = key.read_bytes()
    log(tmp_path).record(batch(7))
    assert key.read_bytes() == before


def test_a_key_from_the_environment_leaves_no_file_and_must_stay_the_same(tmp_path: Path) -> None:
    secret = "0123456789abcdef" * 2
    log(tmp_path, FLAGSTREAM_AUDIT_KEY=secret).record(batch(0))
    assert not (tmp_path / "audit" / "tester" / "key").exists()
    assert check_audit(places(tmp_path, FLAGSTREAM_AUDIT_KEY=secret)).sound
    with pytest.raises(ConfigurationError, match="another key"):
        log(tmp_path, FLAGSTREAM_AUDIT_KEY=secret[::-1])
    with pytest.raises(ConfigurationError, match="key is gone"):
        check_audit(places(tmp_path))
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert secret.encode() not in stored


def test_a_table_of_the_unchained_layout_says_what_to_do(tmp_path: Path) -> None:
    old = pa.schema([("query_id", pa.string()), ("event", pa.string()), ("detail", pa.string())])
    DeltaTable.create((places(tmp_path).table).path, old)
    for attempt in (lambda: log(tmp_path), lambda: check_audit(places(tmp_path))):
        with pytest.raises(ConfigurationError, match=r"tables: \{audit: audit_chained\}"):
            attempt()
    assert not (tmp_path / "audit").exists()


def test_a_log_that_was_never_written_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing was recorded"):
        check_audit(places(tmp_path))
    with pytest.raises(ConfigurationError, match="no such file"):
        check_audit(places(tmp_path), tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_compacting_keeps_the_chain(tmp_path: Path) -> None:
    audit = log(tmp_path)
    number = 40
    for each in range(number):
        audit.record(batch(each, 1))
    assert maintain(places(tmp_path).table, MaintenanceLimits(files=number, entries=10))
    assert len(DeltaTable((places(tmp_path).table).path).file_uris()) == 1
    audit.record(batch(number, 1))
    assert (problems(tmp_path), len(told(tmp_path))) == ([], number + 1)


def test_rows_hold_nothing_that_is_not_of_the_expected_shape(tmp_path: Path) -> None:
    event = AuditEvent("action", NOBODY, {"outcome": NOBODY, "tables": [NOBODY]}, "tester/q", 0)
    log(tmp_path).record([event])
    row = newest_events(places(tmp_path), "action", 1)[0]
    assert (row["subject"], row["detail"]) == (
        "[redacted]",
        {"outcome": "[redacted]", "tables": "[redacted]"},
    )
    assert "example" not in json.dumps(row, default=str)


def test_a_stopped_writer_of_the_anchor_holds_nobody_up(tmp_path: Path) -> None:
    audit, anchor = log(tmp_path), places(tmp_path).anchor
    audit.record(batch(0))
    before = anchor.read()
    with anchor.place.path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        audit.record(batch(1))
        log(tmp_path).record(batch(2))
        assert anchor.read() == before, "it stays behind"
        assert problems(tmp_path) == []
    audit.record(batch(3))
    now = anchor.read()
    assert now is not None
    assert now.head.number == 7
    assert problems(tmp_path) == []


WHO = ("actor", "who", "command")
KINDS = st.lists(st.lists(st.sampled_from(["action", "data_access"]), max_size=4), min_size=1, max_size=6)


@given(
    commits=KINDS,
    kind=st.sampled_from([None, "action", "data_access"]),
    after=st.none() | st.integers(-1, 15),
    before=st.none() | st.integers(0, 15),
    who=st.sampled_from([None, "token:anna", "token:ann"]),
    most=st.integers(1, 9),
    tidy=st.booleans(),
)
@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
def test_rows_of_a_kind_are_the_first_after_a_number_or_the_newest(
    tmp_path_factory: pytest.TempPathFactory,
    commits: list[list[Any]],
    kind: str | None,
    after: int | None,
    before: int | None,
    who: str | None,
    most: int,
    tidy: bool,
) -> None:
    home = tmp_path_factory.mktemp("home")
    audit = log(home)
    for number, kinds in enumerate(commits):
        if kinds:
            audit.record(
                [
                    AuditEvent(each, "s", {WHO[at % 3]: "token:anna"}, f"command/{number}", at)
                    for at, each in enumerate(kinds)
                ]
            )
    if tidy:
        maintain(places(home).table, MaintenanceLimits(2, 2, 2, timedelta(0)))
    told = [(each, WHO[at % 3] != "command") for kinds in commits for at, each in enumerate(kinds)]
    fit = [
        place
        for place, (each, by_anna) in enumerate(told)
        if kind in (None, each) and (who is None or (by_anna and who == "token:anna"))
        if before is None or place < before
    ]
    expected = fit[-most:] if after is None else [place for place in fit if place > after][:most]
    found = events_from(places(home), after, most, kind, before=before, who=who)
    assert [row["number"] for row in found] == expected


def test_what_cannot_be_among_the_newest_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, opened = filled(tmp_path, 5), list[str]()
    of_files = StoredTable.of_files

    def noted(self: StoredTable, names: Sequence[str], columns: Sequence[str]) -> pa.Table:
        opened.extend(names)
        return of_files(self, names, columns)

    monkeypatch.setattr(StoredTable, "of_files", noted)
    assert [row["number"] for row in events_from(where, None, 2)] == [8, 9]
    assert [row["number"] for row in events_from(where, -1, 2)] == [0, 1]
    assert len(opened) == 2
