"""Late answers: alerts that went out with the classification by rules are put to the model afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial

from agent.triage.containment import Faults
from agent.triage.ledger import RecordedAnswer
from agent.triage.outcomes import by_model
from agent.triage.packing import Case
from agent.triage.triage import Classification, FlaggedRow, Triage


class Unanswered:
    """The alerts of one window that wait for the model.

    Args:
        rows: the alerts; those that were asked about together before have to be together again, so that the
            ledger knows the question.
        triage: says what is asked about them, and whether the policy allows it.
    """

    def __init__(self, rows: Sequence[FlaggedRow], triage: Triage) -> None:
        self.triage, self._rows, self._faults = triage, rows, Faults()
        self._cases = triage.cases(rows, self._faults) if triage.ruling(rows).allowed else []
        self._given_up = len(rows) - self.waiting

    @property
    def waiting(self) -> int:
        """Number of alerts that may still be answered."""
        return sum(len(case.group.members) for case in self._cases)

    @property
    def given_up(self) -> int:
        """Number of alerts that keep the classification by rules."""
        return self._given_up

    @property
    def faults(self) -> tuple[str, ...]:
        """What kept alerts from being asked about or answered although nothing outside was amiss."""
        return self._faults.noted

    @property
    def cases(self) -> Sequence[Case]:
        """What is to be asked about, what most depends on first."""
        return self._cases

    def recorded(self) -> Mapping[str, RecordedAnswer]:
        """Return the answers that are on record already, by key."""
        return self.triage.recorded(self._cases)

    def settle(
        self, answers: Mapping[str, RecordedAnswer], given_up: AbstractSet[str] = frozenset()
    ) -> dict[str, Classification]:
        """Take in answers, and what gets none; return the classifications by alert id."""
        found = [(case, answers[case.key]) for case in self._cases if case.key in answers]
        self.triage.note_answered(case for case, _ in found)
        self._drop(case for case in self._cases if case.key in given_up and case.key not in answers)
        self._cases = [case for case in self._cases if case.key not in answers]
        classifications = {
            self._rows[position].alert_id: self._faults.contain(
                partial(by_model, self._rows[position], answer, case), None
            )
            for case, answer in found
            for position in case.group.members
        }
        self._given_up += sum(each is None for each in classifications.values())
        return {
            alert: classification
            for alert, classification in classifications.items()
            if classification is not None
        }

    def give_up(self) -> None:
        """Wait no longer."""
        self._drop(self._cases)

    def _drop(self, cases: Iterable[Case]) -> None:
        dropped = {case.key for case in cases}
        before = self.waiting
        self._cases = [case for case in self._cases if case.key not in dropped]
        self._given_up += before - self.waiting
        self.triage.inquiries.forget(dropped)
