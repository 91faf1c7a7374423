"""Triage: each flagged row gets a verdict, by a model where policy, budget and deadline allow, else by rules.

One structured-output request asks about several groups of like rows. Whatever the model or its server does,
each row comes back with a verdict, none less severe than score and rules call for, and one that is not the
model's own says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from agent.answers import Answer, answers_of
from agent.audit import ModelCall, PolicyRuling
from agent.budget import Booking, SpendingBudget
from agent.containment import Faults
from agent.disclosure import Disclosure
from agent.grouping import FlaggedRow, Group, group_rows
from agent.ledger import Intent, Ledger, RecordedAnswer
from agent.llm_client import Completion, Failure, ModelClient
from agent.packing import Case, Packer, case_of
from agent.prompts import Prompt
from agent.pseudonyms import Pseudonyms
from agent.scheduling import Familiarity, by_priority
from agent.verdicts import TriageResult, Verdict, all_by_rules, spread
from schemas.alert import FallbackReason
from schemas.policy import SENDABLE, Policy
from schemas.spec import Llm

__all__ = ["POLICIES", "FlaggedRow", "Quote", "Triage", "TriageResult", "Verdict"]

POLICIES = Path(__file__).parent / "policies"
_NO_WORK_DONE: frozenset[FallbackReason] = frozenset(
    {"unreachable", "rate_limited", "server_error", "rejected"}
)


@dataclass(frozen=True)
class Quote:
    """What asking would take at most: tokens rather too many than too few, `usd` by the spec's prices."""

    groups: int = 0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: Quote) -> Quote:
        """Return what both would take."""
        return Quote(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


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
        return all_by_rules(rows, "llm_off")


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
        return replace(all_by_rules(rows, "deferred" if ruling.allowed else "policy"), ruling=ruling)

    def classify(self, rows: Sequence[FlaggedRow]) -> TriageResult:
        """Give every row a verdict within the deadline, whatever the model does and the rows hold.

        Raises:
            FlagstreamError: what the ledger raises for its own store; nothing else.
        """
        start, faults = self._clock(), Faults()
        if not rows:
            return TriageResult(())
        ruling = self._ruling(rows)
        if not ruling.allowed:
            return replace(all_by_rules(rows, "policy"), ruling=ruling)
        result = faults.contain(
            lambda: self._answered(rows, start, faults), all_by_rules(rows, "internal_error")
        )
        return replace(result, ruling=ruling, faults=faults.noted)

    def recall(self, rows: Sequence[FlaggedRow]) -> TriageResult:
        """Give rows the answers on record to the very questions they make, or the deterministic label.

        Nobody is asked; the reason given then is `llm_off`.
        """
        ruling = self._ruling(rows)
        if not ruling.allowed:
            return replace(all_by_rules(rows, "policy"), ruling=ruling)
        faults = Faults()
        cases = self._cases(rows, faults)
        known = self._ledger.recorded([case.key for case in cases])
        verdicts = spread(rows, cases, known, "llm_off", faults)
        groups = len(cases)
        return TriageResult(verdicts, reused=len(known), groups=groups, ruling=ruling, faults=faults.noted)

    def quote(self, rows: Sequence[FlaggedRow]) -> Quote:
        """Say what one round of questions about rows would take at most; nobody is asked."""
        if not self._ruling(rows).allowed:
            return Quote()
        requests = self._packer.pack(self._cases(rows, Faults()))
        read = sum(map(self._packer.most_input_tokens, requests))
        written = sum(map(self._packer.most_output_tokens, requests))
        return Quote(sum(map(len, requests)), len(requests), read, written, self._usd(read, written))

    def _ruling(self, rows: Sequence[FlaggedRow]) -> PolicyRuling:
        model = self._client.model
        entities = {f"entities.{name}" for row in rows for name in row.entities}
        texts = {f"texts.{name}" for row in rows for name in row.untrusted}
        offered = [*SENDABLE, *sorted(entities), *sorted(texts)]
        withheld = tuple(name for name in offered if not self._policy.allows(name))
        return PolicyRuling(self._policy.policyName, model, self._policy.allows_model(model), withheld)

    def _answered(self, rows: Sequence[FlaggedRow], start: float, faults: Faults) -> TriageResult:
        cases = self._cases(rows, faults)
        known = self._ledger.recorded([case.key for case in cases])
        requests = self._book(self._packer.pack(case for case in cases if case.key not in known))
        outcomes = self._ask(requests, start, faults)
        answers: dict[str, RecordedAnswer | FallbackReason] = dict(known)
        for outcome in outcomes:
            answers.update(outcome.answers)
        self._familiarity.note(case.group.pattern for case in cases if case.key in answers)
        input_tokens = sum(outcome.reply.input_tokens for outcome in outcomes)
        output_tokens = sum(outcome.reply.output_tokens for outcome in outcomes)
        return TriageResult(
            verdicts=spread(rows, cases, answers, "over_budget", faults),
            calls=sum(outcome.sent for outcome in outcomes),
            reused=len(known),
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cost=self._usd(input_tokens, output_tokens),
            groups=len(cases),
            seconds=self._clock() - start,
            made=tuple(call for outcome in outcomes for call in outcome.made),
        )

    def _cases(self, rows: Sequence[FlaggedRow], faults: Faults) -> list[Case]:
        """Return the groups that can be asked about; a row that meets a fault on the way is in none."""
        texts = [faults.contain(partial(self._disclosure.texts_of, row), None) for row in rows]
        groups = group_rows(rows, texts)
        ranked = faults.contain(
            lambda: by_priority(groups, rows, self._familiarity), [(group, 0.0) for group in groups]
        )
        cases = [faults.contain(partial(self._case, *each), None) for each in ranked]
        return [case for case in cases if case is not None]

    def _case(self, group: Group, priority: float) -> Case:
        told = self._disclosure.tell(group)
        return case_of(self._prompt, self._client.model, group, priority, told)

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

    def _ask(self, requests: Sequence[_Request], start: float, faults: Faults) -> list[_Outcome]:
        if not requests:
            return []
        before = self._clock()
        asked = [case for request in requests for case in request.cases]
        self._ledger.intend([self._intent(case) for case in asked])
        writing = self._clock() - before  # the answers' write will take about as long: keep that much back
        seconds = self._llm.deadline.total_seconds() - (self._clock() - start) - writing
        questions = [self._packer.question(request.cases) for request in requests]
        replies = self._client.ask(questions, max(seconds, 0.0))
        outcomes = [
            faults.contain(partial(self._outcome, request, reply), _unread(request, reply))
            for request, reply in zip(requests, replies, strict=True)
        ]
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


def _unread(request: _Request, reply: Completion | Failure) -> _Outcome:
    return _Outcome(request, reply, {case.key: "internal_error" for case in request.cases})


def _shares(total: int, parts: int) -> list[int]:
    """Divide a request's tokens among its groups so that they add up, the first ones taking the rest."""
    each, rest = divmod(total, parts)
    return [each + (number < rest) for number in range(parts)]


def _did_no_work(reply: Completion | Failure) -> bool:
    """Where there is no count, what was booked stays charged, unless the server cannot have worked on it."""
    return isinstance(reply, Failure) and (not reply.sent or reply.reason in _NO_WORK_DONE)


def _outcome_of(answer: RecordedAnswer | FallbackReason) -> str:
    return "answered" if isinstance(answer, RecordedAnswer) else answer
