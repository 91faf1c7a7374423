"""The rules of a spec: conditions over one event, and patterns of two."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from schemas.document_kinds import Kind
from schemas.loading import Document, Duration

Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")
_LONGEST = timedelta(days=3660)


class Pattern(Document):
    """Two events of one entity, apart by at most `within` of event time.

    `entity` is one of the contract's, or two of them as `customer+terminal`. `lateness` is taken off event
    time: by so much may events come out of order.
    """

    entity: str
    within: Duration = Field(gt=timedelta(0), le=_LONGEST)
    lateness: Duration = Field(default=timedelta(minutes=1), ge=timedelta(0), le=_LONGEST)

    @property
    def entities(self) -> tuple[str, ...]:
        """The entities that both events have in common."""
        return tuple(self.entity.split("+"))


class SequencePattern(Pattern):
    """An event for which `first` holds, then one for which `then` holds: the second raises the alert."""

    first: str
    then: str


class AbsencePattern(Pattern):
    """An event for which `after` holds, and none for which `expected` does: the first is alerted."""

    after: str
    expected: str


class Rule(Document):
    """A condition over events that raises an alert whatever the score.

    One of three forms: `when`, an SQL boolean expression over the columns of one event, for example
    `amount > 10000`; or `sequence` or `absence` of two events, whose expressions are of the same kind.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"when", "sequence", "absence"})

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    when: str | None = None
    sequence: SequencePattern | None = None
    absence: AbsencePattern | None = None
    severity: Severity
    reason: str

    @model_validator(mode="after")
    def _one_form(self) -> Rule:
        forms = ("when", "sequence", "absence")
        given = [form for form in forms if getattr(self, form) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of {', '.join(forms)}; found {' and '.join(given) or 'none'}")
        return self

    @property
    def pattern(self) -> SequencePattern | AbsencePattern | None:
        """The pattern it looks for, None for a rule over single events."""
        return self.sequence or self.absence

    @property
    def conditions(self) -> dict[str, str]:
        """Where each of its expressions stands → the expression."""
        if self.sequence is not None:
            return {"sequence.first": self.sequence.first, "sequence.then": self.sequence.then}
        if self.absence is not None:
            return {"absence.after": self.absence.after, "absence.expected": self.absence.expected}
        return {"when": self.when or ""}


class RuleFile(Document):
    """A file of rules that is read again whenever it changes."""

    KIND: ClassVar[Kind | None] = "file of rules"

    rules: tuple[Rule, ...]
