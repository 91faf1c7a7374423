"""Requests to a model, from booking to record: the same steps whether a batch waits for them or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.audit.events import ModelCall
from agent.model.budget import Booking, SpendingBudget
from agent.model.model_client import Completion, Failure, Question
from agent.model.prompt_files import Prompt
from agent.triage.answers import Answer, answers_of
from agent.triage.containment import Faults
from agent.triage.ledger import Intent, Ledger, RecordedAnswer
from agent.triage.packing import Case, named
from agent.triage.respondents import Respondent, Respondents
from schemas.alert import FallbackReason

_NO_WORK_DONE: frozenset[FallbackReason] = frozenset(
    {"unreachable", "rate_limited", "server_error", "rejected"}
)


@dataclass(frozen=True)
class Request:
    """Cases that are asked about together.

    Attributes:
        to: the model that is asked.
        booking: what is set aside for it.
        more: what was set aside later on.
    """

    cases: Sequence[Case]
    to: Respondent
    booking: Booking
    more: list[Booking] = field(default_factory=list)


@dataclass(frozen=True)
class RequestOutcome:
    """What came of a request: by the cases' keys the answer, or why there is none."""

    request: Request
    reply: Completion | Failure
    answers: Mapping[str, RecordedAnswer | FallbackReason]

    @property
    def sent(self) -> bool:
        """Whether a request went out."""
        return isinstance(self.reply, Completion) or self.reply.sent

    @property
    def usd(self) -> float:
        """What it cost."""
        return self.request.to.usd(self.reply.input_tokens, self.reply.output_tokens)

    @property
    def made(self) -> list[ModelCall]:
        """A call per group, by its key in the ledger and without what was said; they share the tokens."""
        cases = self.request.cases
        read, written = (
            _shares(tokens, len(cases)) for tokens in (self.reply.input_tokens, self.reply.output_tokens)
        )
        return [
            ModelCall(self.request.to.key_of(case), _outcome_of(self.answers[case.key]), self.sent, *tokens)
            for case, *tokens in zip(cases, read, written, strict=True)
        ]


class Requests:
    """Books requests, puts questions and answers on record, and reads what a model has said.

    Args:
        prompt: loaded prompt.
        respondents: the models that may be asked.
        ledger: where questions and answers are kept.
        budget: tokens and money of the minute and the day.
    """

    def __init__(
        self, prompt: Prompt, respondents: Respondents, ledger: Ledger, budget: SpendingBudget
    ) -> None:
        self._prompt, self._ledger, self._budget = prompt, ledger, budget
        self.respondents = respondents

    def known(self, cases: Iterable[Case]) -> Mapping[str, RecordedAnswer]:
        """Return the answers on record, by the cases' keys; of several models' the first one's counts."""
        keys = {case.key: [each.key_of(case) for each in self.respondents.all] for case in cases}
        found = self._ledger.recorded([key for each in keys.values() for key in each])
        given = {case: next((key for key in each if key in found), None) for case, each in keys.items()}
        return {case: found[key] for case, key in given.items() if key is not None}

    def book(self, cases: Sequence[Case], to: Respondent) -> Request | None:
        """Book as much of a request as the budget admits, its first cases before its last."""
        for count in range(len(cases), 0, -1):
            kept = list(cases[:count])
            read, written = to.packer.most_input_tokens(kept), to.packer.booked_output_tokens(kept)
            booking = self._budget.reserve(read + written, to.usd(read, written))
            if booking is not None:
                return Request(kept, to, booking)
        return None

    def intend(self, requests: Iterable[Request]) -> None:
        """Put the questions of requests on record, before any is sent."""
        self._ledger.intend([self._intent(each, case) for each in requests for case in each.cases])

    def question(self, request: Request) -> Question:
        """Return what is sent."""
        return request.to.packer.question(
            list(request.cases), lambda tokens: self._book_more(request, tokens)
        )

    def outcome(self, request: Request, reply: Completion | Failure, faults: Faults) -> RequestOutcome:
        """Read what came back; `faults` takes what befalls the reading."""
        unread = RequestOutcome(request, reply, {case.key: "internal_error" for case in request.cases})
        return faults.contain(lambda: self._read(request, reply), unread)

    def _read(self, request: Request, reply: Completion | Failure) -> RequestOutcome:
        if isinstance(reply, Failure):
            return RequestOutcome(request, reply, {case.key: reply.reason for case in request.cases})
        citable = {name: case.disclosed.citable for name, case in named(request.cases).items()}
        found = answers_of(reply.text, citable)
        read, written = (_shares(each, len(found)) for each in (reply.input_tokens, reply.output_tokens))
        answers = {
            case.key: answer if isinstance(answer, str) else self._recorded(request, case, answer, tokens)
            for case, answer, tokens in zip(
                request.cases, found.values(), zip(read, written, strict=True), strict=True
            )
        }
        return RequestOutcome(request, reply, answers)

    def record(self, outcomes: Sequence[RequestOutcome]) -> None:
        """Put answers on record, before they are used, and settle what was booked for them."""
        given = [answer for outcome in outcomes for answer in outcome.answers.values()]
        self._ledger.record([answer for answer in given if isinstance(answer, RecordedAnswer)])
        for outcome in outcomes:
            self._settle(outcome)

    def _intent(self, request: Request, case: Case) -> Intent:
        to, prompt = request.to, self._prompt
        return Intent(to.key_of(case), prompt.id, prompt.version, to.model, case.data)

    def _book_more(self, request: Request, tokens: int) -> bool:
        booking = self._budget.reserve(tokens, request.to.usd(0, tokens))
        if booking is not None:
            request.more.append(booking)
        return booking is not None

    def _settle(self, outcome: RequestOutcome) -> None:
        reply, request = outcome.reply, outcome.request
        used = reply.input_tokens + reply.output_tokens
        if not (used or _did_no_work(reply)):
            return
        self._budget.settle(request.booking, used, outcome.usd)
        for booking in request.more:
            self._budget.settle(booking, 0)

    def _recorded(
        self, request: Request, case: Case, answer: Answer, tokens: tuple[int, int]
    ) -> RecordedAnswer:
        return RecordedAnswer(
            key=request.to.key_of(case),
            classification=answer.classification,
            severity=answer.severity,
            rationale=answer.rationale,
            model=request.to.model,
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


def _outcome_of(answer: RecordedAnswer | FallbackReason) -> str:
    return "answered" if isinstance(answer, RecordedAnswer) else answer
