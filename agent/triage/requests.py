"""Requests to a model, from booking to record: the same steps whether a batch waits for them or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.audit.events import ModelCall
from agent.model.budget import Booking, SpendingBudget
from agent.model.model_client import Completion, Failure, ModelClient, Question
from agent.model.prompt_files import Prompt
from agent.triage.answers import Answer, answers_of
from agent.triage.containment import Faults
from agent.triage.ledger import Intent, Ledger, RecordedAnswer
from agent.triage.packing import Case, Packer
from schemas.alert import FallbackReason
from schemas.llm import Llm

_NO_WORK_DONE: frozenset[FallbackReason] = frozenset(
    {"unreachable", "rate_limited", "server_error", "rejected"}
)


@dataclass(frozen=True)
class Request:
    """Cases that are asked about together, and what is set aside for it."""

    cases: Sequence[Case]
    booking: Booking


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
    def made(self) -> list[ModelCall]:
        """A call per group, without what was said; they share the request's tokens."""
        read, written = (
            _shares(tokens, len(self.answers))
            for tokens in (self.reply.input_tokens, self.reply.output_tokens)
        )
        calls = zip(self.answers.items(), read, written, strict=True)
        return [ModelCall(key, _outcome_of(answer), self.sent, *tokens) for (key, answer), *tokens in calls]


class Requests:
    """Books requests, puts questions and answers on record, and reads what a model has said.

    Args:
        llm: prices, context and output.
        prompt: loaded prompt.
        client: the model.
        ledger: where questions and answers are kept.
        budget: tokens and money of the minute and the day.
    """

    def __init__(
        self, llm: Llm, prompt: Prompt, client: ModelClient, ledger: Ledger, budget: SpendingBudget
    ) -> None:
        self._llm, self._prompt, self._client = llm, prompt, client
        self._ledger, self._budget = ledger, budget
        self.packer = Packer(llm, prompt, client.model)

    @property
    def client(self) -> ModelClient:
        """The model."""
        return self._client

    def known(self, cases: Iterable[Case]) -> Mapping[str, RecordedAnswer]:
        """Return the answers on record, by the cases' keys."""
        return self._ledger.recorded([case.key for case in cases])

    def usd(self, input_tokens: int, output_tokens: int) -> float:
        """Return what so many tokens cost."""
        return self._llm.price_of(self._client.model).usd(input_tokens, output_tokens)

    def book(self, cases: Sequence[Case]) -> Request | None:
        """Book as much of a request as the budget admits, its first cases before its last."""
        for count in range(len(cases), 0, -1):
            kept = list(cases[:count])
            read, written = self.packer.most_input_tokens(kept), self.packer.most_output_tokens(kept)
            booking = self._budget.reserve(read + written, self.usd(read, written))
            if booking is not None:
                return Request(kept, booking)
        return None

    def intend(self, requests: Iterable[Request]) -> None:
        """Put the questions of requests on record, before any is sent."""
        self._ledger.intend([self._intent(case) for request in requests for case in request.cases])

    def question(self, request: Request) -> Question:
        """Return what is sent."""
        return self.packer.question(list(request.cases))

    def outcome(self, request: Request, reply: Completion | Failure, faults: Faults) -> RequestOutcome:
        """Read what came back; `faults` takes what befalls the reading."""
        unread = RequestOutcome(request, reply, {case.key: "internal_error" for case in request.cases})
        return faults.contain(lambda: self._read(request, reply), unread)

    def _read(self, request: Request, reply: Completion | Failure) -> RequestOutcome:
        if isinstance(reply, Failure):
            return RequestOutcome(request, reply, {case.key: reply.reason for case in request.cases})
        found = answers_of(reply.text, {case.request_id: case.disclosed.citable for case in request.cases})
        read, written = (_shares(each, len(found)) for each in (reply.input_tokens, reply.output_tokens))
        answers = {
            case.key: answer if isinstance(answer, str) else self._recorded(case, answer, tokens)
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
            self._settle(outcome.request.booking, outcome.reply)

    def _intent(self, case: Case) -> Intent:
        return Intent(case.key, self._prompt.id, self._prompt.version, self._client.model, case.data)

    def _settle(self, booking: Booking, reply: Completion | Failure) -> None:
        if reply.input_tokens + reply.output_tokens:
            used = self.usd(reply.input_tokens, reply.output_tokens)
            self._budget.settle(booking, reply.input_tokens + reply.output_tokens, used)
        elif _did_no_work(reply):
            self._budget.settle(booking, 0)

    def _recorded(self, case: Case, answer: Answer, tokens: tuple[int, int]) -> RecordedAnswer:
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


def _outcome_of(answer: RecordedAnswer | FallbackReason) -> str:
    return "answered" if isinstance(answer, RecordedAnswer) else answer
