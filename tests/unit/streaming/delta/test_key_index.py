"""Rows are found by their key whatever has been written, and however often the index was begun."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from agent.triage.ledger import RecordedAnswer
from schemas.tables import LEDGER
from streaming.delta import key_index
from streaming.delta.index_files import INDEX
from streaming.delta.key_index import KeyIndex
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.ledger import LakeLedger, ledger_stream
from streaming.delta.maintenance import MaintenanceLimits, clear, maintain
from streaming.delta.rewriting import maintained_alone, rewrite
from streaming.delta.stored import StoredTable, open_version
from streaming.store import whole_files
from streaming.store.place import Place

SCHEMA = pa.schema([("sequence", pa.int64()), ("id", pa.string()), ("amount", pa.float64())])
IDS = [*(f"t{number}" for number in range(12)), "", "ü", "\N{GRINNING FACE}"]


def short_spans(patch: pytest.MonkeyPatch) -> None:
    """Have a span be full with sixteen rows."""
    patch.setattr(key_index, "_BITS", 4)
    patch.setattr(key_index, "SPAN", 16)
    patch.setattr(key_index, "_PLACE", key_index._PLACE.dtype.type(15))


def table_of(folder: Path) -> LakeTable:
    table = LakeTable(Place.local(folder / "things"), SCHEMA, "agent/epoch", timedelta(0))
    table.claim(table.epoch + 1)
    return table


def put(table: LakeTable, number: int, first: int, ids: Sequence[str | None]) -> None:
    rows = {"sequence": range(first, first + len(ids)), "id": ids, "amount": [1.0] * len(ids)}
    table.append(pa.table(rows, schema=SCHEMA), Stamp("app", number))


def reading(folder: Path) -> StoredTable:
    table = open_version(Place.local(folder / "things"))
    assert table is not None
    return table


def found(index: KeyIndex, keys: Sequence[str | None]) -> list[tuple[int, str]]:
    rows = index.rows(pa.array(keys, pa.string()), ["amount"])
    assert rows.column_names == ["sequence", "id", "amount"]
    return list(zip(rows["sequence"].to_pylist(), rows["id"].to_pylist(), strict=True))


NOBODY = st.lists(st.none(), max_size=40)  # a guest's payments name no customer; a span may hold no other


@pytest.mark.long
@given(
    commits=st.lists(NOBODY | st.lists(st.sampled_from([*IDS, None]), max_size=30), min_size=1, max_size=8),
    keys=st.lists(st.sampled_from([*IDS, "never", None]), max_size=6),
    again=st.booleans(),
    tidy=st.booleans(),
)
@examples(deadline=None, max_examples=30, derandomize=True, suppress_health_check=list(HealthCheck))
def test_it_finds_what_reading_all_rows_finds(
    tmp_path_factory: pytest.TempPathFactory,
    commits: list[list[str | None]],
    keys: list[str | None],
    again: bool,
    tidy: bool,
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    with pytest.MonkeyPatch.context() as patch:
        short_spans(patch)
        table, stored = table_of(folder), [each for commit in commits for each in commit]
        index, first = KeyIndex(reading(folder), "id", "sequence"), 0
        for number, ids in enumerate(commits):
            put(table, number, first, ids)
            first += len(ids)
            if again:
                index = KeyIndex(reading(folder), "id", "sequence")
            index._table.refresh()
            wanted = [
                (place, each)
                for place, each in enumerate(stored[:first])
                if each is not None and each in keys
            ]
            assert found(index, keys) == wanted
            if tidy:
                maintain(table.place, MaintenanceLimits(2, 2, 2, timedelta(0)))
                clear(table.place, MaintenanceLimits(2, 2, 2, timedelta(0)))


def test_it_is_made_anew_where_it_was_removed_or_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_spans(monkeypatch)
    put(table_of(tmp_path), 0, 0, [f"t{number}" for number in range(100)])
    assert found(KeyIndex(reading(tmp_path), "id", "sequence"), ["t7", "t99"]) == [(7, "t7"), (99, "t99")]
    kept = tmp_path / "things" / INDEX / "id"
    assert len(list(kept.glob("*.npy"))) == 6
    next(kept.glob(f"*{3:08}.npy")).write_bytes(b"")
    assert found(KeyIndex(reading(tmp_path), "id", "sequence"), ["t50", "t51"]) == [(50, "t50"), (51, "t51")]
    shutil.rmtree(kept)
    kept.write_text("in the way")
    assert found(KeyIndex(reading(tmp_path), "id", "sequence"), ["t7", "t99"]) == [(7, "t7"), (99, "t99")]


def test_rows_that_were_rewritten_are_found_by_the_keys_that_they_have_now(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    put(table, 0, 0, ["t1", "t2", "t3"])
    index = KeyIndex(reading(tmp_path), "id", "sequence")
    assert found(index, ["t1", "t2"]) == [(0, "t1"), (1, "t2")]

    def renamed(rows: pa.Table) -> pa.Table:
        names = ["gone" if each == "t2" else each for each in rows["id"].to_pylist()]
        return rows.set_column(rows.schema.get_field_index("id"), SCHEMA.field("id"), pa.array(names))

    with maintained_alone(table.place):
        rewrite(table.place, renamed)
    index._table.refresh()
    assert found(index, ["t1", "t2", "gone"]) == [(0, "t1"), (1, "gone")]


@pytest.mark.parametrize("again", [False, True])
def test_full_spans_of_rows_that_were_rewritten_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Whether by a process that has had them in use, or by one that begins afterwards."""
    short_spans(monkeypatch)
    table = table_of(tmp_path)
    put(table, 0, 0, ["t1"] * 40)
    index = KeyIndex(reading(tmp_path), "id", "sequence")
    assert len(found(index, ["t1"])) == 40
    with maintained_alone(table.place):
        rewrite(
            table.place,
            lambda rows: rows.set_column(1, SCHEMA.field("id"), pa.array(["gone"] * rows.num_rows)),
        )
    index = KeyIndex(reading(tmp_path), "id", "sequence") if again else index
    index._table.refresh()
    assert found(index, ["t1", "gone"]) == [(place, "gone") for place in range(40)]
    kept = tmp_path / "things" / INDEX / "id"
    assert len(list(kept.glob("*.npy"))) == 2, "spans of before are gone"


