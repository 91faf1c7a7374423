"""What-if: decides history under another spec, in a sandbox, and says what would have been different.

Of the transactions no more is held at a time than a slice of them, with its labels; of the alerts of both
sides a few columns each are kept until the end, since the report sets one side against the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from schemas.alert import ALERT_KIND, ALERTS
from schemas.errors import ConfigurationError
from schemas.instants import Clock, earlier, utc_now
from schemas.spec import AgentSpec
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake_reader import AgentLake, LakeReader
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.history.candidate_answers import CandidateAnswers, Published
from streaming.history.decided import DecidedHistory
from streaming.history.missed_frauds import no_frauds, scored_frauds
from streaming.history.moved_alerts import ONE_ALERT
from streaming.history.replay import Replayer
from streaming.history.replayed import Slice
from streaming.history.spans import Span, raised_in, within
from streaming.history.what_if_found import WhatIf
from streaming.history.what_if_report import BothSides, Tally, compared
from streaming.labels.book import LabelBook
from streaming.store.place import Place

_KEPT = [
    *ONE_ALERT, "alert_id", "transaction_id", "event_time", "amount", "currency", "score", "severity",
    "classification", "classification_source", "direction",
]  # fmt: skip
_TAKEN_APART = ["entities", "reasons", "rules"]
_DAY_US = 86_400_000_000


def what_if(
    replayer: Replayer,
    history: DecidedHistory,
    ours: AgentDefinition,
    candidate: AgentDefinition,
    span: Span,
    sandbox: Path,
    warm_up: timedelta | None = None,
    clock: Clock = utc_now,
    answers: CandidateAnswers | None = None,
) -> WhatIf:
    """Decide a span under a candidate. Nothing is published.

    Args:
        replayer: decides.
        history: what was decided.
        ours: names the tables.
        candidate: another definition with the same contract.
        span: which transactions.
        sandbox: folder for the candidate's alerts table; must not exist.
        warm_up: where no checkpoint fits the candidate's profiles, the span of event time that they are to
            know before their first row; by default all of history.
        clock: current time, by which labels mature.
        answers: gives the candidate's alerts their classifications; by default those by rules.

    Raises:
        ConfigurationError: the candidate has another contract, or a version is gone; nothing is written then.
    """
    _check_same_contract(ours, candidate)
    spec, under = ours.spec, candidate.spec
    answers = answers or CandidateAnswers()
    tables = history.tables(span)
    cold_from = warm_up and replayer.cold_start(under, tables.transactions, span.first, warm_up)
    slices = replayer.slices(under, tables.transactions, span, cold_from or 0)
    labels = _Labels.of(history, spec)
    beside = LakeReader.of(AgentLake(Place.local(sandbox), under))
    sink = LakeTable(beside.place("alerts"), ALERTS, "replay/epoch", spec.replay_horizon)
    parts = _Decided(history, span, answers, sink, labels, ours.contract.primary_entity)
    found = parts.of(slices, (history.pinned(span)[-1].spec.alerts_per_day, under.alerts_per_day))
    maturity = spec.promotion.maturity
    return WhatIf(
        span=span,
        candidate=f"{under.name} {under.version}",
        labels_through=labels.through,
        answering=answers.report,
        maturity=maturity,
        matured=found.matured(earlier(clock(), maturity)),
        sandbox=sandbox,
        cold_from=cold_from or None,
        **compared(found),
    )


def _check_same_contract(ours: AgentDefinition, candidate: AgentDefinition) -> None:
    if ours.contract.digest != candidate.contract.digest:
        raise ConfigurationError(
            f"the candidate is for contract {candidate.contract.name!r}, what is stored follows "
            f"{ours.contract.name!r}, or another version of it: name a candidate of the same contract",
            where="the candidate",
        )


@dataclass(frozen=True)
class _Labels:
    """The labels known when a what-if began: those with a lower label_sequence than `through`."""

    book: LabelBook
    through: int

    @classmethod
    def of(cls, history: DecidedHistory, spec: AgentSpec) -> _Labels:
        book = LabelBook(history.reader.place("labels"), retention=spec.replay_horizon)
        return cls(book, book.refreshed())

    def on(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows, of which one column is transaction_id, with the label in force, null without one."""
        labels = self.book.latest_on(rows["transaction_id"], self.through)
        return rows.join(labels, on="transaction_id", how="left", maintain_order="left")


@dataclass(frozen=True)
class _Decided:
    """Puts together what came of the slices of a span."""

    history: DecidedHistory
    span: Span
    answers: CandidateAnswers
    sink: LakeTable
    labels: _Labels
    primary: str

    def of(self, slices: Iterator[Slice], budgets: tuple[float | None, float | None]) -> BothSides:
        """Decide the slices, write the candidate's alerts, and keep what the report needs."""
        tables, late = self.history.tables(self.span), self.history.late_answers(self.span)
        ends, tally = self.history.batch_ends(self.span), Tally()
        before, after = [self._slim(ALERTS.empty_table())], [self._slim(ALERTS.empty_table())]
        frauds = [no_frauds()]
        for number, part in enumerate(slices):
            published = Published.of(raised_in(tables.alerts, part.span), within(late, part.span))
            alerts = part.alerts(self.answers.answer(part.flagged, published, ends))
            self.sink.append(alerts, Stamp("replay", number))
            before.append(self._slim(published.table))
            after.append(self._slim(alerts))
            known = self.labels.on(pl.DataFrame(part.rows.select(["transaction_id", "event_time"])))
            frauds.append(scored_frauds(part, known["is_fraud"], self.primary))
            tally += self._tally(known)
        return BothSides(pl.concat(before), pl.concat(after), tally, budgets, pl.concat(frauds))

    def _tally(self, known: pl.DataFrame) -> Tally:
        times = known["event_time"].dt.epoch("us")
        days = frozenset((times // _DAY_US).unique().to_list())
        frauds = int(known["is_fraud"].sum())
        return Tally(known.height, frauds, int(times.to_numpy().min()), int(times.to_numpy().max()), days)

    def _slim(self, alerts: pa.Table) -> pl.DataFrame:
        """Keep some columns, with the label on the transaction unless it lies before the span."""
        rows = alerts.select([*_TAKEN_APART, "kind"]).to_pylist()
        kept = pl.DataFrame(alerts.select(_KEPT)).with_columns(
            pl.Series("entity", [dict(row["entities"])[self.primary] for row in rows], pl.String),
            pl.Series("reason", [_strongest(row) for row in rows], pl.String),
        )
        inside = pl.when(pl.col("sequence") >= self.span.first).then("is_fraud")
        return self.labels.on(kept).with_columns(is_fraud=inside).sort(ONE_ALERT)


def _strongest(alert: dict[str, Any]) -> str:
    first = alert["reasons"][0] if alert["reasons"] and alert["kind"] == ALERT_KIND else None
    if first is not None and first["contribution"] > 0:
        return str(first["name"])
    return f"rule {alert['rules'][0]}" if alert["rules"] else "none"
