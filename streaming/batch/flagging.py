"""Step 5's input: the transactions that become alerts, and what triage learns about each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa

from agent.triage.grouping import FlaggedRow
from agent.triage.rule_classifier import RuleClassification
from schemas.alert import ALERT_KIND, Reason, absence_kind, alert_ids
from schemas.contract import EventContract
from schemas.durations import duration_text, elapsed_text
from schemas.rules import Rule
from streaming.arrays.columns import microseconds, numbers
from streaming.arrays.compilation import Flags, Ints
from streaming.batch.decider import CONTRIBUTIONS, OURS, Decider, Judged
from streaming.rules.patterns import Missed, Recognised

_REMEMBERED = "as the transaction was scored"

Refuses = Callable[[FlaggedRow, int | None], bool]
"""Whether a flagged row is left out; of an absence the `sequence` that made it certain is given, too."""


@dataclass(frozen=True)
class Flagged:
    """What becomes alerts: rows of the batch in `sequence` order, then events that were left without another.

    Attributes:
        table: their transactions, see Decider.described.
        rows: what triage learns about each.
        texts: what each of the rules hit says.
        kinds: of the alerts.
        passed_by: of an absence the `sequence` of the row that made it certain.
    """

    table: pa.Table
    rows: list[FlaggedRow]
    texts: list[list[str]]
    kinds: list[str]
    passed_by: list[int | None]

    def only(self, chosen: Sequence[bool]) -> Flagged:
        """Return those that are chosen, in the same order."""
        return Flagged(
            self.table.filter(pa.array(chosen, pa.bool_())),
            list(compress(self.rows, chosen)),
            list(compress(self.texts, chosen)),
            list(compress(self.kinds, chosen)),
            list(compress(self.passed_by, chosen)),
        )


def flag(decider: Decider, transactions: pa.Table, judged: Judged) -> Flagged:
    """Pick the rows at or above the threshold or hit by a rule, then those of absences now certain."""
    hits = _all_hits(decider.rules.rules, judged)
    positions = np.flatnonzero((judged.scored.score >= judged.scored.threshold) | hits.any(axis=1))
    flagged = _flagged_rows(decider, transactions, judged, positions, hits)
    missed = [each for each in judged.recognised.missed if each.rows.num_rows]
    return _joined([flagged, *(_flagged_absences(decider, each) for each in missed)])


def without_refused(
    flagged: Sequence[Flagged], refuses: Refuses | None
) -> tuple[tuple[Flagged, ...], tuple[str, ...]]:
    """Part what is to be alerted from what is left out; return the former and the latter's ids, in order."""
    if refuses is None:
        return tuple(flagged), ()
    kept, refused = [], []
    for each in flagged:
        left_out = [refuses(row, passed) for row, passed in zip(each.rows, each.passed_by, strict=True)]
        refused += [row.alert_id for row in compress(each.rows, left_out)]
        kept.append(each.only([not out for out in left_out]) if any(left_out) else each)
    return tuple(kept), tuple(refused)


def sequence_text(rule: Rule, first: int, then: int) -> str:
    """Say what completed a sequence; times in microseconds since 1970."""
    elapsed = elapsed_text((then - first) / 1e6)
    return f"{rule.reason}: {elapsed} after the first, at {_moment(first)}"


def absence_text(rule: Rule, after: datetime, passed_at: int) -> str:
    """Say what was missed; `passed_at` in microseconds since 1970."""
    assert rule.absence is not None, "only absence rules"
    within, since = duration_text(rule.absence.within.total_seconds()), after.astimezone(UTC)
    return f"{rule.reason}: not within {within} of {since:%Y-%m-%d %H:%M:%S} UTC, as of {_moment(passed_at)}"


def _all_hits(rules: Sequence[Rule], judged: Judged) -> Flags:
    """Return which rule holds for which row, bool[rows, rules], sequences included."""
    completed = [each for each in judged.recognised.completed if len(each.positions)]
    hits = judged.hits.copy() if completed else judged.hits
    for each in completed:
        hits[each.positions, rules.index(each.pattern.rule)] = True
    return hits


