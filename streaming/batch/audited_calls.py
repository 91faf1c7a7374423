"""Which outcome belongs to which question of the ledger, so that the audit log has every call once.

A question is in the ledger before it is asked, and asked again under the same key where nothing came of it.
Outcomes come later and in any order. Questions are settled in the order of their commits, and none while one
before it is under way, so that how far the log is stays one number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.audit.events import ModelCall

_UNKNOWN = "unknown"


@dataclass(frozen=True)
class SettledCall:
    """A question with its outcome.

    Attributes:
        question: its row in the ledger.
        call: its outcome.
        is_of_now: whether this process has asked it, or knows from the batch who did.
    """

    question: Mapping[str, Any]
    call: ModelCall
    is_of_now: bool


@dataclass(frozen=True)
class Settled:
    """The questions that are settled, and the last commit of the ledger up to which all are."""

    calls: tuple[SettledCall, ...]
    through: int


class AuditedCalls:
    """Outcomes that this process knows of and the log does not have yet.

    Args:
        calls: outcomes to begin with, see add.
    """

    def __init__(self, calls: Iterable[ModelCall] = ()) -> None:
        self._made: dict[str, list[ModelCall]] = {}
        self.add(calls)

    def add(self, calls: Iterable[ModelCall]) -> None:
        """Take in outcomes, those of one key in the order in which it was asked."""
        for call in calls:
            self._made.setdefault(call.question, []).append(call)

    def settled(self, rows: Sequence[Mapping[str, Any]], under_way: Collection[str], newest: int) -> Settled:
        """Return what can be told of rows of the ledger.

        Args:
            rows: all that the log does not have yet.
            under_way: keys that are being asked about; the newest question of each has no outcome yet.
            newest: the ledger's last commit.
        """
        rows = sorted(rows, key=lambda row: int(row["commit"]))
        asked = _places_of_questions(rows)
        waiting = [rows[places[-1]]["commit"] for key, places in asked.items() if key in under_way]
        through = min(waiting, default=newest + 1) - 1
        known = self._outcomes({key: p[:-1] if key in under_way else p for key, p in asked.items()})
        answers = _answers(rows)
        calls = [
            SettledCall(row, known.get(place) or _recorded(row["key"], answers.get(place)), place in known)
            for place, row in enumerate(rows)
            if row["kind"] == "intent" and row["commit"] <= through
        ]
        return Settled(tuple(calls), through)

    def forget(self, settled: Settled) -> None:
        """Let go of outcomes that are in the log now."""
        for call in (each.call for each in settled.calls if each.is_of_now):
            self._made[call.question].remove(call)
            if not self._made[call.question]:
                del self._made[call.question]

    def _outcomes(self, asked: Mapping[str, Sequence[int]]) -> dict[int, ModelCall]:
        """Give outcomes to the newest questions of their key: what an earlier process asked has none here."""
        return {
            place: call
            for key, places in asked.items()
            for place, call in zip(reversed(places), reversed(self._made.get(key, [])), strict=False)
        }


def _places_of_questions(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        if row["kind"] == "intent":
            found.setdefault(row["key"], []).append(place)
    return found


def _answers(rows: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """Return the answers on record by the place of the question that each is about, the newest before it."""
    newest, found = dict[str, int](), dict[int, Mapping[str, Any]]()
    for place, row in enumerate(rows):
        if row["kind"] == "intent":
            newest[row["key"]] = place
        elif row["key"] in newest:
            found[newest[row["key"]]] = row
    return found


def _recorded(question: str, answer: Mapping[str, Any] | None) -> ModelCall:
    """A call of an attempt that crashed: without an answer on record nobody knows whether it went out."""
    if answer is None:
        return ModelCall(question, _UNKNOWN, sent=False, input_tokens=0, output_tokens=0)
    return ModelCall(question, "answered", True, answer["input_tokens"], answer["output_tokens"])
