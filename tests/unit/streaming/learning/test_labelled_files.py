"""Labels of files stay with their rows; what is no label is neither genuine nor fraud."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from streaming.learning.labelled_files import Labelled, read_labelled

CONTRACT = parse_document(
    {
        "name": "own",
        "transaction_id": {"field": "id"},
        "event_time": {"field": "ts"},
        "amount": {"field": "amount"},
        "currency": {"constant": "EUR"},
        "entities": {"card": {"field": "card"}},
        "label": {"field": "Is Fraud?", "kind": "kind"},
    },
    EventContract,
    where="test",
)
WORDS = ["0", "1", "Yes", "no", "TRUE", "false", " Fraud", "genuine", "", "NULL", "nan"]
FRAUDS = {"1", "Yes", "TRUE", " Fraud"}
NONE = {"", "NULL", "nan"}
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "ts", "card", "Is Fraud?", "kind")),
        ("amount", pa.float64()),
    ]
)


def read(path: Path, text: str) -> Labelled:
    path.write_text(text, encoding="utf-8")
    return read_labelled([path], CONTRACT)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(WORDS), st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_labels_stay_with_their_rows_past_blank_lines_and_rejects(
    tmp_path: Path, rows: list[tuple[str, bool, bool]]
) -> None:
    lines = ["id,ts,amount,card,Is Fraud?,kind"]
    for number, (word, bad, blank) in enumerate(rows):
        lines += [""] * blank
        lines.append(f"{number},2026-11-28T12:00:{number:02}Z,{-1 if bad else number},c,{word},{number}")
    found = read(tmp_path / "a.csv", "\n".join(lines))
    kept = [(number, word) for number, (word, bad, _) in enumerate(rows) if not bad]
    assert found.kinds is not None
    assert found.kinds.tolist() == [number for number, _ in kept]
    assert found.known.tolist() == [word not in NONE for _, word in kept]
    assert found.frauds.tolist() == [word in FRAUDS for _, word in kept]
    assert (found.unlabelled, found.rejected) == (
        sum(word in NONE for _, word in kept),
        len(rows) - len(kept),
    )


def test_what_was_taken_for_what_is_said(tmp_path: Path) -> None:
    lines = ["id,ts,amount,card,Is Fraud?,kind"]
    lines += [
        f"{row},2026-11-28T12:00:0{row}Z,5,c,{word}," for row, word in enumerate(["Yes", "No", "No", ""])
    ]
    found = read(tmp_path / "a.csv", "\n".join(lines))
    assert found.said() == "labels: Yes as fraud (1), No as genuine (2); left out: 1 row without a label"


@pytest.mark.parametrize("word", ["perhaps", "2", "[1]"])
def test_a_word_that_is_no_label_is_refused_by_line_and_column(tmp_path: Path, word: str) -> None:
    text = "id,ts,amount,card,Is Fraud?,kind\n1,2026-11-28T12:00:00Z,5,c,0,\n\n"
    text += f"2,2026-11-28T12:00:00Z,5,c,{word},\n"
    with pytest.raises(
        ConfigurationError, match=r"a\.csv:4: column 'Is Fraud\?' is .*; expected 0 or 1, true"
    ):
        read(tmp_path / "a.csv", text)


def test_labels_of_json_may_be_of_any_type(tmp_path: Path) -> None:
    labels: list[Any] = [True, False, 1, 0, 1.0, "yes", None]
    lines = [
        json.dumps(
            {"id": str(row), "ts": "2026-11-28T12:00:00Z", "amount": 1, "card": "c", "Is Fraud?": label}
        )
        for row, label in enumerate(labels)
    ]
    found = read(tmp_path / "a.jsonl", "\n".join(lines))
    assert found.frauds.tolist() == [True, False, True, False, True, True, False]
    assert found.known.tolist() == [True] * 6 + [False]


def test_labels_of_a_delta_table_stay_with_their_rows_past_those_deleted(tmp_path: Path) -> None:
    rows = [
        {"id": str(row), "ts": f"2026-11-28T12:00:0{row}Z", "amount": 5.0, "card": "c", "Is Fraud?": word}
        for row, word in enumerate(["Yes", "No", "", "No"])
    ]
    write_deltalake(tmp_path / "a", pa.Table.from_pylist([{**row, "kind": None} for row in rows[:2]], SCHEMA))
    write_deltalake(tmp_path / "a", pa.Table.from_pylist(rows[2:], SCHEMA), mode="append")
    DeltaTable(tmp_path / "a").delete("id = '1'")
    found = read_labelled([tmp_path / "a"], CONTRACT)
    assert sorted(found.frauds[found.known].tolist()) == [False, True]
    assert (found.unlabelled, found.rejected) == (1, 0)
