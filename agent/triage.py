"""Triage: each flagged row gets a verdict, by a model where policy, budget and deadline allow, else by rules.

One structured-output request asks about several groups of like rows. Whatever the model or its server does,
each row comes back with a verdict, none less severe than score and rules call for, and one that is not the
model's own says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.answers import Answer, answers_of
from agent.audit import ModelCall, PolicyRuling
from agent.budget import Booking, SpendingBudget
from agent.disclosure import Disclosure
from agent.grouping import FlaggedRow, group_rows
from agent.labels import clip, highest
from agent.ledger import Intent, Ledger, RecordedAnswer
from agent.llm_client import Completion, Failure, ModelClient
from agent.packing import Case, Packer, case_of
from agent.prompts import Prompt
from agent.pseudonyms import Pseudonyms, resolved
from agent.scheduling import Familiarity, by_priority
from schemas.alert import Classification, ClassificationSource, FallbackReason
from schemas.policy import SENDABLE, Policy
from schemas.spec import Llm, Severity

__all__ = ["POLICIES", "FlaggedRow", "Triage", "TriageResult", "Verdict"]

POLICIES = Path(__file__).parent / "policies"
_NO_WORK_DONE: frozenset[FallbackReason] = frozenset(
    {"unreachable", "rate_limited", "server_error", "rejected"}
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an alert is called, by whom, and if by rules why not by the model.

    Tokens are what the call that answered took for the row's whole group. `evidence` is what the model relied
    on, each as feature=value.
    """

    classification: Classification
    severity: Severity
    rationale: str
    source: ClassificationSource
    fallback_reason: FallbackReason | None
    model: str | None
    prompt_id: str | None
    prompt_version: int | None
    input_tokens: int = 0
    output_tokens: int = 0
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class TriageResult:
    """Verdicts in the order of the rows, and what they took.

    Attributes:
        calls: questions sent now; answers found on record cost none.
        reused: groups answered from the ledger.
        cost: USD.
        seconds: wall time, the ledger's writes included.
        made: what became of each question put to the model.
        ruling: what the policy decided, None when nothing was to be asked.
    """

    verdicts: tuple[Verdict, ...]
    calls: int = 0
    reused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    groups: int = 0
    seconds: float = 0.0
    made: tuple[ModelCall, ...] = ()
    ruling: PolicyRuling | None = None

    def columns(self) -> dict[str, list[Any]]:
        """Return the alert fields the verdicts fill, by name, one value per row."""
        return {
            "classification": [verdict.classification for verdict in self.verdicts],
            "severity": [verdict.severity for verdict in self.verdicts],
            "rationale": [verdict.rationale for verdict in self.verdicts],
            "classification_source": [verdict.source for verdict in self.verdicts],
            "fallback_reason": [verdict.fallback_reason for verdict in self.verdicts],
            "model": [verdict.model for verdict in self.verdicts],
            "prompt_id": [verdict.prompt_id for verdict in self.verdicts],
            "prompt_version": [verdict.prompt_version for verdict in self.verdicts],
            "evidence": [list(verdict.evidence) for verdict in self.verdicts],
        }


@dataclass(frozen=True)
class _Request:
    cases: list[Case]
    booking: Booking


@dataclass(frozen=True)
class _Outcome:
    request: _Request
    reply: Completion | Failure
    answers: Mapping[str, RecordedAnswer | FallbackReason]

    @property
    def sent(self) -> bool:
        """Whether a request went out."""
        return isinstance(self.reply, Completion) or self.reply.sent

    @property
    def made(self) -> list[ModelCall]:
        """A call per group, without what was said; they share the request's tokens."""
        read, written = (
            _shares(tokens, len(self.answers))
            for tokens in (self.reply.input_tokens, self.reply.output_tokens)
        )
        calls = zip(self.answers.items(), read, written, strict=True)
        return [ModelCall(key, _outcome_of(answer), self.sent, *tokens) for (key, answer), *tokens in calls]


class RulesAlone:
    """Triage without a model.

    Args:
        digests: what is pinned of a configuration that decides nothing as long as no model is asked.
    """

    def __init__(self, digests: Mapping[str, str] = MappingProxyType({})) -> None:
        self.digests = dict(digests)

    def decide(self, rows: Sequence[FlaggedRow]) -> TriageResult:
        """See classify."""
        return self.classify(rows)

    def classify(self, rows: Sequence[FlaggedRow]) -> TriageResult:
        """Give every row the deterministic label."""
        return _all_by_rules(rows, "llm_off")


