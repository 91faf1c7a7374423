"""The ledger: what a model was asked and what it answered, by content, so that no question is asked twice.

The intent is on record before a call and the answer before it is used: a driver that dies in between asks
again and uses one answer only, the recorded one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.alert import Category
from schemas.rules import Severity


@dataclass(frozen=True, slots=True)
class Intent:
    """A question about to be asked. `canonical_input` is all that the model learns about the group."""

    key: str
    prompt_id: str
    prompt_version: int
    model: str
    canonical_input: str


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """An answer that passed validation, before any severity floor is applied.

    Tokens are the group's share of the request's. Pseudonyms in `rationale` and `evidence` are not resolved.
    """

    key: str
    classification: Category
    severity: Severity
    rationale: str
    model: str
    prompt_id: str
    prompt_version: int
    input_tokens: int
    output_tokens: int
    evidence: tuple[str, ...] = ()


class Ledger(Protocol):
    """Where intents and answers are kept. Faults of the store itself are raised to the caller of triage."""

    def recorded(self, keys: Collection[str]) -> Mapping[str, RecordedAnswer]:
        """Return the answers on record among `keys`; the first answer recorded under a key holds."""

    def intend(self, entries: Sequence[Intent]) -> None:
        """Record questions, durably, before they are asked."""

    def record(self, answers: Sequence[RecordedAnswer]) -> None:
        """Record answers, durably, before they are used."""


class MemoryLedger:
    """A ledger that lasts as long as the process, for runs that keep no state."""

    def __init__(self) -> None:
        self._answers: dict[str, RecordedAnswer] = {}

    def recorded(self, keys: Collection[str]) -> Mapping[str, RecordedAnswer]:
        """See Ledger."""
        return {key: self._answers[key] for key in keys if key in self._answers}

    def intend(self, entries: Sequence[Intent]) -> None:
        """See Ledger: a question that is not answered while the process lasts is of no use to anybody."""

    def record(self, answers: Sequence[RecordedAnswer]) -> None:
        """See Ledger."""
        for answer in answers:
            self._answers.setdefault(answer.key, answer)
