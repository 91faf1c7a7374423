"""What cases are now: a pure fold over their events, in the order of their numbers.

However the rows come, in whatever order and however often, the same rows give the same cases. A row that
makes no sense (a merge into a case that is none) changes nothing, since writers check before they write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import polars as pl

from schemas.rules import SEVERITIES
from streaming.cases.case_frames import MOMENT
from streaming.cases.refunds import NO_REFUNDS

Status = Literal["open", "closing", "closed", "merged"]
STATUSES: tuple[Status, ...] = get_args(Status)
LIVE: tuple[Status, ...] = ("open", "closing")
_STATUS: Mapping[str, Status] = {
    "opened": "open",
    "reopened": "open",
    "close_asked": "closing",
    "closed": "closed",
    "merged": "merged",
}
_HELD = ("claimed", "assigned", "released")
# What nobody does: an action that is undone is none of these.
BY_ITSELF = ("opened", "labelled", "undone")
SEVERITY = pl.Enum(list(SEVERITIES))
CASES = pl.Schema(
    {
        "case_id": pl.String(),
        "version": pl.Int64(),
        "kind": pl.String(),
        "entity": pl.String(),
        "entity_id": pl.String(),
        "rule": pl.String(),
        "status": pl.String(),
        "severity": SEVERITY,
        "alerts": pl.UInt32(),
        "amount": pl.Float64(),
        "refunds": pl.Float64(),
        "currency": pl.String(),
        "first_event": MOMENT,
        "last_event": MOMENT,
        "opened_number": pl.Int64(),
        "opened_at": MOMENT,
        "since": MOMENT,
        "assignee": pl.String(),
        "leased_until": MOMENT,
        "level": pl.UInt32(),
        "comments": pl.UInt32(),
        "attachments": pl.UInt32(),
        "reason": pl.String(),
        "asked_by": pl.String(),
        "closed_by": pl.String(),
        "closed_at": MOMENT,
        "merged_into": pl.String(),
        "last_action": pl.String(),
        "last_move": pl.String(),
        "labels": pl.String(),
    }
)


def fold(moves: pl.DataFrame, members: pl.DataFrame, refunds: pl.Series = NO_REFUNDS) -> pl.DataFrame:
    """Return what events make of cases.

    Args:
        moves: columns MOVES, of some cases all.
        members: columns MEMBERS, of the same cases all.
        refunds: `outbox_seq` of the alerts about refunds; all others are about payments.

    Returns:
        CASES, one row per case, in the order in which they were opened.
    """
    moves, members = moves.unique("number").sort("number"), members.unique("number").sort("number")
    lasting = without_undone(moves)
    homes = homes_of(lasting)
    cases = _worked_on(lasting).join(_newest_numbers(moves, members, homes), on="case_id", how="left")
    cases = cases.join(_alerted(members, homes, refunds), on="case_id", how="left")
    into = pl.col("case_id").replace_strict(homes, default=None, return_dtype=pl.String)
    return (
        cases.with_columns(
            pl.col("alerts").fill_null(0),
            pl.coalesce("reopened_at", "first_alert", "opened_at").alias("since"),
            pl.when(pl.col("status") == "merged").then(into).alias("merged_into"),
        )
        .select(pl.col(name).cast(kind) for name, kind in CASES.items())
        .sort("opened_number")
    )


def without_undone(moves: pl.DataFrame) -> pl.DataFrame:
    """Return the rows but for those of actions that were undone."""
    undone = moves.filter(pl.col("event") == "undone")["other"].drop_nulls()
    return moves.filter(~pl.col("action").is_in(undone.implode())) if len(undone) else moves


def homes_of(lasting: pl.DataFrame) -> dict[str, str]:
    """Return where the alerts of merged cases belong now: case → the case that it ended up in."""
    pairs = lasting.filter(pl.col("event") == "merged").select("case_id", "other").drop_nulls()
    into = dict(pairs.iter_rows())
    return {case: _end_of(case, into) for case in into}


def together(cases: Iterable[str], moves: pl.DataFrame) -> set[str]:
    """Return cases with all that were ever merged with them, which can only be folded together."""
    pairs = moves.filter(pl.col("event") == "merged").select("case_id", "other").rows()
    found, reached = set(cases), -1
    while len(found) > reached:
        reached = len(found)
        for pair in pairs:
            if not found.isdisjoint(pair):
                found.update(pair)
    return found


def _end_of(case: str, into: Mapping[str, str]) -> str:
    passed = {case}
    while case in into and into[case] not in passed:
        case = into[case]
        passed.add(case)
    return case


def _last(column: str, events: Iterable[str]) -> pl.Expr:
    """The column in the last row of one of some events."""
    return pl.col(column).filter(pl.col("event").is_in(list(events))).last()


def _worked_on(lasting: pl.DataFrame) -> pl.DataFrame:
    rows = lasting.group_by("case_id", maintain_order=True)
    found = rows.agg(*_begun(), *_held(), *_ended()).filter(pl.col("opened_number").is_not_null())
    closed = pl.col("status") == "closed"
    pending = pl.when(pl.col("ending").ne_missing(pl.col("labelled"))).then(pl.lit("pending"))
    labels = pl.coalesce(pending, pl.lit("written"))
    return found.with_columns(
        pl.when(closed).then("closed_by"),
        pl.when(closed).then("closed_at"),
        pl.when(pl.col("status") == "closing").then("asker").alias("asked_by"),
        pl.when(closed & pl.col("reason").is_in(["fraud", "genuine"])).then(labels).alias("labels"),
    )


def _reopened_at() -> pl.Expr:
    """When a case was last opened again that had been closed; a closing that was refused is no such time."""
    ends = pl.col("event").is_in(["closed", "reopened"])
    event, at = pl.col("event").filter(ends), pl.col("at").filter(ends)
    return at.filter((event == "reopened") & (event.shift(1) == "closed").fill_null(False)).last()


def _begun() -> list[pl.Expr]:
    opened = pl.col("event") == "opened"
    return [
        *(_last(name, ["opened"]) for name in ("kind", "entity", "entity_id", "rule")),
        pl.col("number").filter(opened).first().alias("opened_number"),
        pl.col("at").filter(opened).first().alias("opened_at"),
        _reopened_at().alias("reopened_at"),
    ]


def _held() -> list[pl.Expr]:
    event = pl.col("event")
    by_people = ~event.is_in(list(BY_ITSELF))
    counts = {"level": "escalated", "comments": "commented", "attachments": "attached"}
    return [
        _last("assignee", _HELD),
        _last("leased_until", _HELD),
        *((event == counted).sum().alias(name) for name, counted in counts.items()),
        pl.col("action").filter(by_people).last().alias("last_action"),
        event.filter(by_people).last().alias("last_move"),
    ]


def _ended() -> list[pl.Expr]:
    ended, asked = ("closed", "reopened"), ("close_asked", "closed", "reopened")
    return [
        _last("event", _STATUS).replace_strict(_STATUS, default="open").alias("status"),
        _last("reason", asked),
        _last("who", asked).alias("asker"),
        _last("who", ended).alias("closed_by"),
        _last("at", ended).alias("closed_at"),
        _last("action", ended).alias("ending"),
        _last("other", ["labelled"]).alias("labelled"),
    ]


def _newest_numbers(moves: pl.DataFrame, members: pl.DataFrame, homes: Mapping[str, str]) -> pl.DataFrame:
    """A case is another one after each event about it, undone ones and alerts of merged cases included."""
    own = ["case_id", "number"]
    merged = members.filter(pl.col("case_id").is_in(list(homes)))
    counted = merged.with_columns(pl.col("case_id").replace(homes))
    numbers = pl.concat([moves.select(own), members.select(own), counted.select(own)])
    return numbers.group_by("case_id").agg(pl.col("number").max().alias("version"))


def _alerted(members: pl.DataFrame, homes: Mapping[str, str], refunds: pl.Series) -> pl.DataFrame:
    back = pl.col("outbox_seq").is_in(refunds.implode())
    alike = pl.when(pl.col("currency").n_unique() == 1)
    return (
        newest_revisions(members)
        .with_columns(pl.col("case_id").replace(homes))
        .group_by("case_id")
        .agg(
            pl.len().alias("alerts"),
            pl.col("severity").cast(SEVERITY).max(),
            alike.then(pl.col("amount").filter(~back).sum()).alias("amount"),
            alike.then(pl.col("amount").filter(back).sum()).alias("refunds"),
            alike.then(pl.col("currency").first()).alias("currency"),
            pl.col("event_time").min().alias("first_event"),
            pl.col("event_time").max().alias("last_event"),
            pl.col("alerted_at").min().alias("first_alert"),
        )
    )


def newest_revisions(members: pl.DataFrame) -> pl.DataFrame:
    """Return each alert once, as its newest revision has it, and first alerted when its first was."""
    if members["revision"].max() == 1:
        return members.unique("alert_id", keep="last", maintain_order=True)
    first = pl.col("alerted_at").min().over("alert_id")
    return members.with_columns(first).unique("alert_id", keep="last", maintain_order=True)
