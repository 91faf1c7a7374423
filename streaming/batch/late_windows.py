"""Which alerts wait for a late answer, derived from Delta: windows of the outbox, worked off one by one.

A window is on record before its first question. Opened again after a crash it holds the same alerts, so they
group into the same questions, and the ledger has the answers that were paid for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import takewhile
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from agent.triage.grouping import FlaggedRow
from agent.triage.rule_classifier import RuleClassification
from agent.triage.triage import Classification, TriageResult
from schemas.alert import Reason
from schemas.alert_size import fitted
from schemas.instants import Clock
from schemas.tables import LATE
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.stored import StoredTable

REVISION = 2
_MOST_ALERTS = 5_000
_LOOK_AHEAD = 100_000
MARKS = ("revision", "fallback_reason", "spec_version")

Texts = Mapping[int, Mapping[str, str]]


class LateWindow(NamedTuple):
    """Alerts with `first` <= outbox_seq < `end`."""

    first: int
    end: int


class LateProgress(NamedTuple):
    """The windows that are not settled, and where the next one begins."""

    open: tuple[LateWindow, ...]
    next: int


class LateJournal:
    """The `late` table: windows opened and closed, and what the questions in between took.

    Args:
        table: claimed by this driver, written by one thread.
        agent: the agent's name.
        clock: current time, written beside each entry.
    """

    def __init__(self, table: LakeTable, agent: str, clock: Clock) -> None:
        self._table, self._app_id, self._clock = table, f"{agent}/late", clock
        self._open, self._next = list[LateWindow](), 0

    def resume(self) -> LateProgress:
        """Return where an earlier driver, or an earlier attempt, has left off."""
        rows = self._table.read("commit", self._table.last_batch(self._app_id)).to_pylist()
        self._open, self._next = [], 0
        if rows:
            since = rows[0]["open_from"]
            first = rows[0]["first_outbox_seq"] if since is None else since
            self._follow(self._table.read("first_outbox_seq", first).sort_by("commit").to_pylist())
            self._next = max(self._next, rows[0]["next_outbox_seq"])
        return LateProgress(tuple(self._open), self._next)

    def opened(self, window: LateWindow, alerts: int) -> None:
        """Record a window and the number of its alerts before any is asked about."""
        self._open.append(window)
        self._next = max(self._next, window.end)
        self._note("opened", window, alerts=alerts)

    def asked(self, window: LateWindow, result: TriageResult) -> None:
        """Record what a round of questions took."""
        self._note(
            "asked",
            window,
            llm_calls=result.calls,
            input_tokens=result.input_tokens,
            output_tokens=result.output_tokens,
            cost_usd=result.cost,
        )

    def closed(self, window: LateWindow, given_up: int) -> None:
        """Record that every alert of a window is answered, or given up."""
        self._open.remove(window)
        self._note("closed", window, given_up=given_up)

    def _follow(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            window = LateWindow(row["first_outbox_seq"], row["next_outbox_seq"])
            self._next = max(self._next, window.end)
            if row["event"] == "opened":
                self._open.append(window)
            elif row["event"] == "closed":
                self._open.remove(window)

    def _note(self, event: str, window: LateWindow, **figures: float) -> None:
        commit = self._table.last_batch(self._app_id) + 1
        row = {
            **{"alerts": 0, "given_up": 0, "llm_calls": 0},
            **{"input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0},
            **{"commit": commit, "at": self._clock(), "event": event},
            **{"first_outbox_seq": window.first, "next_outbox_seq": window.end},
            "open_from": min((each.first for each in self._open), default=self._next),
            **figures,
        }
        self._table.append(pa.Table.from_pylist([row], schema=LATE), Stamp(self._app_id, commit))


def next_window(
    alerts: StoredTable, first: int, below: int, apart: frozenset[str] = frozenset()
) -> LateWindow:
    """Return the next window with deferred alerts, 5,000 of them at most; it is empty when none is near.

    Args:
        alerts: the table.
        first: outbox_seq to begin at.
        below: where to end at the latest.
        apart: versions of the spec whose alerts are to be in windows of their own.
    """
    end = min(first + _LOOK_AHEAD, below)
    found = deferred(alerts.read("outbox_seq", first, end, MARKS)).slice(0, _MOST_ALERTS)
    if found.num_rows == 0:
        return LateWindow(end, end)
    owners = [version if version in apart else None for version in found["spec_version"].to_pylist()]
    alike = sum(1 for _ in takewhile(lambda owner: owner == owners[0], owners))
    numbers = found["outbox_seq"]
    return LateWindow(numbers[0].as_py(), numbers[alike - 1].as_py() + 1)


def deferred(alerts: pa.Table) -> pa.Table:
    """Return the alerts that went out before a model was asked."""
    late = pc.equal(pc.fill_null(alerts["fallback_reason"], ""), "deferred")
    return alerts.filter(pc.and_(late, pc.equal(alerts["revision"], 1)))


def answered_since(alerts: StoredTable, first: int) -> frozenset[str]:
    """Return the ids of alerts whose late answer has an outbox_seq of at least `first`."""
    rows = alerts.read("outbox_seq", first, None, ["alert_id", "revision"])
    return frozenset(rows.filter(pc.equal(rows["revision"], REVISION))["alert_id"].to_pylist())


def texts_of(transactions: StoredTable, alerts: pa.Table, names: Sequence[str]) -> Texts:
    """Return the free texts of the alerts' transactions: `sequence` → field → text."""
    if not names or alerts.num_rows == 0:
        return {}
    bounds = pc.min_max(alerts["sequence"]).as_py()
    rows = transactions.read("sequence", bounds["min"], bounds["max"] + 1, names)
    rows = rows.filter(pc.is_in(rows["sequence"], alerts["sequence"].combine_chunks()))
    return {row["sequence"]: {name: row[name] for name in names if row[name]} for row in rows.to_pylist()}


def flagged_rows(alerts: pa.Table, texts: Texts) -> list[FlaggedRow]:
    """Return stored alerts as triage takes them; the severity stands as it was published."""
    return [
        FlaggedRow(
            alert_id=row["alert_id"],
            transaction_id=row["transaction_id"],
            amount=row["amount"],
            currency=row["currency"],
            entities=dict(row["entities"]),
            event_time=row["event_time"],
            score=row["score"],
            reasons=tuple(Reason(**reason) for reason in row["reasons"]),
            rules=tuple(row["rules"]),
            by_rules=RuleClassification(
                category=row["classification"],
                severity=row["severity"],
                rationale=row["rationale"],
            ),
            untrusted=texts.get(row["sequence"], {}),
        )
        for row in alerts.to_pylist()
    ]


def revised(
    alerts: pa.Table, answers: Mapping[str, Classification], at: datetime, max_bytes: int
) -> pa.Table:
    """Return the alerts that have an answer, as their second revision; `outbox_seq` is still the first's.

    None takes more than `max_bytes` on the topic.
    """
    chosen = alerts.filter(pc.is_in(alerts["alert_id"], pa.array(list(answers), pa.string())))
    given = TriageResult(tuple(answers[each] for each in chosen["alert_id"].to_pylist()))
    count = chosen.num_rows
    changed = {**given.columns(), "revision": [REVISION] * count, "created_at": [at] * count}
    for name, values in changed.items():
        place = chosen.schema.get_field_index(name)
        chosen = chosen.set_column(
            place, chosen.schema.field(place), pa.array(values, chosen.schema.types[place])
        )
    return fitted(chosen, max_bytes)
