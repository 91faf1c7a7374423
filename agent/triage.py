"""Triage: each flagged row gets a verdict, by a model where policy, budget and deadline allow, else by rules.

One structured-output request per group of like rows. Whatever the model or its server does, each row comes
back with a verdict, and one that is not the model's own says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any, cast

import orjson

from agent.audit import ModelCall, PolicyRuling
from agent.budget import TokenBudget
from agent.grouping import (
    FlaggedRow,
    Group,
    canonical_json,
    cleaned,
    content_key,
    facts_of,
    group_rows,
)
from agent.labels import highest
from agent.ledger import Intent, Ledger, RecordedAnswer
from agent.llm_client import Completion, Failure, ModelClient, Question
from agent.prompts import Messages, Prompt
from schemas.alert import CLASSIFICATIONS, Classification, ClassificationSource, FallbackReason
from schemas.policy import SENDABLE, Policy
from schemas.spec import SEVERITIES, Llm, Severity

__all__ = ["POLICIES", "FlaggedRow", "Triage", "TriageResult", "Verdict", "verdict_schema"]

POLICIES = Path(__file__).parent / "policies"
_ID_CHARACTERS = 6
_RATIONALE_CHARACTERS = 80
_CHARACTERS_PER_TOKEN = 3
_NO_WORK_DONE: frozenset[FallbackReason] = frozenset(
    {"unreachable", "rate_limited", "server_error", "rejected"}
)
_ANSWER_KEYS = frozenset({"id", "classification", "severity", "rationale"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an alert is called, by whom, and if by rules why not by the model.

    Tokens are those of the call that answered for the row's whole group.
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
        }


@dataclass(frozen=True)
class _Case:
    group: Group
    key: str
    canonical_input: str
    request_id: str
    messages: Messages

    @property
    def most_tokens(self) -> int:
        """A guess on the safe side of the prompt's tokens."""
        return (len(self.messages.system) + len(self.messages.user)) // _CHARACTERS_PER_TOKEN


@dataclass(frozen=True)
class _Booking:
    case: _Case
    day: date
    tokens: int


@dataclass(frozen=True)
class _Outcome:
    case: _Case
    answer: RecordedAnswer | FallbackReason
    reply: Completion | Failure

    @property
    def sent(self) -> bool:
        """Whether a request went out."""
        return isinstance(self.reply, Completion) or self.reply.sent

    @property
    def call(self) -> ModelCall:
        """The call without what was said."""
        outcome = "answered" if isinstance(self.answer, RecordedAnswer) else self.answer
        return ModelCall(self.case.key, outcome, self.sent, self.reply.input_tokens, self.reply.output_tokens)


