"""The fields that alerts can be filtered by: what each holds, and how a value is read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from schemas.errors import ConfigurationError, nearest
from schemas.instants import micros_of
from schemas.loading import parse_duration
from schemas.rules import SEVERITIES
from streaming.inbox.filter_language import (
    WHERE,
    AnyPart,
    EveryPart,
    FieldAmong,
    Filter,
    NoPart,
    Operator,
)

Kind = Literal["word", "rank", "number", "instant", "text"]
_COMPARES: Mapping[Kind, frozenset[Operator]] = {
    "word": frozenset({"=", "!=", "~"}),
    "rank": frozenset({"=", "!=", "<", "<=", ">", ">="}),
    "number": frozenset({"=", "!=", "<", "<=", ">", ">="}),
    "instant": frozenset({"<", "<=", ">", ">="}),
    "text": frozenset({"=", "!=", "~"}),
}


@dataclass(frozen=True)
class InboxField:
    """One field of the list.

    Attributes:
        kind: what it holds; `word` of few values, `rank` a severity, `text` an id.
        meaning: for people.
        is_facet: its values are counted.
    """

    name: str
    kind: Kind
    meaning: str
    is_facet: bool = False


_OWN = (
    InboxField("severity", "rank", "how urgent it is, low to critical", True),
    InboxField("classification", "word", "what triage says", True),
    InboxField("source", "word", "who classified it: llm or rules", True),
    InboxField("label", "word", "what is known of the transaction: fraud, genuine or none", True),
    InboxField("rule", "word", "a rule that was hit", True),
    InboxField("reason", "word", "the largest part of the score", True),
    InboxField("kind", "word", "transaction, or absence and its rule", True),
    InboxField("currency", "word", "of the amount", True),
    InboxField("direction", "word", "payment or refund, where the contract knows refunds", True),
    InboxField("version", "word", "of the spec that decided it", True),
    InboxField("fallback", "word", "why the model did not classify it", True),
    InboxField("amount", "number", "of the transaction"),
    InboxField("score", "number", "0 to 1"),
    InboxField("sequence", "number", "the transaction's place in processing order"),
    InboxField("revision", "number", "1, or 2 once the model has answered"),
    InboxField("time", "instant", "of the event"),
    InboxField("created", "instant", "when it was raised"),
    InboxField("alert", "text", "its id"),
    InboxField("transaction", "text", "the transaction's id"),
)
NO_LABEL = "none"
_AGO = "-"


class InboxFields:
    """The fields of one agent's alerts: those of every agent, and its kinds of entities.

    Args:
        entities: kinds of entities; one that is called like another field is asked as `entity_NAME`.
    """

    def __init__(self, entities: Iterable[str]) -> None:
        self._known = {each.name: each for each in _OWN}
        self.entities: dict[str, str] = {}
        for kind in entities:
            name = f"entity_{kind}" if kind in self._known else kind
            self.entities[name] = kind
            self._known[name] = InboxField(name, "text", f"id of the {kind}")

    @property
    def all(self) -> tuple[InboxField, ...]:
        """All of them."""
        return tuple(self._known.values())

    @property
    def facets(self) -> tuple[str, ...]:
        """Those whose values are counted."""
        return tuple(each.name for each in self.all if each.is_facet)

    def of_entity(self, kind: str) -> str:
        """Return the field that holds the ids of a kind of entities."""
        return next(name for name, each in self.entities.items() if each == kind)

    def named(self, name: str, operator: Operator | None = None) -> InboxField:
        """Return a field by its name.

        Raises:
            ConfigurationError: there is none, or it cannot be compared so.
        """
        found = self._known.get(name)
        if found is None:
            raise ConfigurationError(f"no field {name!r}; {nearest(name, self._known)}", where=WHERE)
        if operator is not None and operator not in _COMPARES[found.kind]:
            can = " ".join(sorted(_COMPARES[found.kind]))
            raise ConfigurationError(f"{name} takes {can}, not {operator}", where=WHERE)
        return found

    def counts_from_now(self, wanted: Filter) -> bool:
        """Say whether a filter holds an age such as `-2h`, so that it chooses anew each time.

        Raises:
            ConfigurationError: it names a field that is none.
        """
        if isinstance(wanted, NoPart):
            return self.counts_from_now(wanted.part)
        if isinstance(wanted, EveryPart | AnyPart):
            return any(map(self.counts_from_now, wanted.parts))
        values = wanted.values if isinstance(wanted, FieldAmong) else (wanted.value,)
        return self.named(wanted.name).kind == "instant" and any(map(_is_age, values))


def rank_of(severity: str | None) -> int:
    """Return the place of a severity, the least first; -1 for what is none."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else -1


def number_of(field: InboxField, text: str, now: datetime) -> float:
    """Return what a value is compared as: itself, a rank, or microseconds since 1970 UTC.

    Args:
        now: what a time such as `-2h` counts from.

    Raises:
        ConfigurationError: the value is none of the field's.
    """
    if field.kind == "rank":
        if text not in SEVERITIES:
            raise ConfigurationError(f"no severity {text!r}; {nearest(text, SEVERITIES)}", where=WHERE)
        return rank_of(text)
    return _number(text) if field.kind == "number" else float(_instant(text, now))


def _number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ConfigurationError(f"expected a number, got {text[:40]!r}", where=WHERE)
    return found


def _is_age(text: str) -> bool:
    return text.startswith(_AGO)


def _instant(text: str, now: datetime) -> int:
    try:
        if _is_age(text):
            return micros_of(now - parse_duration(text.removeprefix(_AGO)))
        found = datetime.fromisoformat(text)
        return micros_of(found if found.tzinfo is not None else found.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f'expected a time such as 2026-05-01, "2026-05-01T08:00:00Z" or -2h, got {text[:40]!r}',
            where=WHERE,
        ) from None
