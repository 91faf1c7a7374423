"""The frauds that labels know: which rule or score has caught each, and why the others were missed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field

from schemas.event_columns import DIRECTION, REFUND
from schemas.spec import AgentSpec
from streaming.arrays.compilation import Ints
from streaming.batch.backfill_mark import PIN as BACKFILL
from streaming.delta.key_index import KeyIndex
from streaming.delta.lake_reader import LakeReader
from streaming.delta.stored import StoredTable
from streaming.inbox.view import InboxView
from streaming.labels.book import LabelBook
from streaming.serve.labels_found import FoundLabels
from streaming.serve.rule_figures import DAY_US, LEAST_JUDGED, DaySpan

_MOST_MISSED = 200
_LABEL = ["transaction_id", "is_fraud", "decided_at"]
_COLUMNS = ["event_time", "amount", "currency"]

WhyMissed = Literal["backfilled", "learning", "below_threshold", "since_changed"]


class UncaughtFraud(BaseModel):
    """A transaction with a fraud label and without an alert."""

    transaction_id: str
    event_time: datetime
    amount: float
    currency: str | None
    direction: str | None = Field(description="payment or refund, where the contract knows refunds")
    entity: str = Field(description="the primary one's id")
    why: WhyMissed = Field(
        description="`backfilled`: loaded from history, where nobody is alerted; `learning`: before any "
        "score could raise an alert; `below_threshold`: no rule has hit it, and its score was too low; "
        "`since_changed`: the version in force would alert it, as a what-if has found"
    )
    score: float | None = Field(
        default=None, description="by the newest what-if without changes that has it; null without one"
    )
    threshold: float | None = Field(default=None, description="the score that it needed, likewise")
    reason: str | None = Field(default=None, description="what raised the score most, likewise")


class Recall(BaseModel):
    """How many of the known frauds of a span were alerted."""

    frauds: int = Field(description="transactions of the span with a fraud label")
    caught: int = Field(description="those with an alert")
    recall: float | None = Field(description="their share; null where fewer than 10 frauds are known")
    caught_by: dict[str, int] = Field(description="rule → frauds; what several rules hit counts for each")
    caught_by_score: int = Field(description="frauds with an alert that no rule has hit")
    caught_amounts: dict[str, float] = Field(description="currency → what the caught payments come to")
    missed_amounts: dict[str, float] = Field(description="currency → what the other payments come to")
    caught_refunds: dict[str, float] = Field(description="currency → what the caught refunds come to")
    missed_refunds: dict[str, float] = Field(description="currency → what the other refunds come to")
    by_why: dict[str, int] = Field(description="why they were missed → frauds")
    missed: list[UncaughtFraud] = Field(description="of the largest amounts, the largest first, 200 at most")
    not_stored: int = Field(
        description="fraud labels since the span began on transactions that this agent has not stored"
    )


class KnownFrauds:
    """Finds the frauds of one agent's lake. Safe to use from several threads.

    Args:
        reader: of the lake; what is new is looked for each time.
        labels: of it.
        primary: the entity whose id is shown.
    """

    def __init__(self, reader: LakeReader, labels: FoundLabels, primary: str) -> None:
        self._reader, self._labels, self._primary = reader, labels, primary
        self._lock = threading.Lock()
        self._transactions: StoredTable | None = None
        self._index: KeyIndex | None = None
        self._frauds: tuple[int, pl.DataFrame] | None = None

    def newest_day(self) -> date:
        """Return the day of the newest event that is stored, today where nothing is; in UTC."""
        with self._lock:
            newest = None if not self._follow() else self._stored().maximum("event_time")
        moment = datetime.now(UTC) if newest is None else datetime.fromtimestamp(newest / 1e6, UTC)
        return moment.date()

    def rewritten_at(self) -> int:
        """Return the transactions' mark of rows erased or aged out; see StoredTable."""
        with self._lock:
            return self._stored().rewritten_at if self._follow() else -1

    def days_with_payments(self, span: DaySpan) -> int:
        """Return how many days of a span have payments, by what the statistics of files say."""
        with self._lock:
            files = self._stored().ranges("event_time") if self._follow() else []
        begin, end = (each // DAY_US for each in span.micros)
        found: set[int] = set()
        for _, low, high in files:
            first, last = (span.micros[0] if low is None else low), (span.micros[1] if high is None else high)
            found.update(range(max(first // DAY_US, begin), min(last // DAY_US + 1, end)))
        return len(found)

    def recall(self, view: InboxView, span: DaySpan, spec: AgentSpec, scored: Mapping[str, Any]) -> Recall:
        """Say how many frauds of a span were alerted, and why others were not.

        Args:
            view: the alerts.
            span: over event time.
            spec: the version in force.
            scored: transaction id → `score`, `threshold` and `reason`, or `why`, as far as they are known.
        """
        caught = _caught(view, span)
        with self._lock:
            lost, not_stored = self._lost(view, span)
            whys = self._whys(lost, spec)
        missed = [
            UncaughtFraud(**{**row, "why": why, **scored.get(row["transaction_id"], {})})
            for row, why in zip(lost.drop("sequence").to_dicts(), whys, strict=True)
        ]
        transactions = caught.unique("transaction")
        frauds = transactions.height + len(missed)
        return Recall(
            frauds=frauds,
            caught=transactions.height,
            recall=round(transactions.height / frauds, 4) if frauds >= LEAST_JUDGED else None,
            caught_by=_by_rule(caught),
            caught_by_score=caught.filter(pl.col("rule").fill_null("") == "").n_unique("transaction"),
            caught_amounts=_sums(transactions.filter(~_IS_REFUND)),
            missed_amounts=_sums(lost.filter(~_IS_REFUND)),
            caught_refunds=_sums(transactions.filter(_IS_REFUND)),
            missed_refunds=_sums(lost.filter(_IS_REFUND)),
            by_why=dict(Counter(each.why for each in missed).most_common()),
            missed=missed[:_MOST_MISSED],
            not_stored=not_stored,
        )

    def _lost(self, view: InboxView, span: DaySpan) -> tuple[pl.DataFrame, int]:
        """Return the frauds without an alert, the largest first, and how many labels are on nothing stored.

        Labels are decided after the event, so older ones are of no transaction of the span.
        """
        nothing = pl.DataFrame(schema={"transaction_id": pl.String, **_KINDS})
        book = self._labels.book()
        if book is None or not self._follow():
            return nothing, 0
        begin, end = (datetime.fromtimestamp(each / 1e6, UTC) for each in span.micros)
        labels = self._judged(book).filter(pl.col("decided_at") >= begin - timedelta(days=1))
        ids = labels["transaction_id"].to_arrow().cast(pa.large_string())
        alerted = pc.unique(view.texts["transaction"].filter(pc.is_in(view.texts["transaction"], ids)))
        open_ids = ids.filter(pc.invert(pc.is_in(ids, alerted))).cast(pa.string())
        assert self._index is not None, "it is made with the table"
        knows = DIRECTION in self._stored().schema.names
        rows = pl.DataFrame(
            self._index.rows(open_ids, [*_COLUMNS, self._primary, *([DIRECTION] if knows else [])])
        )
        rows = rows if knows else rows.with_columns(pl.lit(None, pl.String).alias(DIRECTION))
        found = rows.rename({self._primary: "entity"}).unique("transaction_id", keep="first")
        inside = found.filter((pl.col("event_time") >= begin) & (pl.col("event_time") < end))
        ranked = inside.select("transaction_id", *_KINDS).sort("amount", "sequence", descending=[True, False])
        return ranked, len(open_ids) - found.height

    def _judged(self, book: LabelBook) -> pl.DataFrame:
        """Return the fraud labels in force; all labels are read anew only where some have come."""
        through = book.refreshed()
        if self._frauds is None or self._frauds[0] != through:
            latest = pl.DataFrame(
                book.latest(through=through).select(["transaction_id", "is_fraud", "decided_at"])
            )
            self._frauds = through, latest.filter("is_fraud")
        return self._frauds[1]

    def _whys(self, lost: pl.DataFrame, spec: AgentSpec) -> list[WhyMissed]:
        backfilled = self._backfilled_through() if lost.height else 0
        learnt = spec.rows_to_learn
        return [
            "backfilled" if each < backfilled else "learning" if each < learnt else "below_threshold"
            for each in lost["sequence"].to_list()
        ]

    def _backfilled_through(self) -> int:
        """What was loaded from history comes before all else."""
        loaded = pc.match_substring(pc.field("pins"), f'"{BACKFILL}"')
        rows = self._reader.anew().frame("batches", ["next_sequence"], loaded)
        return max(rows["next_sequence"].to_list(), default=0)

    def _follow(self) -> bool:
        """Return whether there are transactions; where there are, they are seen as they are now."""
        if self._transactions is None:
            self._transactions = self._reader.anew().table("transactions")
            if self._transactions is not None:
                self._index = KeyIndex(self._transactions, "transaction_id", "sequence")
        else:
            self._transactions.refresh()
        return self._transactions is not None

    def _stored(self) -> StoredTable:
        assert self._transactions is not None, "asked before"
        return self._transactions


_KINDS: Mapping[str, Any] = {
    "sequence": pl.Int64, "event_time": pl.Datetime("us", "UTC"), "amount": pl.Float64,
    "currency": pl.String, "direction": pl.String, "entity": pl.String,
}  # fmt: skip
_IS_REFUND = (pl.col(DIRECTION) == REFUND).fill_null(value=False)


def _caught(view: InboxView, span: DaySpan) -> pl.DataFrame:
    """Return transaction, amount, currency, direction and rules of a span's alerts labelled as frauds."""
    times, (begin, end) = view.numbers["time"], span.micros
    frauds = view.words["label"].chosen(lambda word: word == "fraud")
    rows: Ints = np.flatnonzero(frauds & (times >= begin) & (times < end))
    words = {name: view.words[name] for name in ("rule", "currency", DIRECTION)}
    return pl.DataFrame(
        {
            "transaction": pl.Series(view.texts["transaction"].take(pa.array(rows, pa.int64()))),
            "amount": view.numbers["amount"][rows],
            **{
                name: pl.Series([each.words[code] for code in each.codes[rows]], dtype=pl.String)
                for name, each in words.items()
            },
        }
    )


def _by_rule(caught: pl.DataFrame) -> dict[str, int]:
    pairs: Iterable[tuple[str, str | None]] = caught.select("transaction", "rule").iter_rows()
    each = {(transaction, name) for transaction, rules in pairs for name in (rules or "").split()}
    return dict(Counter(name for _, name in each).most_common())


def _sums(rows: pl.DataFrame) -> dict[str, float]:
    sums = rows.group_by("currency").agg(pl.col("amount").sum()).sort("currency")
    return {currency: round(amount, 2) for currency, amount in sums.iter_rows() if currency is not None}
