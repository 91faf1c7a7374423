"""Late answers: alerts that went out with the deterministic label are put to the model afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.triage import FlaggedRow, Triage, TriageResult, Verdict
from schemas.alert import FallbackReason

_MOST_ATTEMPTS = 3
_NOT_TRIED: frozenset[FallbackReason] = frozenset(
    {"circuit_open", "over_budget", "rate_limited", "rejected", "server_error", "unreachable"}
)
_NEVER_TO_BE_TRIED: frozenset[FallbackReason] = frozenset({"internal_error", "llm_off", "policy"})


@dataclass(frozen=True)
class Asked:
    """What one round of questions brought: the model's verdicts by alert id, and what it took."""

    answers: Mapping[str, Verdict]
    result: TriageResult


class Unanswered:
    """Alerts that wait for the model.

    An alert whose answers are unusable, or do not come in time, is given up after three attempts. While the
    server is down or the budget spent, no attempt counts: how long to wait is the caller's decision.

    Args:
        rows: the alerts; those that were asked about together before have to be together again, so that the
            ledger knows the question.
        triage: asks.
    """

    def __init__(self, rows: Sequence[FlaggedRow], triage: Triage) -> None:
        self._waiting, self._triage = list(rows), triage
        self._attempts: Counter[str] = Counter()
        self._given_up = 0

    @property
    def waiting(self) -> int:
        """Number of alerts that may still be answered."""
        return len(self._waiting)

    @property
    def given_up(self) -> int:
        """Number of alerts that keep their deterministic label."""
        return self._given_up

    def ask(self) -> Asked:
        """Ask one round of questions under the deadline and the budget.

        Raises:
            FlagstreamError: what the ledger raises for its own store; nothing else.
        """
        rows = self._waiting
        result = self._triage.classify(rows)
        verdicts = list(zip(rows, result.verdicts, strict=True))
        answers = {row.alert_id: verdict for row, verdict in verdicts if verdict.source == "llm"}
        unanswered = [(row, verdict) for row, verdict in verdicts if row.alert_id not in answers]
        self._waiting = [row for row, verdict in unanswered if self._may_try_again(row, verdict)]
        self._given_up += len(unanswered) - len(self._waiting)
        return Asked(answers, result)

    def give_up(self) -> None:
        """Wait no longer."""
        self._given_up += len(self._waiting)
        self._waiting = []

    def _may_try_again(self, row: FlaggedRow, verdict: Verdict) -> bool:
        self._attempts[row.alert_id] += verdict.fallback_reason not in _NOT_TRIED
        tried_enough = self._attempts[row.alert_id] >= _MOST_ATTEMPTS
        return not tried_enough and verdict.fallback_reason not in _NEVER_TO_BE_TRIED