class Triage:
    """Classifies flagged rows, batch by batch.

    Args:
        llm: deadline, budget, prices.
        prompt: loaded prompt.
        client: the model.
        ledger: where questions and answers are kept.
        budget: tokens and money of the minute and the day.
        policy: what may leave, and to which model.
        pseudonyms: stand for what identifies somebody.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        llm: Llm,
        prompt: Prompt,
        client: ModelClient,
        *,
        ledger: Ledger,
        budget: SpendingBudget,
        policy: Policy,
        pseudonyms: Pseudonyms,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._llm, self._prompt, self._client, self._ledger = llm, prompt, client, ledger
        self._budget, self._policy, self._clock = budget, policy, clock
        self._disclosure, self._packer = Disclosure(policy, pseudonyms), Packer(llm, prompt, client.model)
        self._familiarity = Familiarity()

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the prompt and of the policy, by the names they are pinned under."""
        return {"prompt_digest": self._prompt.digest, "policy_digest": self._policy.digest}

    def decide(self, rows: Sequence[FlaggedRow]) -> TriageResult:
        """Give a batch's rows their verdicts: inline see `classify`, deferred by rules at once."""
        if self._llm.mode == "inline":
            return self.classify(rows)
        ruling = self._ruling(rows)
        return replace(_all_by_rules(rows, "deferred" if ruling.allowed else "policy"), ruling=ruling)

    def classify(self, rows: Sequence[FlaggedRow]) -> TriageResult:
        """Give every row a verdict within the deadline, whatever the model does.

        Raises:
            FlagstreamError: what the ledger raises for its own store; nothing else.
        """
        start = self._clock()
        if not rows:
            return TriageResult(())
        ruling = self._ruling(rows)
        if not ruling.allowed:
            return replace(_all_by_rules(rows, "policy"), ruling=ruling)
        return replace(self._answered(rows, start), ruling=ruling)

    def _ruling(self, rows: Sequence[FlaggedRow]) -> PolicyRuling:
        model = self._client.model
        entities = {f"entities.{name}" for row in rows for name in row.entities}
        texts = {f"texts.{name}" for row in rows for name in row.untrusted}
        offered = [*SENDABLE, *sorted(entities), *sorted(texts)]
        withheld = tuple(name for name in offered if not self._policy.allows(name))
        return PolicyRuling(self._policy.policyName, model, self._policy.allows_model(model), withheld)

    def _answered(self, rows: Sequence[FlaggedRow], start: float) -> TriageResult:
        cases = self._cases(rows)
        known = self._ledger.recorded([case.key for case in cases])
        requests = self._book(self._packer.pack(case for case in cases if case.key not in known))
        outcomes = self._ask(requests, start)
        answers: dict[str, RecordedAnswer | FallbackReason] = dict(known)
        for outcome in outcomes:
            answers.update(outcome.answers)
        self._familiarity.note(case.group.pattern for case in cases if case.key in answers)
        input_tokens = sum(outcome.reply.input_tokens for outcome in outcomes)
        output_tokens = sum(outcome.reply.output_tokens for outcome in outcomes)
        return TriageResult(
            verdicts=_spread(rows, cases, answers),
            calls=sum(outcome.sent for outcome in outcomes),
            reused=len(known),
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cost=self._usd(input_tokens, output_tokens),
            groups=len(cases),
            seconds=self._clock() - start,
            made=tuple(call for outcome in outcomes for call in outcome.made),
        )

    def _cases(self, rows: Sequence[FlaggedRow]) -> list[Case]:
        groups = group_rows(rows, [self._disclosure.texts_of(row) for row in rows])
        model, tell = self._client.model, self._disclosure.tell
        return [
            case_of(self._prompt, model, group, priority, tell(group))
            for group, priority in by_priority(groups, rows, self._familiarity)
        ]

    def _usd(self, input_tokens: int, output_tokens: int) -> float:
        return self._llm.price_of(self._client.model).usd(input_tokens, output_tokens)

    def _book(self, packed: Iterable[list[Case]]) -> list[_Request]:
        booked = (self._booked(cases) for cases in packed)
        return [request for request in booked if request is not None]

    def _booked(self, cases: list[Case]) -> _Request | None:
        """Book as much of a request as the budget admits, its first cases before its last."""
        for count in range(len(cases), 0, -1):
            kept = cases[:count]
            read, written = self._packer.most_input_tokens(kept), self._packer.most_output_tokens(kept)
            booking = self._budget.reserve(read + written, self._usd(read, written))
            if booking is not None:
                return _Request(kept, booking)
        return None

    def _ask(self, requests: Sequence[_Request], start: float) -> list[_Outcome]:
        if not requests:
            return []
        before = self._clock()
        asked = [case for request in requests for case in request.cases]
        self._ledger.intend([self._intent(case) for case in asked])
        writing = self._clock() - before  # the answers' write will take about as long: keep that much back
        seconds = self._llm.deadline.total_seconds() - (self._clock() - start) - writing
        questions = [self._packer.question(request.cases) for request in requests]
        replies = self._client.ask(questions, max(seconds, 0.0))
        outcomes = [self._outcome(request, reply) for request, reply in zip(requests, replies, strict=True)]
        given = [answer for outcome in outcomes for answer in outcome.answers.values()]
        self._ledger.record([answer for answer in given if isinstance(answer, RecordedAnswer)])
        return outcomes

    def _intent(self, case: Case) -> Intent:
        return Intent(case.key, self._prompt.id, self._prompt.version, self._client.model, case.data)

    def _outcome(self, request: _Request, reply: Completion | Failure) -> _Outcome:
        self._settle(request.booking, reply)
        if isinstance(reply, Failure):
            return _Outcome(request, reply, {case.key: reply.reason for case in request.cases})
        found = answers_of(reply.text, {case.request_id: case.told.citable for case in request.cases})
        read, written = (_shares(each, len(found)) for each in (reply.input_tokens, reply.output_tokens))
        answers = {
            case.key: answer if isinstance(answer, str) else self._record(case, answer, tokens)
            for case, answer, tokens in zip(
                request.cases, found.values(), zip(read, written, strict=True), strict=True
            )
        }
        return _Outcome(request, reply, answers)

    def _settle(self, booking: Booking, reply: Completion | Failure) -> None:
        if reply.input_tokens + reply.output_tokens:
            used = self._usd(reply.input_tokens, reply.output_tokens)
            self._budget.settle(booking, reply.input_tokens + reply.output_tokens, used)
        elif _did_no_work(reply):
            self._budget.settle(booking, 0)

    def _record(self, case: Case, answer: Answer, tokens: tuple[int, int]) -> RecordedAnswer:
        return RecordedAnswer(
            key=case.key,
            classification=answer.classification,
            severity=answer.severity,
            rationale=answer.rationale,
            model=self._client.model,
            prompt_id=self._prompt.id,
            prompt_version=self._prompt.version,
            input_tokens=tokens[0],
            output_tokens=tokens[1],
            evidence=answer.evidence,
        )


