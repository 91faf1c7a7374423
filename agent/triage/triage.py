"""Triage: classifies each flagged row, by a model where policy, budget and deadline allow, else by rules.

One structured-output request asks about several groups of like rows. Whatever the model or its server does,
each row comes back classified, none less severe than score and rules call for. A classification that is not
the model's own says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from agent.audit.events import PolicyRuling
from agent.model.budget import SpendingBudget
from agent.model.model_client import ModelClient, is_down
from agent.model.prompt_files import Prompt
from agent.triage.containment import Faults
from agent.triage.disclosure import Disclosure
from agent.triage.grouping import FlaggedRow, Group, group_rows
from agent.triage.inquiries import Inquiries
from agent.triage.ledger import Ledger, RecordedAnswer
from agent.triage.outcomes import Classification, TriageResult, all_by_rules, spread
from agent.triage.overdue import Overdue
from agent.triage.packing import Case, case_of
from agent.triage.pseudonyms import Pseudonyms
from agent.triage.requests import Request, RequestOutcome, Requests
from agent.triage.respondents import Respondent, Respondents
from agent.triage.scheduling import Familiarity, by_priority
from schemas.alert import FallbackReason
from schemas.llm import Llm
from schemas.policy import SENDABLE, Policy

__all__ = ["POLICIES", "Classification", "FlaggedRow", "Quote", "Triage", "TriageResult"]

POLICIES = Path(__file__).parent.parent / "policies"


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
        """Give every row the classification by rules."""
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
        self._llm, self._prompt, self._policy, self._clock = llm, prompt, policy, clock
        self._disclosure, self._familiarity = Disclosure(policy, pseudonyms), Familiarity()
        self._respondents = Respondents(llm, prompt, client, policy)
        self._requests = Requests(prompt, self._respondents, ledger, budget)
        self.inquiries = Inquiries(self._requests, llm, clock)
        self._overdue = Overdue(self._requests, clock)

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the prompt and of the policy, by the names they are pinned under."""
        return {"prompt_digest": self._prompt.digest, "policy_digest": self._policy.digest}

    def decide(self, rows: Sequence[FlaggedRow]) -> TriageResult:
        """Give a batch's rows their classifications: inline see `classify`, deferred by rules at once."""
        if self._llm.mode == "inline":
            return self.classify(rows)
        ruling = self.ruling(rows)
        return replace(all_by_rules(rows, "deferred" if ruling.allowed else "policy"), ruling=ruling)

    def classify(self, rows: Sequence[FlaggedRow]) -> TriageResult:
        """Give every row a classification within the deadline, whatever the model does and the rows hold.

        Raises:
            FlagstreamError: what the ledger raises for its own store; nothing else.
        """
        start, faults = self._clock(), Faults()
        if not rows:
            return TriageResult(())
        ruling = self.ruling(rows)
        if not ruling.allowed:
            return replace(all_by_rules(rows, "policy"), ruling=ruling)
        result = faults.contain(
            lambda: self._answered(rows, start, faults), all_by_rules(rows, "internal_error")
        )
        return replace(result, ruling=ruling, faults=faults.noted)

    def recall(self, rows: Sequence[FlaggedRow]) -> TriageResult:
        """Give rows the answers on record to the very questions they make, or the classification by rules.

        Nobody is asked; the reason given then is `llm_off`.
        """
        ruling = self.ruling(rows)
        if not ruling.allowed:
            return replace(all_by_rules(rows, "policy"), ruling=ruling)
        faults = Faults()
        cases = self.cases(rows, faults)
        known = self._requests.known(cases)
        classifications = spread(rows, cases, known, "llm_off", faults)
        groups = len(cases)
        return TriageResult(classifications, groups=groups, ruling=ruling, faults=faults.noted)

    def quote(self, rows: Sequence[FlaggedRow]) -> Quote:
        """Say what one round of questions about rows would take at most; nobody is asked."""
        if not self.ruling(rows).allowed:
            return Quote()
        asked = self._respondents.first
        requests = asked.packer.pack(self.cases(rows, Faults()))
        read = sum(map(asked.packer.most_input_tokens, requests))
        written = sum(map(asked.packer.booked_output_tokens, requests))
        return Quote(sum(map(len, requests)), len(requests), read, written, asked.usd(read, written))

    def recorded(self, cases: Sequence[Case]) -> Mapping[str, RecordedAnswer]:
        """Return the answers on record to cases, by their keys."""
        return self._requests.known(cases)

    def note_answered(self, cases: Iterable[Case]) -> None:
        """Take in that cases were answered, so that those of other kinds go first."""
        self._familiarity.note(case.group.pattern for case in cases)

    def result_of(self, outcomes: Sequence[RequestOutcome], seconds: float = 0.0) -> TriageResult:
        """Return what requests have taken, with no classification in it."""
        input_tokens = sum(outcome.reply.input_tokens for outcome in outcomes)
        output_tokens = sum(outcome.reply.output_tokens for outcome in outcomes)
        return TriageResult(
            classifications=(),
            calls=sum(outcome.sent for outcome in outcomes),
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cost=sum(outcome.usd for outcome in outcomes),
            seconds=seconds,
            made=tuple(call for outcome in outcomes for call in outcome.made),
        )

    def ruling(self, rows: Sequence[FlaggedRow]) -> PolicyRuling:
        """Say what the policy makes of asking about rows."""
        model = self._respondents.first.model
        entities = {f"entities.{name}" for row in rows for name in row.entities}
        texts = {f"texts.{name}" for row in rows for name in row.untrusted}
        offered = [*SENDABLE, *sorted(entities), *sorted(texts)]
        withheld = tuple(name for name in offered if not self._policy.allows(name))
        return PolicyRuling(self._policy.policyName, model, self._policy.allows_model(model), withheld)

    def _answered(self, rows: Sequence[FlaggedRow], start: float, faults: Faults) -> TriageResult:
        came = self.result_of(self._overdue.collect(faults))
        cases, waiting = self.cases(rows, faults), self._overdue.keys
        known = self._requests.known(cases)
        askable = (case for case in cases if case.key not in known and case.key not in waiting)
        outcomes = self._ask_in_turn(list(askable), start, faults)
        answers: dict[str, RecordedAnswer | FallbackReason] = dict.fromkeys(waiting, "timeout")
        answers.update(known)
        for outcome in outcomes:
            answers.update(outcome.answers)
        self.note_answered(case for case in cases if case.key in answers)
        took = self.result_of(outcomes, self._clock() - start)
        return replace(
            took,
            classifications=spread(rows, cases, answers, "over_budget", faults),
            input_tokens=took.input_tokens + came.input_tokens,
            output_tokens=took.output_tokens + came.output_tokens,
            cost=took.cost + came.cost,
            groups=len(cases),
        )

    def cases(self, rows: Sequence[FlaggedRow], faults: Faults) -> list[Case]:
        """Return the groups that can be asked about, what most depends on first.

        A row that meets a fault on the way is in none.
        """
        texts = [faults.contain(partial(self._disclosure.texts_of, row), None) for row in rows]
        groups = group_rows(rows, texts)
        ranked = faults.contain(
            lambda: by_priority(groups, rows, self._familiarity), [(group, 0.0) for group in groups]
        )
        cases = [faults.contain(partial(self._case, *each), None) for each in ranked]
        return [case for case in cases if case is not None]

    def _case(self, group: Group, priority: float) -> Case:
        disclosed = self._disclosure.disclose(group)
        return case_of(self._prompt, self._respondents.first.model, group, priority, disclosed)

    def _ask_in_turn(self, cases: Sequence[Case], start: float, faults: Faults) -> list[RequestOutcome]:
        """Ask the first model that is fit; what is not answered through its own fault, the next one."""
        outcomes: list[RequestOutcome] = []
        waiting, tried = list(cases), set[str]()
        while waiting and (to := self._respondents.after(tried)) is not None:
            tried.add(to.model)
            asked = self._ask(self._book(waiting, to), start, faults)
            outcomes += asked
            failed = {case.key for each in asked for case in each.request.cases if is_down(each.reply)}
            waiting = [case for case in waiting if case.key in failed] if self._left(start) > 0 else []
        return outcomes

    def _left(self, start: float) -> float:
        return self._llm.deadline.total_seconds() - (self._clock() - start)

    def _book(self, cases: Iterable[Case], to: Respondent) -> list[Request]:
        booked = (self._requests.book(each, to) for each in to.packer.pack(cases))
        return [request for request in booked if request is not None]

    def _ask(self, requests: Sequence[Request], start: float, faults: Faults) -> list[RequestOutcome]:
        if not requests:
            return []
        before = self._clock()
        self._requests.intend(requests)
        writing = self._clock() - before  # the answers' write will take about as long: keep that much back
        seconds = self._left(start) - writing
        replies = self._overdue.ask(requests, max(seconds, 0.0))
        outcomes = [self._requests.outcome(*each, faults) for each in zip(requests, replies, strict=True)]
        self._requests.record(outcomes)
        return outcomes
