"""Which cases are meant, in which order they are to be worked on, and what stands in one as it is now."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import polars as pl

from schemas.cases import CaseDeadlines
from schemas.documents import clipped
from schemas.errors import ConfigurationError, nearest
from schemas.rules import SEVERITIES
from streaming.cases.actions import holder
from streaming.cases.case_frames import MOMENT
from streaming.cases.folding import LIVE, SEVERITY, STATUSES

NOBODY = "-"
_FOREVER = datetime(9999, 1, 1)
_ORDER = ("due", "calm", "opened_number")
_PLACE = re.compile(r"-?[0-9]{1,18}")
_DIGEST_DIGITS = 8
FACETS = ("status", "severity", "assignee", "kind", "reason", "level")


@dataclass(frozen=True)
class CaseFilter:
    """Which cases are meant; what is not given restricts nothing.

    Attributes:
        status: any of these; live ones, that is open and closing, unless given.
        severity: any of these.
        assignee: who has them now, NOBODY for those that nobody has.
        kind: what they are grouped by: entity, rule, incident or alert.
        entity: name and id of the entity that they are about.
        rule: that they are about.
        reason: for which they were closed, or are to be.
        overdue: whether their deadline is over.
        level: how often they were escalated.
        cases: their ids; none of them means no case.
    """

    status: tuple[str, ...] = LIVE
    severity: tuple[str, ...] = ()
    assignee: str | None = None
    kind: str | None = None
    entity: tuple[str, str] | None = None
    rule: str | None = None
    reason: str | None = None
    overdue: bool | None = None
    cases: tuple[str, ...] | None = None
    level: int | None = None

    @property
    def digest(self) -> str:
        """What tells it from other filters: the first digits of a SHA-256."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:_DIGEST_DIGITS]

    def of(self, cases: pl.DataFrame) -> pl.DataFrame:
        """Return the cases that are meant.

        Args:
            cases: as `as_of` gives them.
        """
        name, entity_id = self.entity or (None, None)
        plain = {
            "kind": self.kind,
            "entity": name,
            "entity_id": entity_id,
            "rule": self.rule,
            "reason": self.reason,
            "overdue": self.overdue,
            "level": self.level,
        }
        fits = [pl.col(column) == value for column, value in plain.items() if value is not None]
        several = {"status": self.status, "severity": self.severity}
        fits += [
            pl.col(column).cast(pl.String).is_in(list(wanted)) for column, wanted in several.items() if wanted
        ]
        if self.cases is not None:
            fits.append(pl.col("case_id").is_in(list(self.cases)))
        if self.assignee is not None:
            has = pl.col("assignee")
            fits.append(has.is_null() if self.assignee == NOBODY else (has == self.assignee).fill_null(False))
        return cases.filter(fits) if fits else cases


LIVE_CASES = CaseFilter()


def filter_of(
    status: Sequence[str] | None,
    severity: Sequence[str] | None,
    assignee: str | None,
    kind: str | None,
    entity: str | None,
    rule: str | None,
    *,
    overdue: bool | None,
    cases: Sequence[str] | None = None,
    level: int | None = None,
) -> CaseFilter:
    """Return which cases are meant, of words that somebody has given; see CaseFilter.

    Args:
        status: live ones unless given, but any of cases that are named.
        entity: name=id.

    Raises:
        ConfigurationError: a word is none of those that there are.
    """
    wanted = tuple(status or (LIVE if cases is None else STATUSES))
    for where, given, known in (("status", wanted, STATUSES), ("severity", severity or (), SEVERITIES)):
        for word in given:
            if word not in known:
                raise ConfigurationError(f"{clipped(repr(word))}: {nearest(word, known)}", where=where)
    name, _, entity_id = (entity or "").partition("=")
    if entity is not None and not (name and entity_id):
        raise ConfigurationError("expected entity=id, such as customer=c42", where="entity")
    pair = (name, entity_id) if entity is not None else None
    ids = None if cases is None else tuple(cases)
    return CaseFilter(
        wanted, tuple(severity or ()), assignee, kind, pair, rule, overdue=overdue, cases=ids, level=level
    )  # fmt: skip


def as_of(cases: pl.DataFrame, deadlines: CaseDeadlines, now: datetime) -> pl.DataFrame:
    """Return cases as they are at a moment: a lease that is over is none, and `deadline` and `overdue`."""
    alive = pl.col("status").is_in(list(LIVE))
    allowed = {name: span for name, span in deadlines.by_severity.items() if span is not None}
    spans = [
        pl.when(pl.col("severity").cast(pl.String) == name).then(pl.lit(span))
        for name, span in allowed.items()
    ]
    span = pl.coalesce(*spans, pl.lit(None, pl.Duration("us")))
    has = holder(now)
    return cases.with_columns(
        pl.when(alive).then(has).alias("assignee"),
        pl.when(alive & has.is_not_null()).then("leased_until").alias("leased_until"),
        pl.when(alive).then(pl.col("since") + span).alias("deadline"),
    ).with_columns((pl.col("deadline") < pl.lit(now, MOMENT)).fill_null(False).alias("overdue"))