def _shares(total: int, parts: int) -> list[int]:
    """Divide a request's tokens among its groups so that they add up, the first ones taking the rest."""
    each, rest = divmod(total, parts)
    return [each + (number < rest) for number in range(parts)]


def _did_no_work(reply: Completion | Failure) -> bool:
    """Where there is no count, what was booked stays charged, unless the server cannot have worked on it."""
    return isinstance(reply, Failure) and (not reply.sent or reply.reason in _NO_WORK_DONE)


def _spread(
    rows: Sequence[FlaggedRow],
    cases: Sequence[Case],
    answers: Mapping[str, RecordedAnswer | FallbackReason],
) -> tuple[Verdict, ...]:
    verdicts: dict[int, Verdict] = {}
    for case in cases:
        answer = answers.get(case.key, "over_budget")
        for position in case.group.members:
            verdicts[position] = _verdict(rows[position], answer, case)
    return tuple(verdicts[position] for position in range(len(rows)))


def _verdict(row: FlaggedRow, answer: RecordedAnswer | FallbackReason, case: Case) -> Verdict:
    return _by_model(row, answer, case) if isinstance(answer, RecordedAnswer) else _by_rules(row, answer)


def _outcome_of(answer: RecordedAnswer | FallbackReason) -> str:
    return "answered" if isinstance(answer, RecordedAnswer) else answer


def _all_by_rules(rows: Sequence[FlaggedRow], reason: FallbackReason) -> TriageResult:
    return TriageResult(tuple(_by_rules(row, reason) for row in rows))


def _by_rules(row: FlaggedRow, reason: FallbackReason) -> Verdict:
    label = row.label
    return Verdict(label.classification, label.severity, label.rationale, "rules", reason, None, None, None)


def _by_model(row: FlaggedRow, answer: RecordedAnswer, case: Case) -> Verdict:
    originals = case.told.originals
    return Verdict(
        classification=answer.classification,
        severity=highest((answer.severity, row.label.severity)),
        rationale=clip(resolved(answer.rationale, originals)),
        source="llm",
        fallback_reason=None,
        model=answer.model,
        prompt_id=answer.prompt_id,
        prompt_version=answer.prompt_version,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        evidence=tuple(resolved(each, originals) for each in answer.evidence),
    )
