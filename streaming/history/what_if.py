"""What-if: decides history under another spec, in a sandbox, and says what would have been different."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from schemas.alert import ALERT_KIND, ALERTS
from schemas.contract import EventContract, load_contract
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec
from streaming.delta.lake import LakeTable, Stamp
from streaming.history.decided import DecidedHistory, Span, raised_in, within
from streaming.history.replay import Replayer
from streaming.labels.book import LabelBook

_KEPT = [
    "sequence", "kind", "event_time", "reasons", "rules", "severity", "classification",
    "classification_source",
]  # fmt: skip
_ONE_ALERT = ["sequence", "kind"]
_FLIPS = ("severity", "classification")
_MOST_ENTITIES = 10
_DAY_US = 86_400e6


@dataclass(frozen=True)
class Side:
    """The alerts of one side over the span.

    Attributes:
        judged: transactions with alerts and a verdict.
        frauds: those confirmed as fraud.
        precision: `frauds / judged`, None without verdicts.
        recall: share of the known frauds that were alerted, None without known frauds.
        by_reason: alerts per strongest reason, or rule for alerts by rule alone.
    """

    alerts: int
    alerts_per_day: float
    judged: int
    frauds: int
    precision: float | None
    recall: float | None
    by_reason: dict[str, int]


@dataclass(frozen=True)
class Matured:
    """Transactions with alerts whose verdict had time to come: those with one, and the frauds of them."""

    judged: int
    frauds: int


@dataclass(frozen=True)
class WhatIf:
    """What a candidate spec would have decided, beside what was published.

    Attributes:
        days: length of the span in event time.
        maturity: what the published spec asks of a transaction's age before its verdict counts for promotion.
        matured: `published` and `candidate`, on transactions of that age.
        known_frauds: transactions of the span with a standing verdict of fraud.
        flips: `severity` and `classification` of the alerts on both sides, published → candidate → alerts.
        entities: primary entities with the most alerts added or removed, id → (added, removed).
        per_day: date → (published, candidate).
        unanswered: alerts of the candidate that no recorded answer of a model covers.
        sandbox: folder of the candidate's alerts table.
        cold_from: `sequence` at which the candidate's profiles began blank, None when they know everything.
    """

    span: Span
    candidate: str
    transactions: int
    days: float
    known_frauds: int
    published: Side
    replayed: Side
    added: int
    removed: int
    kept: int
    flips: dict[str, dict[str, dict[str, int]]]
    entities: dict[str, tuple[int, int]]
    per_day: dict[str, tuple[int, int]]
    unanswered: int
    maturity: timedelta
    matured: dict[str, Matured]
    sandbox: Path
    cold_from: int | None = None

    def facts(self) -> dict[str, Any]:
        """Return it JSON-serialisable with `default=str`."""
        return asdict(self)


def what_if(
    replayer: Replayer,
    history: DecidedHistory,
    spec: AgentSpec,
    candidate: AgentSpec,
    span: Span,
    sandbox: Path,
    warm_up: timedelta | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> WhatIf:
    """Decide a span under a candidate spec. Nothing is published and no model is asked.

    Where a model's answer to an alert is on record, it stands for the candidate's alert, too.

    Args:
        replayer: decides.
        history: what was decided.
        spec: names the tables.
        candidate: another spec of the same contract.
        span: which transactions.
        sandbox: folder for the candidate's alerts table; must not exist.
        warm_up: where no checkpoint fits the candidate's profiles, the span of event time that they are to
            know before their first row; by default all of history.
        clock: current time, by which verdicts mature.

    Raises:
        ConfigurationError: the candidate has another contract, or a version is gone.
    """
    primary = _same_contract(spec, candidate).primary_entity
    tables, late = history.tables(span), history.late_answers(span)
    sink = LakeTable(sandbox / candidate.tables.alerts, ALERTS, "replay", spec.replay_horizon)
    nobody = _slim(ALERTS.empty_table(), primary)
    before, after = [nobody], [nobody]
    cold_from = warm_up and replayer.cold_start(candidate, tables.transactions, span.first, warm_up)
    decided = replayer.decide(candidate, tables.transactions, span, cold_from or 0)
    for number, (part, alerts) in enumerate(decided):
        published = raised_in(tables.alerts, part)
        answers = pa.concat_tables([published, within(late, part)])
        answered = _with_answers(alerts, answers)
        sink.append(answered, Stamp("replay", number))
        before.append(_slim(_with_answers(published, answers), primary))
        after.append(_slim(answered, primary))
    rows = tables.transactions.read("sequence", *span, ["transaction_id", "event_time"])
    found = _Found(pl.concat(before), pl.concat(after), _known(history, spec, rows))
    maturity = spec.promotion.maturity
    compared = _compared(candidate, span, found, maturity, _matured(found, clock() - maturity), sandbox)
    return replace(compared, cold_from=cold_from or None)


def cold_text(cold_from: int) -> str:
    """Say that a report's candidate did not know all of history."""
    return f"the candidate's profiles started cold at sequence {cold_from} and know nothing before it"


def _same_contract(spec: AgentSpec, candidate: AgentSpec) -> EventContract:
    contracts = [load_contract(each.data_sources.transactions.contract) for each in (spec, candidate)]
    if contracts[0].digest != contracts[1].digest:
        raise ConfigurationError(
            f"the candidate is for contract {contracts[1].name!r}, what is stored follows "
            f"{contracts[0].name!r}, or another version of it",
            where="--candidate",
        )
    return contracts[0]


