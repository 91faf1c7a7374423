"""The triage ledger kept in Delta: questions before they are asked, answers before they are used."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from agent.triage.ledger import Intent, RecordedAnswer
from schemas.instants import Clock
from schemas.llm import PromptReference
from schemas.tables import LEDGER
from streaming.delta.key_index import KeyIndex
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.shared_table import SharedTable
from streaming.delta.whole_tables import read_stored
from streaming.store.place import Place

_HELD = 10_000


def ledger_stream(agent: str) -> str:
    """Return the application id under which an agent's ledger numbers its commits."""
    return f"{agent}/ledger"


class LakeLedger:
    """See agent.triage.ledger.Ledger; every call that writes is one commit.

    Args:
        table: the ledger table, claimed by this driver.
        agent: the agent's name.
        clock: current time, written beside each entry.

    Answers are looked up when they are asked for; those newly recorded or found are held in memory, some ten
    thousand of them.
    """

    def __init__(self, table: LakeTable, agent: str, clock: Clock) -> None:
        self._table, self._app_id, self._clock = table, ledger_stream(agent), clock
        self._by_key = KeyIndex(table, "key", "commit")
        self._answers: dict[str, RecordedAnswer] = {}

    def recorded(self, keys: Collection[str]) -> Mapping[str, RecordedAnswer]:
        """Return the answers on record among `keys`; the first recorded under a key holds."""
        unknown = [key for key in keys if key not in self._answers]
        if unknown:
            for row in self._by_key.rows(pa.array(unknown, pa.string()), LEDGER.names).to_pylist():
                if row["kind"] == "answer":
                    self._answers.setdefault(row["key"], _answer(row))
        found = {key: self._answers[key] for key in keys if key in self._answers}
        while len(self._answers) > _HELD:
            del self._answers[next(iter(self._answers))]
        return found

    def intend(self, entries: Sequence[Intent]) -> None:
        """Record questions before they are asked."""
        self._append("intent", [dataclasses.asdict(entry) for entry in entries])

    def record(self, answers: Sequence[RecordedAnswer]) -> None:
        """Record answers before they are used."""
        self._append("answer", [dataclasses.asdict(answer) for answer in answers])
        for answer in answers:
            self._answers.setdefault(answer.key, answer)

    def _append(self, kind: str, entries: Sequence[dict[str, Any]]) -> None:
        if not entries:
            return
        commit = self._table.last_batch(self._app_id) + 1
        common = {"kind": kind, "at": self._clock(), "commit": commit}
        rows = pa.Table.from_pylist([{**entry, **common} for entry in entries], schema=LEDGER)
        self._table.append(rows, Stamp(self._app_id, commit))


class SharedLedger(LakeLedger):
    """A ledger that several processes write side by side; what others record meanwhile is not seen.

    Args:
        table: the ledger table, which nobody claims.
        writer: what numbers the commits.
        clock: current time, written beside each entry.
    """

    def __init__(self, table: SharedTable, writer: str, clock: Clock) -> None:
        super().__init__(table, writer, clock)
        self._by_turns = table.by_turns

    def _append(self, kind: str, entries: Sequence[dict[str, Any]]) -> None:
        append = super()._append
        self._by_turns(lambda: append(kind, entries))


def answers_on_record(place: Place, prompt: PromptReference, model: str) -> dict[str, RecordedAnswer]:
    """Read the answers of one model to one prompt from a ledger, by key; none when there is none."""
    where = (
        (pc.field("kind") == "answer")
        & (pc.field("prompt_id") == prompt.id)
        & (pc.field("prompt_version") == prompt.version)
        & (pc.field("model") == model)
    )
    rows = read_stored(place, where=where)
    answers: dict[str, RecordedAnswer] = {}
    for row in [] if rows is None else rows.sort_by("commit").to_pylist():
        answers.setdefault(row["key"], _answer(row))
    return answers


def _answer(row: Mapping[str, Any]) -> RecordedAnswer:
    values = {field.name: row.get(field.name) for field in dataclasses.fields(RecordedAnswer)}
    return RecordedAnswer(**values | {"evidence": tuple(row["evidence"] or ())})
