"""What people do to cases: what each action writes, and when it is refused.

An action is the same for one case as for a thousand: expressions over the rows of CASES. Whoever holds a
case by a lease, or was assigned it, is the only one to close or merge it until then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from agent.audit.events import is_name
from schemas.cases import CLOSE_REASONS, CloseReason
from schemas.errors import ConfigurationError, ConflictError, FlagstreamError, nearest
from streaming.cases.case_frames import MOMENT, CaseEvent
from streaming.cases.folding import LIVE

MOST_TEXT = 10_000  # characters
MOST_BYTES = 1 << 20
_MOST_NAME = 255
# An undone comment would have been read by then, and labels that were written have been used.
_LASTING = ("commented", "attached")
LABELLING: tuple[CloseReason, ...] = ("fraud", "genuine")


class CaseRefusedError(FlagstreamError):
    """A case is in no state for what is asked of it; nothing was written."""


class CaseChangedError(ConflictError):
    """A case is at another version than the one that was seen; nothing was written."""


class NoSuchCaseError(ConfigurationError):
    """There is no case of this id, or several begin so."""


@dataclass(frozen=True)
class CaseAction:
    """What an action does to each case that it is meant for.

    Attributes:
        event: what is written, an expression over CASES.
        refused: a text where it cannot be done, null where it can.
        values: further columns of what is written.
    """

    event: pl.Expr
    refused: pl.Expr
    values: Mapping[str, pl.Expr] = field(default_factory=dict)


@dataclass(frozen=True)
class Actor:
    """Who acts, and when.

    Attributes:
        who: a name such as anna.schmidt.
        now: by the clock of the process that writes, timezone-aware.

    Raises:
        ConfigurationError: that is no name.
    """

    who: str
    now: datetime

    def __post_init__(self) -> None:
        """Check the name."""
        if not is_name(self.who):
            raise ConfigurationError("expected a name such as anna.schmidt", where="who")

    @property
    def somebody_else(self) -> pl.Expr:
        """Whether another person has the case, by a lease that goes on or for good."""
        return (holder(self.now) != self.who).fill_null(False)


def holder(now: datetime) -> pl.Expr:
    """Who has a case: who was assigned it, or claimed it less than the lease ago; null for nobody."""
    over = pl.col("leased_until") <= pl.lit(now, MOMENT)
    return pl.when(over.fill_null(False).not_()).then("assignee")


def claim(by: Actor, lease: timedelta) -> CaseAction:
    """Take a case for a while, or keep it for another."""
    until = pl.lit(by.now + lease, MOMENT)
    return _action(
        "claimed", pl.coalesce(_live(), _held_by_another(by)), assignee=pl.lit(by.who), leased_until=until
    )


def release(by: Actor) -> CaseAction:
    """Give a case back that one has."""
    mine = holder(by.now) == by.who
    refused = pl.when(mine.fill_null(False).not_()).then(pl.lit(f"{by.who} does not have it"))
    return _action("released", refused, assignee=_nothing(), leased_until=_nothing(MOMENT))


def assign(to: str | None, text: str) -> CaseAction:
    """Give a case to somebody for good, or to nobody.

    Raises:
        ConfigurationError: that is no name.
    """
    if to is not None and not is_name(to):
        raise ConfigurationError("expected a name such as anna.schmidt", where="assignee")
    given = {"assignee": pl.lit(to, pl.String), "leased_until": _nothing(MOMENT), "text": _said(text)}
    return _action("assigned", _live(), **given)


def comment(text: str) -> CaseAction:
    """Say something about a case, whatever has become of it.

    Raises:
        ConfigurationError: it is empty or too long.
    """
    if not text.strip():
        raise ConfigurationError("expected a text", where="comment")
    return _action("commented", _nothing(), text=_said(text))


def attach(name: str, content: bytes) -> CaseAction:
    """Keep a file with a case, whatever has become of it.

    Raises:
        ConfigurationError: it is empty or too large, or its name is too long.
    """
    if not name or len(name) > _MOST_NAME or "/" in name or "\0" in name:
        raise ConfigurationError(
            f"expected a file's name of at most {_MOST_NAME} characters", where="attachment"
        )
    if not content or len(content) > MOST_BYTES:
        raise ConfigurationError(f"expected a file of 1 to {MOST_BYTES:,} bytes", where="attachment")
    digest = hashlib.sha256(content).hexdigest()
    kept: dict[str, Any] = {"name": name, "digest": digest, "size": len(content), "content": content}
    return _action("attached", _nothing(), **{key: pl.lit(value) for key, value in kept.items()})


def escalate(text: str) -> CaseAction:
    """Ask for somebody with more say: its level rises."""
    return _action("escalated", _live(), text=_said(text))


def close(by: Actor, reason: CloseReason, text: str, kind: str | None, *, two: bool) -> CaseAction:
    """Close a case, or ask another person to.

    Args:
        kind: of fraud, for the labels.
        two: whether closing for this reason takes two people.

    Raises:
        ConfigurationError: there is no such reason.
    """
    if reason not in CLOSE_REASONS:
        raise ConfigurationError(f"no reason {reason!r}; {nearest(reason, CLOSE_REASONS)}", where="reason")
    asked = pl.col("status") == "closing"
    said = pl.format("{} asked to close it as {}", "asked_by", "reason")
    refused = (
        pl.when(asked & (pl.col("asked_by") == by.who))
        .then(pl.lit("somebody else must close it, too"))
        .when(asked & (pl.col("reason") != reason))
        .then(pl.concat_str(said, pl.lit(": close it so, or reopen it")))
    )
    event = pl.when(~asked & pl.lit(two)).then(pl.lit("close_asked")).otherwise(pl.lit("closed"))
    others = pl.when(~asked).then(_held_by_another(by))
    given = {"reason": pl.lit(reason), "text": _said(text), "classification": pl.lit(kind, pl.String)}
    return CaseAction(event, pl.coalesce(_live(), refused, others), given)


def reopen(text: str) -> CaseAction:
    """Open a case again, or refuse to have it closed."""
    refused = (
        pl.when(pl.col("status") == "open").then(pl.lit("it is open"))
        .when(pl.col("status") == "merged").then(pl.format("it is part of {}", "merged_into"))
    )  # fmt: skip
    return _action("reopened", refused, text=_said(text))


def merge(by: Actor, into: str) -> CaseAction:
    """Make cases part of another."""
    same = pl.when(pl.col("case_id") == into).then(pl.lit("it is the case to merge into"))
    refused = pl.coalesce(same, _live(), _held_by_another(by))
    return _action("merged", refused, other=pl.lit(into))


def undo(action: str, undone: pl.Expr) -> CaseAction:
    """Take back the last action on cases.

    Args:
        action: which one it is.
        undone: a text where it cannot be.
    """
    last = pl.when(pl.col("last_action").ne_missing(action)).then(pl.lit("something was done since"))
    return _action("undone", pl.coalesce(undone, last), other=pl.lit(action))


def irrevocable() -> pl.Expr:
    """Why the last action on a case cannot be undone, null where it can."""
    move = pl.col("last_move")
    labelled = (move == "closed") & pl.col("reason").is_in(list(LABELLING))
    return (
        pl.when(move.is_null()).then(pl.lit("nothing was done yet"))
        .when(move.is_in(list(_LASTING))).then(pl.format("what was {} stays", "last_move"))
        .when(labelled).then(pl.lit("its labels are in use: reopen it, and close it otherwise"))
    )  # fmt: skip


def _action(event: CaseEvent, refused: pl.Expr, **values: pl.Expr) -> CaseAction:
    return CaseAction(pl.lit(event), refused, values)


def _live() -> pl.Expr:
    merged = pl.when(pl.col("status") == "merged").then(pl.format("it is part of {}", "merged_into"))
    closed = pl.when(~pl.col("status").is_in(list(LIVE))).then(pl.format("it is {}", "status"))
    return pl.coalesce(merged, closed)


def _held_by_another(by: Actor) -> pl.Expr:
    return pl.when(by.somebody_else).then(pl.format("{} has it", holder(by.now)))


def _nothing(kind: pl.DataType | type[pl.DataType] = pl.String) -> pl.Expr:
    return pl.lit(None, kind)


def _said(text: str) -> pl.Expr:
    if len(text) > MOST_TEXT:
        raise ConfigurationError(f"expected a text of at most {MOST_TEXT:,} characters", where="text")
    return pl.lit(text or None, pl.String)