def _slim(alerts: pa.Table, primary: str) -> pl.DataFrame:
    ids = [dict(each)[primary] for each in alerts["entities"].to_pylist()]
    frame = pl.DataFrame(alerts.select(_KEPT)).with_columns(pl.Series("entity", ids, pl.String))
    return frame.sort(_ONE_ALERT)


def _with_answers(alerts: pa.Table, published: pa.Table) -> pa.Table:
    """Put recorded answers of a model, late ones too, in place of the deterministic labels."""
    rows = alerts.to_pylist()
    said = [row for row in published.to_pylist() if row["classification_source"] == "llm"]
    answers = {(row["sequence"], row["kind"]): row for row in said}
    given = ("classification", "rationale", "classification_source", "fallback_reason", "model", "prompt_id",
             "prompt_version", "evidence")  # fmt: skip
    for row in rows:
        answer = answers.get((row["sequence"], row["kind"]))
        if answer is not None:
            row.update({name: answer.get(name) for name in given})
    return pa.Table.from_pylist(rows, schema=ALERTS)


def _known(history: DecidedHistory, spec: AgentSpec, rows: pa.Table) -> pl.DataFrame:
    """Return sequence, event_time and the standing verdict, null without one, of all rows."""
    book = LabelBook(history.lake / spec.tables.labels, retention=spec.replay_horizon)
    verdicts = pl.DataFrame(book.verdicts()).select("transaction_id", "is_fraud")
    return pl.DataFrame(rows).join(verdicts, on="transaction_id", how="left").drop("transaction_id")


@dataclass(frozen=True)
class _Found:
    """Alerts of both sides, and the verdicts on all transactions of the span."""

    before: pl.DataFrame
    after: pl.DataFrame
    known: pl.DataFrame

    @property
    def days(self) -> float:
        """Length of the span in event time, at least a second."""
        times = self.known["event_time"].dt.epoch("us").to_numpy()
        return max(float(times.max() - times.min()), 1e6) / _DAY_US


def _matured(found: _Found, latest: datetime) -> dict[str, Matured]:
    ripe = found.known.filter(pl.col("event_time").dt.convert_time_zone("UTC") <= latest)
    sides = {"published": found.before, "candidate": found.after}
    return {name: _judged(alerts, ripe) for name, alerts in sides.items()}


def _judged(alerts: pl.DataFrame, known: pl.DataFrame) -> Matured:
    verdicts = alerts.unique("sequence").join(known, on="sequence", how="left")["is_fraud"].drop_nulls()
    return Matured(verdicts.len(), int(verdicts.sum()))


def _compared(
    candidate: AgentSpec,
    span: Span,
    found: _Found,
    maturity: timedelta,
    matured: dict[str, Matured],
    sandbox: Path,
) -> WhatIf:
    before, after, known, days = found.before, found.after, found.known, found.days
    added = after.join(before, on=_ONE_ALERT, how="anti")
    removed = before.join(after, on=_ONE_ALERT, how="anti")
    both = before.join(after, on=_ONE_ALERT, how="inner", suffix="_after")
    return WhatIf(
        span=span,
        candidate=f"{candidate.name} {candidate.version}",
        transactions=known.height,
        days=round(days, 4),
        known_frauds=int(known["is_fraud"].sum()),
        published=_side(before, known, days),
        replayed=_side(after, known, days),
        added=added.height,
        removed=removed.height,
        kept=both.height,
        flips={name: _flips(both, name) for name in _FLIPS},
        entities=_entities(added, removed),
        per_day=_per_day(before, after),
        unanswered=int((after["classification_source"] == "rules").sum()),
        maturity=maturity,
        matured=matured,
        sandbox=sandbox,
    )


def _side(alerts: pl.DataFrame, known: pl.DataFrame, days: float) -> Side:
    found, known_frauds = _judged(alerts, known), int(known["is_fraud"].sum())
    return Side(
        alerts=alerts.height,
        alerts_per_day=round(alerts.height / days, 2),
        judged=found.judged,
        frauds=found.frauds,
        precision=round(found.frauds / found.judged, 4) if found.judged else None,
        recall=round(found.frauds / known_frauds, 4) if known_frauds else None,
        by_reason=dict(
            Counter(map(_strongest, alerts["kind"], alerts["reasons"], alerts["rules"])).most_common()
        ),
    )


def _strongest(kind: str, reasons: pl.Series, rules: pl.Series) -> str:
    first = reasons[0] if len(reasons) and kind == ALERT_KIND else None
    if first is not None and first["contribution"] > 0:
        return str(first["name"])
    return f"rule {rules[0]}" if len(rules) else "none"


def _flips(both: pl.DataFrame, name: str) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    pairs = both.group_by(name, f"{name}_after").len().sort(name, f"{name}_after")
    for old, new, count in pairs.iter_rows():
        counts.setdefault(old, {})[new] = count
    return counts


def _entities(added: pl.DataFrame, removed: pl.DataFrame) -> dict[str, tuple[int, int]]:
    more, less = (Counter(each["entity"].to_list()) for each in (added, removed))
    ranked = sorted(more.keys() | less.keys(), key=lambda name: (-more[name] - less[name], name))
    return {name: (more[name], less[name]) for name in ranked[:_MOST_ENTITIES]}


def _per_day(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, tuple[int, int]]:
    counts = [Counter(each["event_time"].dt.date().cast(pl.String).to_list()) for each in (before, after)]
    return {day: (counts[0][day], counts[1][day]) for day in sorted(counts[0].keys() | counts[1].keys())}
