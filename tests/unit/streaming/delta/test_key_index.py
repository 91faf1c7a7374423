"""Rows are found by their key whatever has been written, and however often the index was begun."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from agent.triage.ledger import RecordedAnswer
from schemas.tables import LEDGER
from streaming.delta import key_index
from streaming.delta.key_index import INDEX, KeyIndex
from streaming.delta.lake import LakeTable, Stamp
from streaming.delta.ledger import LakeLedger, ledger_stream
from streaming.delta.maintenance import MaintenanceLimits, clear, maintain
from streaming.delta.stored import StoredTable, open_version

SCHEMA = pa.schema([("sequence", pa.int64()), ("id", pa.string()), ("amount", pa.float64())])
IDS = [*(f"t{number}" for number in range(12)), "", "ü", "\N{GRINNING FACE}"]


def table_of(folder: Path) -> LakeTable:
    table = LakeTable(folder / "things", SCHEMA, "agent/epoch", timedelta(0))
    table.claim(table.epoch + 1)
    return table


def put(table: LakeTable, number: int, first: int, ids: Sequence[str]) -> None:
    rows = {"sequence": range(first, first + len(ids)), "id": ids, "amount": [1.0] * len(ids)}
    table.append(pa.table(rows, schema=SCHEMA), Stamp("app", number))


def reading(folder: Path) -> StoredTable:
    table = open_version(folder / "things")
    assert table is not None
    return table


def found(index: KeyIndex, keys: Sequence[str]) -> list[tuple[int, str]]:
    rows = index.rows(pa.array(keys, pa.string()), ["amount"])
    assert rows.column_names == ["sequence", "id", "amount"]
    return list(zip(rows["sequence"].to_pylist(), rows["id"].to_pylist(), strict=True))


@given(
    commits=st.lists(st.lists(st.sampled_from(IDS), max_size=30), min_size=1, max_size=8),
    keys=st.lists(st.sampled_from([*IDS, "never"]), max_size=6),
    again=st.booleans(),
    tidy=st.booleans(),
)
@examples(deadline=None, max_examples=30, derandomize=True, suppress_health_check=list(HealthCheck))
def test_it_finds_what_reading_all_rows_finds(
    tmp_path_factory: pytest.TempPathFactory,
    commits: list[list[str]],
    keys: list[str],
    again: bool,
    tidy: bool,
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_index, "_BITS", 4)
        patch.setattr(key_index, "_SPAN", 16)
        patch.setattr(key_index, "_PLACE", key_index._PLACE.dtype.type(15))
        table, stored = table_of(folder), [each for commit in commits for each in commit]
        index, first = KeyIndex(reading(folder), "id", "sequence"), 0
        for number, ids in enumerate(commits):
            put(table, number, first, ids)
            first += len(ids)
            if again:
                index = KeyIndex(reading(folder), "id", "sequence")
            index._table.refresh()
            wanted = [(place, each) for place, each in enumerate(stored[:first]) if each in keys]
            assert found(index, keys) == wanted
            if tidy:
                maintain(table.path, MaintenanceLimits(2, 2, 2, timedelta(0)))
                clear(table.path, MaintenanceLimits(2, 2, 2, timedelta(0)))


def test_it_is_made_anew_where_it_was_removed_or_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_index, "_BITS", 4)
    monkeypatch.setattr(key_index, "_SPAN", 16)
    monkeypatch.setattr(key_index, "_PLACE", key_index._PLACE.dtype.type(15))
    put(table_of(tmp_path), 0, 0, [f"t{number}" for number in range(100)])
    assert found(KeyIndex(reading(tmp_path), "id", "sequence"), ["t7", "t99"]) == [(7, "t7"), (99, "t99")]
    kept = tmp_path / "things" / INDEX / "id"
    assert len(list(kept.glob("*.npy"))) == 6
    next(kept.glob(f"*{3:08}.npy")).write_bytes(b"")
    assert found(KeyIndex(reading(tmp_path), "id", "sequence"), ["t50", "t51"]) == [(50, "t50"), (51, "t51")]
    shutil.rmtree(kept)
    kept.write_text("in the way")
    assert found(KeyIndex(reading(tmp_path), "id", "sequence"), ["t7", "t99"]) == [(7, "t7"), (99, "t99")]


@pytest.mark.parametrize("left", ["", "zzzz"])
def test_a_seed_that_was_never_written_whole_is_drawn_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """Killed between creating the file and writing it: what is kept under one seed must be found by all."""
    monkeypatch.setattr(key_index, "_BITS", 4)
    monkeypatch.setattr(key_index, "_SPAN", 16)
    monkeypatch.setattr(key_index, "_PLACE", key_index._PLACE.dtype.type(15))
    put(table_of(tmp_path), 0, 0, [f"t{number}" for number in range(40)])
    kept = tmp_path / "things" / INDEX / "id"
    kept.mkdir(parents=True)
    (kept / "seed").write_text(left)
    for _ in range(3):
        index = KeyIndex(reading(tmp_path), "id", "sequence")
        assert found(index, ["t3", "t39"]) == [(3, "t3"), (39, "t39")]
    assert len(list(kept.iterdir())) == 3, "a seed and two spans"


def test_spans_of_another_seed_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process leaves them whose disk had room for its spans, but not yet for their seed."""
    monkeypatch.setattr(key_index, "_BITS", 4)
    monkeypatch.setattr(key_index, "_SPAN", 16)
    monkeypatch.setattr(key_index, "_PLACE", key_index._PLACE.dtype.type(15))
    put(table_of(tmp_path), 0, 0, [f"t{number}" for number in range(40)])
    assert found(KeyIndex(reading(tmp_path), "id", "sequence"), ["t3"]) == [(3, "t3")]
    (tmp_path / "things" / INDEX / "id" / "seed").unlink()
    assert found(KeyIndex(reading(tmp_path), "id", "sequence"), ["t3"]) == [(3, "t3")]


def test_a_ledger_reads_nothing_when_it_opens_and_finds_the_oldest_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = LakeTable(tmp_path / "ledger", LEDGER, "cards/epoch", timedelta(days=30))
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