def most_urgent_first(cases: pl.DataFrame) -> pl.DataFrame:
    """Return cases by deadline, then by severity, then by age."""
    return _ranked(cases).sort(_ORDER).drop("due", "calm")


def _ranked(cases: pl.DataFrame) -> pl.DataFrame:
    calm = len(SEVERITY.categories) - pl.col("severity").to_physical().cast(pl.Int64)
    due = pl.col("deadline").fill_null(pl.lit(_FOREVER).dt.replace_time_zone("UTC")).dt.epoch("us")
    return cases.with_columns(due.alias("due"), calm.fill_null(len(SEVERITY.categories)).alias("calm"))


def page_of(
    cases: pl.DataFrame, wanted: CaseFilter, limit: int, after: str | None
) -> tuple[pl.DataFrame, str | None]:
    """Return some cases in their order, and where the next page begins, None at the end.

    Args:
        cases: those that are meant.
        wanted: by which filter; a place holds for pages of that one alone.
        limit: how many at most.
        after: what an earlier page has given; cases that changed meanwhile neither break nor repeat a page
            but where their own place moved.

    Raises:
        ConfigurationError: `after` is nothing that a page of this filter has given.
    """
    ranked = _ranked(cases)
    if after is not None:
        due, calm, number = _places(after, wanted)
        first, second, third = (pl.col(name) for name in _ORDER)
        beyond = (first > due) | ((first == due) & ((second > calm) | ((second == calm) & (third > number))))
        ranked = ranked.filter(beyond)
    found = (
        ranked.sort(_ORDER)
        if ranked.height <= limit
        else ranked.bottom_k(limit, by=list(_ORDER)).sort(_ORDER)
    )
    if not 0 < found.height < ranked.height:
        return found.drop("due", "calm"), None
    last = ":".join([wanted.digest, *map(str, found.select(_ORDER).row(-1))])
    return found.drop("due", "calm"), last


def _places(after: str, wanted: CaseFilter) -> list[int]:
    digest, *parts = after.split(":")
    if digest != wanted.digest or len(parts) != len(_ORDER) or not all(map(_PLACE.fullmatch, parts)):
        raise ConfigurationError("expected what an earlier page of the same filter has given", where="after")
    return [int(each) for each in parts]


def facets_of(cases: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Return how many cases there are by each of FACETS and its values; NOBODY for none."""
    counts = {name: cases[name].cast(pl.String).fill_null(NOBODY).value_counts(sort=True) for name in FACETS}
    return {name: dict(each.iter_rows()) for name, each in counts.items()}


@dataclass(frozen=True)
class CaseState:
    """One case as it is now.

    Attributes:
        version: changes with every event about it; an action says which one it has seen (an ETag).
        kind: what its alerts belong together by: entity, rule, incident or alert.
        status: open, closing (one of two people wants to close it), closed or merged.
        severity: the highest of its alerts, each as its newest revision has it.
        amount: what its alerts about payments come to; None where alerts are in several currencies.
        refunds: what those about refunds come to; None like it.
        since: from when its deadline counts: its first alert, or when it was reopened after a closing.
        level: how often it was escalated.
        reason: for which it was closed, or is to be.
        last_move: what was done last, which `undo` takes back where it can.
        labels: `written` or `pending` where closing it says what its transactions were.
    """

    case_id: str
    version: int
    kind: str
    entity: str | None
    entity_id: str | None
    rule: str | None
    status: str
    severity: str | None
    alerts: int
    amount: float | None
    refunds: float | None
    currency: str | None
    first_event: datetime | None
    last_event: datetime | None
    opened_at: datetime
    since: datetime
    deadline: datetime | None
    overdue: bool
    assignee: str | None
    leased_until: datetime | None
    level: int
    comments: int
    attachments: int
    reason: str | None
    asked_by: str | None
    closed_by: str | None
    closed_at: datetime | None
    merged_into: str | None
    last_move: str | None
    labels: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> CaseState:
        """Return what a row of `as_of` says."""
        return cls(**{name: row[name] for name in _NAMES})

    @property
    def document(self) -> dict[str, Any]:
        """The same for JSON: times in ISO 8601, UTC."""
        return {name: _plain(getattr(self, name)) for name in _NAMES}


_NAMES = [each.name for each in fields(CaseState)]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
