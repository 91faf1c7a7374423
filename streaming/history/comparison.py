"""How alerts that were decided twice differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from agent.triage.rule_classifier import highest
from schemas.erasure import holds_token
from schemas.rules import Severity
from streaming.history.tolerance import Leeway

_OF_THE_BATCH = frozenset({"query_id", "batch_id", "created_at", "outbox_seq", "revision"})
_BY_THE_MODEL = frozenset({"classification", "severity", "rationale"})
_BY_TRIAGE = frozenset(
    {"classification_source", "fallback_reason", "model", "prompt_id", "prompt_version", "evidence"}
    | {"clipped"}  # follows from the fields it names
)
_BY_THE_ID = frozenset({"alert_id"})  # what was published under an id that was erased stays as it was
_BY_KEY = [("sequence", "ascending"), ("kind", "ascending")]
_ON_RECORD = ("model", "prompt_id", "prompt_version", "classification")

RecordedLabels = frozenset[tuple[Any, ...]]


@dataclass(frozen=True)
class Difference:
    """One alert that a replay decides otherwise.

    Attributes:
        what: `missing` from the replay, `added` by it, or `changed`.
        fields: what changed, name → (published, replayed); an LLM's label that no answer on record gave is
            replayed as None.
    """

    alert_id: str
    transaction_id: str
    sequence: int
    what: str
    fields: dict[str, tuple[Any, Any]] = field(default_factory=dict)


def differences_of_late(
    answers: pa.Table, published: pa.Table, recorded: RecordedLabels
) -> Iterator[Difference]:
    """Compare second revisions with first ones, both of schema `ALERTS`.

    A late answer differs from the first revision in what the model said, which is on record, and in nothing
    else.
    """
    if not answers.num_rows:
        return
    first = {row["alert_id"]: row for row in published.to_pylist()}
    for answer in answers.to_pylist():
        yield from _compared(answer, first.get(answer["alert_id"]), recorded)


def differences_between(
    published: pa.Table, replayed: pa.Table, recorded: RecordedLabels, leeway: Leeway | None = None
) -> Iterator[Difference]:
    """Compare first revisions with what a replay decides, both of schema `ALERTS`, by sequence and kind.

    What the batch alone determines is left out. A label of a model is compared with what it said on record:
    its severity is the higher one of the answer's and the rules'.

    Args:
        recorded: model, prompt's id and version, classification and severity of the answers on record.
        leeway: what is let pass, None for nothing.
    """
    published, replayed = _unlike(published, replayed)
    before = {_key(row): row for row in published.to_pylist()}
    after = {_key(row): row for row in replayed.to_pylist()}
    for key in sorted(before.keys() | after.keys()):
        yield from _compared(before.get(key), after.get(key), recorded, leeway)


def _unlike(published: pa.Table, replayed: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return what is to be compared row by row: of tables that hold the same, what a model said alone."""
    published, replayed = (each.sort_by(_BY_KEY) for each in (published, replayed))
    by_model = pc.fill_null(pc.equal(published["classification_source"], "llm"), False)
    if published.num_rows != replayed.num_rows:
        return published, replayed
    before, after = (each.filter(pc.invert(by_model)) for each in (published, replayed))
    names = [name for name in published.column_names if name not in _OF_THE_BATCH | _BY_TRIAGE]
    said = [name for name in names if name in _BY_THE_MODEL]
    others = [name for name in names if name not in _BY_THE_MODEL]
    if not (_hold_the_same(published, replayed, others) and _hold_the_same(before, after, said)):
        return published, replayed
    return published.filter(by_model), replayed.filter(by_model)


def _hold_the_same(published: pa.Table, replayed: pa.Table, names: Sequence[str]) -> bool:
    return all(name in replayed.column_names and published[name].equals(replayed[name]) for name in names)


def _key(alert: dict[str, Any]) -> tuple[int, str]:
    return alert["sequence"], alert["kind"]


def _compared(
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    recorded: RecordedLabels,
    leeway: Leeway | None = None,
) -> Iterator[Difference]:
    if before is None or after is None:
        row, what = (after, "added") if before is None else (before, "missing")
        assert row is not None
        if leeway is None or not leeway.flips(row):
            yield Difference(row["alert_id"], row["transaction_id"], row["sequence"], what)
        return
    changed = _changed(before, after, recorded)
    if changed and leeway is not None:
        changed = leeway.beyond(before, after, changed)
    if changed:
        yield Difference(before["alert_id"], before["transaction_id"], before["sequence"], "changed", changed)


def _changed(before: dict[str, Any], after: dict[str, Any], recorded: RecordedLabels) -> dict[str, Any]:
    """Return the fields that differ, name → (published, replayed)."""
    left_out = _OF_THE_BATCH | _BY_TRIAGE
    if holds_token(before["transaction_id"]):
        left_out |= _BY_THE_ID
    if before["classification_source"] == "llm":
        left_out |= _BY_THE_MODEL
    # A column that came later holds nothing in rows from before, and is absent where the table had none.
    changed = {
        name: (before[name], after.get(name))
        for name in before
        if name not in left_out and before[name] != after.get(name)
    }
    if before["classification_source"] == "llm" and not _is_on_record(before, after["severity"], recorded):
        changed |= {name: (before[name], None) for name in ("classification", "severity")}
    return changed


def _is_on_record(alert: dict[str, Any], by_rules: Severity, recorded: RecordedLabels) -> bool:
    said = tuple(alert[name] for name in _ON_RECORD)
    answers = (each[-1] for each in recorded if each[:-1] == said)
    return any(highest((severity, by_rules)) == alert["severity"] for severity in answers)