@pytest.mark.parametrize("left", ["", "zzzz"])
def test_a_seed_that_was_never_written_whole_is_drawn_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """Killed between creating the file and writing it: what is kept under one seed must be found by all."""
    short_spans(monkeypatch)
    put(table_of(tmp_path), 0, 0, [f"t{number}" for number in range(40)])
    kept = tmp_path / "things" / INDEX / "id"
    kept.mkdir(parents=True)
    (kept / "seed").write_text(left)
    for _ in range(3):
        index = KeyIndex(reading(tmp_path), "id", "sequence")
        assert found(index, ["t3", "t39"]) == [(3, "t3"), (39, "t39")]
    assert len(list(kept.iterdir())) == 4, "a seed, a note of what was seen and two spans"


def test_what_is_kept_is_used_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk, and in a folder that is only read: a new seed would cost all that is kept."""
    short_spans(monkeypatch)
    put(table_of(tmp_path), 0, 0, [f"t{number}" for number in range(32)])
    assert found(KeyIndex(reading(tmp_path), "id", "sequence"), ["t3"]) == [(3, "t3")]
    kept = sorted((tmp_path / "things" / INDEX / "id").iterdir())

    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(whole_files, "written_beside", full)
    index = KeyIndex(reading(tmp_path), "id", "sequence")
    assert found(index, ["t3", "t31"]) == [(3, "t3"), (31, "t31")]
    assert sorted((tmp_path / "things" / INDEX / "id").iterdir()) == kept
    assert all(isinstance(each.base, np.memmap) for each in index._spans), "none was made anew"


def test_spans_of_another_seed_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process leaves them whose disk had room for its spans, but not yet for their seed."""
    short_spans(monkeypatch)
    put(table_of(tmp_path), 0, 0, [f"t{number}" for number in range(40)])
    assert found(KeyIndex(reading(tmp_path), "id", "sequence"), ["t3"]) == [(3, "t3")]
    (tmp_path / "things" / INDEX / "id" / "seed").unlink()
    assert found(KeyIndex(reading(tmp_path), "id", "sequence"), ["t3"]) == [(3, "t3")]


def test_a_ledger_reads_nothing_when_it_opens_and_finds_the_oldest_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = LakeTable(Place.local(tmp_path / "ledger"), LEDGER, "cards/epoch", timedelta(days=30))
    table.claim(1)
    answers = [_answer(f"{number:032x}") for number in range(50)]
    LakeLedger(table, "cards", _now).record(answers[:1])
    # As if 30,000 commits of others lay in between.
    table.append(LEDGER.empty_table(), Stamp(ledger_stream("cards"), 30_000))
    LakeLedger(table, "cards", _now).record(answers[1:])
    with monkeypatch.context() as closed:
        closed.setattr(table, "read", None)
        ledger = LakeLedger(table, "cards", _now)
    assert ledger.recorded([answers[0].key, answers[30].key, "none"]) == {
        each.key: each for each in (answers[0], answers[30])
    }
    monkeypatch.setattr("streaming.delta.ledger._HELD", 5)
    ledger.recorded([each.key for each in answers])
    assert len(ledger._answers) == 5
    assert ledger.recorded([answers[0].key])[answers[0].key] == answers[0]


def _now() -> datetime:
    return datetime(2026, 5, 1, tzinfo=UTC)


def _answer(key: str) -> RecordedAnswer:
    return RecordedAnswer(
        key=key,
        prompt_id="triage",
        prompt_version=1,
        model="m",
        classification="needs_review",
        severity="low",
        rationale="",
        input_tokens=1,
        output_tokens=1,
        evidence=(),
    )