def _sentences(transactions: pa.Table, recognised: Recognised) -> dict[tuple[int, str], str]:
    """Return what each completed sequence says, by row and rule."""
    sentences: dict[tuple[int, str], str] = {}
    for each in recognised.completed:
        rule, times = each.pattern.rule, transactions["event_time"].take(pa.array(each.positions))
        moments = numbers(microseconds(times), pa.int64()).tolist()
        hits = zip(each.positions.tolist(), each.since.tolist(), moments, strict=True)
        sentences |= {
            (position, rule.name): sequence_text(rule, first, then) for position, first, then in hits
        }
    return sentences


def _flagged_rows(
    decider: Decider, transactions: pa.Table, judged: Judged, positions: Ints, hits: Flags
) -> Flagged:
    table, rules = decider.described(transactions, judged.scored, positions), decider.rules.rules
    identifiers = alert_ids(decider.spec.name, table["transaction_id"].to_pylist())
    explained, sentences = judged.scored.reasons_of(positions), _sentences(transactions, judged.recognised)
    rows, texts = [], []
    for place, (row, position) in enumerate(zip(table.to_pylist(), positions.tolist(), strict=True)):
        held = [rules[number] for number in np.flatnonzero(hits[position])]
        said = {rule.name: sentences.get((position, rule.name), rule.reason) for rule in held}
        reasons = tuple(explained[place])
        by_rules = decider.classifier.classify(row[f"{OURS}score"], reasons, tuple(said), said)
        rows.append(_flagged_row(decider.contract, row, identifiers[place], reasons, by_rules, tuple(said)))
        texts.append(list(said.values()))
    return Flagged(table, rows, texts, [ALERT_KIND] * len(rows), [None] * len(rows))


def _flagged_absences(decider: Decider, missed: Missed) -> Flagged:
    rule, table = missed.pattern.rule, missed.rows
    kind = absence_kind(rule.name)
    identifiers = alert_ids(decider.spec.name, table["transaction_id"].to_pylist(), kind)
    rows, texts = [], []
    for place, row in enumerate(table.to_pylist()):
        text = absence_text(rule, row["event_time"], int(missed.passed_at[place]))
        reasons = _remembered_reasons(decider.layout.reasons, row[CONTRIBUTIONS])
        # The score's reasons say nothing about what was missed, so they do not name it.
        by_rules = decider.classifier.classify(row[f"{OURS}score"], (), (rule.name,), {rule.name: text})
        rows.append(_flagged_row(decider.contract, row, identifiers[place], reasons, by_rules, (rule.name,)))
        texts.append([text])
    return Flagged(table, rows, texts, [kind] * len(rows), missed.passed_by.tolist())


def _remembered_reasons(names: Sequence[str], parts: Sequence[float]) -> tuple[Reason, ...]:
    ranked = sorted(zip(names, parts, strict=True), key=lambda each: each[1], reverse=True)
    return tuple(Reason(name, part, _REMEMBERED) for name, part in ranked if part != 0.0)


def _flagged_row(
    contract: EventContract,
    row: Mapping[str, Any],
    identifier: str,
    reasons: tuple[Reason, ...],
    by_rules: RuleClassification,
    rules: tuple[str, ...],
) -> FlaggedRow:
    return FlaggedRow(
        alert_id=identifier,
        transaction_id=row["transaction_id"],
        amount=row["amount"],
        currency=row["currency"],
        entities={name: row[name] for name in contract.entity_names if row[name] is not None},
        event_time=row["event_time"],
        score=row[f"{OURS}score"],
        reasons=reasons,
        rules=rules,
        by_rules=by_rules,
        untrusted={name: row[name] for name in contract.untrusted_text if row[name] is not None},
    )


def _joined(parts: Sequence[Flagged]) -> Flagged:
    if len(parts) == 1:
        return parts[0]
    first = parts[0].table
    table = pa.concat_tables([part.table.select(first.column_names).cast(first.schema) for part in parts])
    lists = (
        [each for part in parts for each in getattr(part, name)]
        for name in ("rows", "texts", "kinds", "passed_by")
    )
    return Flagged(table, *lists)


def _moment(micros: int) -> str:
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros):%Y-%m-%d %H:%M:%S} UTC"
