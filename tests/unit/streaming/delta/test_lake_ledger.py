"""Answers on record are read back, those of earlier versions of prompt and table included."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from agent.triage.ledger import Intent, RecordedAnswer
from schemas.llm import PromptReference
from schemas.tables import LEDGER
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.ledger import LakeLedger, SharedLedger, answers_on_record
from streaming.delta.shared_table import SharedTable
from streaming.store.place import Place

NOW = datetime(2024, 5, 1, tzinfo=UTC)
NEW = RecordedAnswer("b" * 64, "card_testing", "high", "probing", "local", "triage", 2, 50, 10, ("alerts=2",))


def opened(folder: Path, schema: pa.Schema, epoch: int) -> LakeTable:
    table = LakeTable(Place.local(folder / "ledger"), schema, "cards/epoch", timedelta(days=30), ["evidence"])
    table.claim(epoch)
    return table


def test_a_ledger_of_prompt_version_1_is_read_and_goes_on(tmp_path: Path) -> None:
    first_version = LEDGER.remove(LEDGER.get_field_index("evidence"))
    old = opened(tmp_path, first_version, 1)
    asked = {
        "kind": "answer",
        "key": "a" * 64,
        "commit": 0,
        "at": NOW,
        "prompt_id": "triage",
        "prompt_version": 1,
    }
    said = {"model": "local", "classification": "unusual_spend", "severity": "low", "rationale": "much"}
    row = {**asked, **said, "input_tokens": 5, "output_tokens": 6}
    old.append(pa.Table.from_pylist([row], schema=first_version), Stamp("cards/ledger", 0))

    ledger = LakeLedger(opened(tmp_path, LEDGER, 2), "cards", lambda: NOW)
    before = RecordedAnswer("a" * 64, "unusual_spend", "low", "much", "local", "triage", 1, 5, 6, ())
    assert ledger.recorded(["a" * 64]) == {"a" * 64: before}
    ledger.intend([Intent("b" * 64, "triage", 2, "local", "{}")])
    ledger.record([NEW])

    again = LakeLedger(opened(tmp_path, LEDGER, 3), "cards", lambda: NOW)
    assert again.recorded(["a" * 64, "b" * 64, "c" * 64]) == {"a" * 64: before, "b" * 64: NEW}


def test_two_that_write_side_by_side_lose_nothing(tmp_path: Path) -> None:
    tables = [SharedTable(Place.local(tmp_path / "ledger"), LEDGER, timedelta(days=30)) for _ in range(2)]
    ledgers = [SharedLedger(table, "replay", lambda: NOW) for table in tables]
    answers = [replace(NEW, key=f"{number}" * 64) for number in range(6)]
    for number, answer in enumerate(answers):
        ledgers[number % 2].intend([Intent(answer.key, "triage", 2, "local", "{}")])
        ledgers[number % 2].record([answer])
    prompt = PromptReference(id="triage", version=2)
    kept = answers_on_record(Place.local(tmp_path / "ledger"), prompt, "local")
    assert kept == {answer.key: answer for answer in answers}
    assert answers_on_record(Place.local(tmp_path / "ledger"), prompt, "other") == {}
    assert (
        answers_on_record(Place.local(tmp_path / "ledger"), PromptReference(id="triage", version=1), "local")
        == {}
    )
    assert answers_on_record(Place.local(tmp_path / "nowhere"), prompt, "local") == {}