class Triage:
    """Classifies flagged rows, batch by batch.

    Args:
        llm: deadline, budget, prices.
        prompt: loaded prompt.
        client: the model, or None to run on rules alone.
        ledger: where questions and answers are kept.
        budget: the day's tokens.
        policy: what may leave, and to which model.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        llm: Llm,
        prompt: Prompt,
        client: ModelClient | None,
        *,
        ledger: Ledger,
        budget: TokenBudget,
        policy: Policy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._llm, self._prompt, self._client, self._ledger = llm, prompt, client, ledger
        self._budget, self._policy, self._clock = budget, policy, clock

    def decide(self, rows: Sequence[FlaggedRow]) -> TriageResult:
        """Give a batch's rows their verdicts: inline see `classify`, deferred by rules at once."""
        if self._llm.mode == "inline" or self._client is None:
            return self.classify(rows)
        ruling = self._ruling(self._client.model, rows)
        return replace(_all_by_rules(rows, "deferred" if ruling.allowed else "policy"), ruling=ruling)

    def classify(self, rows: Sequence[FlaggedRow]) -> TriageResult:
        """Give every row a verdict within the deadline, whatever the model does.

        Raises:
            FlagstreamError: what the ledger raises for its own store; nothing else.
        """
        start = self._clock()
        if self._client is None or not rows:
            return _all_by_rules(rows, "llm_off")
        ruling = self._ruling(self._client.model, rows)
        if not ruling.allowed:
            return replace(_all_by_rules(rows, "policy"), ruling=ruling)
        return replace(self._classify_groups(self._client, rows, start), ruling=ruling)

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the prompt and of the policy, by the names they are pinned under."""
        return {"prompt_digest": self._prompt.digest, "policy_digest": self._policy.digest}

    def _ruling(self, model: str, rows: Sequence[FlaggedRow]) -> PolicyRuling:
        entities = {f"entities.{name}" for row in rows for name in row.entities}
        texts = {f"texts.{name}" for row in rows for name in row.untrusted}
        offered = [*SENDABLE, *sorted(entities), *sorted(texts)]
        withheld = tuple(name for name in offered if not self._policy.allows(name))
        return PolicyRuling(self._policy.policyName, model, self._policy.allows_model(model), withheld)

    def _classify_groups(self, client: ModelClient, rows: Sequence[FlaggedRow], start: float) -> TriageResult:
        cases = [self._case(client.model, group) for group in group_rows(rows)]
        known = self._ledger.recorded([case.key for case in cases])
        answers: dict[str, RecordedAnswer | FallbackReason] = dict(known)
        booked = self._book({case.key: case for case in cases if case.key not in known}.values())
        outcomes = self._ask(client, booked, start)
        answers.update({outcome.case.key: outcome.answer for outcome in outcomes})
        verdicts = self._spread(rows, cases, answers)
        input_tokens = sum(outcome.reply.input_tokens for outcome in outcomes)
        output_tokens = sum(outcome.reply.output_tokens for outcome in outcomes)
        return TriageResult(
            verdicts=verdicts,
            calls=sum(outcome.sent for outcome in outcomes),
            reused=len(known),
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cost=self._llm.price_of(client.model).usd(input_tokens, output_tokens),
            groups=len(cases),
            seconds=self._clock() - start,
            made=tuple(outcome.call for outcome in outcomes),
        )

    def _case(self, model: str, group: Group) -> _Case:
        data = canonical_json(facts_of(group, self._policy))
        key = content_key(self._prompt.id, self._prompt.version, model, data)
        request_id = key[:_ID_CHARACTERS]
        return _Case(group, key, data, request_id, self._prompt.render(data, request_id))

    def _book(self, cases: Iterable[_Case]) -> list[_Booking]:
        booked = []
        for case in islice(cases, self._llm.budget.calls_per_batch):
            tokens = case.most_tokens + self._llm.max_output_tokens
            day = self._budget.reserve(tokens)
            if day is not None:
                booked.append(_Booking(case, day, tokens))
        return booked

    def _ask(self, client: ModelClient, booked: Sequence[_Booking], start: float) -> list[_Outcome]:
        if not booked:
            return []
        before = self._clock()
        self._ledger.intend([self._intent(client.model, booking.case) for booking in booked])
        writing = self._clock() - before  # the answers' write will take about as long: keep that much back
        seconds = self._llm.deadline.total_seconds() - (self._clock() - start) - writing
        questions = [Question(each.case.messages, verdict_schema(each.case.request_id)) for each in booked]
        replies = client.ask(questions, max(seconds, 0.0))
        outcomes = [
            self._outcome(client.model, booking, reply)
            for booking, reply in zip(booked, replies, strict=True)
        ]
        self._ledger.record([each.answer for each in outcomes if isinstance(each.answer, RecordedAnswer)])
        return outcomes

    def _intent(self, model: str, case: _Case) -> Intent:
        return Intent(case.key, self._prompt.id, self._prompt.version, model, case.canonical_input)

    def _outcome(self, model: str, booking: _Booking, reply: Completion | Failure) -> _Outcome:
        used = reply.input_tokens + reply.output_tokens
        self._budget.settle(booking.day, booking.tokens, used or _presumed(reply, booking.tokens))
        answer = reply.reason if isinstance(reply, Failure) else self._answer(model, booking.case, reply)
        return _Outcome(booking.case, answer, reply)

    def _answer(self, model: str, case: _Case, reply: Completion) -> RecordedAnswer | FallbackReason:
        content = _validated(reply.text, case.request_id)
        if isinstance(content, str):
            return content
        return RecordedAnswer(
            key=case.key,
            classification=content["classification"],
            severity=content["severity"],
            rationale=cleaned(content["rationale"], _RATIONALE_CHARACTERS),
            model=model,
            prompt_id=self._prompt.id,
            prompt_version=self._prompt.version,
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
        )

    def _spread(
        self,
        rows: Sequence[FlaggedRow],
        cases: Sequence[_Case],
        answers: Mapping[str, RecordedAnswer | FallbackReason],
    ) -> tuple[Verdict, ...]:
        verdicts: dict[int, Verdict] = {}
        for case in cases:
            answer = answers.get(case.key, "over_budget")
            for position in case.group.members:
                verdicts[position] = self._verdict(rows[position], answer)
        return tuple(verdicts[position] for position in range(len(rows)))

    def _verdict(self, row: FlaggedRow, answer: RecordedAnswer | FallbackReason) -> Verdict:
        if isinstance(answer, RecordedAnswer):
            return _by_model(row, answer)
        return _by_rules(row, answer)


def _presumed(reply: Completion | Failure, booked: int) -> int:
    """Tokens to charge where the server gave no count: all that was booked, if it may have worked on it."""
    idle = isinstance(reply, Failure) and (not reply.sent or reply.reason in _NO_WORK_DONE)
    return 0 if idle else booked


def _all_by_rules(rows: Sequence[FlaggedRow], reason: FallbackReason) -> TriageResult:
    return TriageResult(tuple(_by_rules(row, reason) for row in rows))


def _by_rules(row: FlaggedRow, reason: FallbackReason) -> Verdict:
    label = row.label
    return Verdict(label.classification, label.severity, label.rationale, "rules", reason, None, None, None)


def _by_model(row: FlaggedRow, answer: RecordedAnswer) -> Verdict:
    return Verdict(
        classification=answer.classification,
        severity=highest((answer.severity, row.minimum_severity)),
        rationale=answer.rationale,
        source="llm",
        fallback_reason=None,
        model=answer.model,
        prompt_id=answer.prompt_id,
        prompt_version=answer.prompt_version,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
    )


def verdict_schema(request_id: str) -> dict[str, Any]:
    """Return the JSON Schema of the answer to one request.

    The rationale is bounded by a pattern: OpenAI's strict mode documents `pattern`, not `maxLength`, and
    llama.cpp decodes under it as well. Quotes and backslashes are left out, so no escape is cut in half.
    """
    properties = {
        "id": {"type": "string", "enum": [request_id]},
        "classification": {"type": "string", "enum": list(CLASSIFICATIONS)},
        "severity": {"type": "string", "enum": list(SEVERITIES)},
        "rationale": {"type": "string", "pattern": f"^[ !#-\\[\\]-~]{{1,{_RATIONALE_CHARACTERS}}}$"},
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


def _validated(text: str, request_id: str) -> dict[str, Any] | FallbackReason:
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError:
        return "invalid_json"
    if not isinstance(content, dict) or content.keys() != _ANSWER_KEYS:
        return "invalid_json"
    if not all(isinstance(value, str) for value in content.values()) or not cleaned(content["rationale"]):
        return "invalid_json"
    if content["id"] != request_id:
        return "wrong_id"
    if content["classification"] not in CLASSIFICATIONS or content["severity"] not in SEVERITIES:
        return "wrong_enum"
    return cast("dict[str, Any]", content)
