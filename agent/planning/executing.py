"""Carries out a plan that was checked: step by step, each checked again with the values it then has."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from agent.planning.actions import ActionResult, Actions, Scalar
from agent.planning.catalogue import (
    CATALOGUE,
    Notify,
    Parameters,
    PostFinding,
    QueryAggregates,
    ReplayPreview,
    RunJob,
)
from agent.planning.finding import MOST_EVIDENCE, Evidence, Finding
from agent.planning.plan_policy import Ground, check_step, limits_of
from agent.planning.plans import Plan, Reference, Step, parsed_parameters, resolved
from agent.planning.refusals import Refusal, Refused, refused
from agent.planning.run_audit import RunAudit
from agent.triage.pseudonyms import TokenBook
from schemas.errors import FlagstreamError
from schemas.policy import JobLimits, NotifyLimits, Policy, QueryLimits, ReplayLimits

Status = Literal["done", "dry_run", "refused", "failed"]
_WENT_WELL: tuple[Status, ...] = ("done", "dry_run")


@dataclass(frozen=True)
class Deadline:
    """When a run must be over, in seconds of a monotonic clock."""

    at: float
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """Return the deadline that is `seconds` away."""
        return cls(clock() + seconds, clock)

    @property
    def left(self) -> float:
        """Seconds that are left, never below zero."""
        return max(self.at - self.clock(), 0.0)


@dataclass(frozen=True)
class Outcome:
    """What became of a step. `problem` says why it was refused or failed."""

    step: Step
    status: Status
    result: ActionResult
    seconds: float
    problem: str | None = None

    @property
    def well(self) -> bool:
        """Whether the next step may follow."""
        return self.status in _WENT_WELL

    def plain(self) -> dict[str, Any]:
        """Return it JSON-serialisable."""
        return {
            **self.step.model_dump(mode="json"),
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "problem": self.problem,
            "result": self.result.plain(),
        }


def evidence_of(outcomes: Sequence[Outcome], policy: Policy | None, tokens: TokenBook) -> dict[str, Scalar]:
    """Return the values of results by path, such as `s1.rows.0.n`; each step's first ones of many.

    Args:
        policy: only values that may leave under it are returned, as they may leave; None for all.
        tokens: of the run.
    """
    found: dict[str, Scalar] = {}
    for outcome in outcomes:
        result = outcome.result if policy is None else outcome.result.leaving(policy, tokens)
        share = islice(result.values().items(), MOST_EVIDENCE // len(outcomes))
        found |= {f"{outcome.step.id}.{path}": value for path, value in share}
    return found


class Executor:
    """Carries out one plan.

    Args:
        run_id: 32 hex digits; jobs of one run and step start once.
        policy: reads the policy, anew before each step: what was revoked meanwhile is not done.
        ground: what the plan is about.
        actions: carry out.
        audit: receives every action, before and after it.
        deadline: of the whole run.
        write: writes the finding from a title and what may be cited.
        tokens: of the run; parameters that stay on this machine get what they stand for.
        model_policy: the policy under which results are shown to whoever writes; None shows everything.
    """

    def __init__(
        self,
        run_id: str,
        policy: Callable[[], Policy],
        ground: Ground,
        actions: Actions,
        audit: RunAudit,
        deadline: Deadline,
        write: Callable[[str, Evidence], Finding],
        tokens: TokenBook,
        *,
        model_policy: Policy | None,
    ) -> None:
        self._run_id, self._policy, self._ground, self._actions = run_id, policy, ground, actions
        self._audit, self._deadline, self._write = audit, deadline, write
        self._tokens, self._model_policy = tokens, model_policy
        self._outcomes: list[Outcome] = []
        self.finding: Finding | None = None

    def run(self, plan: Plan) -> Iterator[Outcome]:
        """Carry out the steps in order, yielding what becomes of each, up to the first that does not go well.

        Raises:
            FlagstreamError: the audit log cannot be written.
        """
        for number, step in enumerate(plan.steps, start=1):
            outcome = self._outcome(number, step)
            self._outcomes.append(outcome)
            yield outcome
            if not outcome.well:
                return

    def conclude(self, title: str) -> Finding:
        """Return the finding: the one that a step wrote, else one written now."""
        if self.finding is None:
            self.finding = self._written(title)
        return self.finding

    def _outcome(self, number: int, step: Step) -> Outcome:
        start = self._deadline.clock()
        try:
            policy = self._policy()
            parameters = self._checked(number, step, policy)
        except Refused as fault:
            self._audit.refused(fault.refusals, action=step.action, step=number)
            return self._ended(number, Outcome(step, "refused", ActionResult(), 0.0, str(fault)))
        self._audit.record("action", step.action, action=step.action, step=number, outcome="started")
        try:
            result, problem = (
                _DO.get(type(parameters), Executor._look_up)(self, parameters, policy, step),
                None,
            )
            status: Status = "dry_run" if result.dry_run else "done"
        except FlagstreamError as fault:
            result, status, problem = ActionResult(), "failed", f"{step.id}: {step.action}: {fault}"
        seconds = self._deadline.clock() - start
        return self._ended(number, Outcome(step, status, result, seconds, problem))

    def _ended(self, number: int, outcome: Outcome) -> Outcome:
        result, action = outcome.result, outcome.step.action
        withheld = result.withheld(self._policy()) if self._model_policy is not None else ()
        self._audit.record(
            "action",
            action,
            action=action,
            step=number,
            outcome=outcome.status,
            rows=len(result.rows),
            withheld=list(withheld),
        )
        return outcome

    def _checked(self, number: int, step: Step, policy: Policy) -> Parameters:
        self._check_budgets(number, policy)
        met = step.model_copy(update={"parameters": self._resolved(step, policy)})
        found = check_step(met, policy, self._ground)
        if found:
            raise Refused(*found)
        return parsed_parameters(met)

    def _check_budgets(self, number: int, policy: Policy) -> None:
        if number > policy.budgets.steps:
            raise refused("budgets.steps", f"at most {policy.budgets.steps} may run")
        if self._deadline.left <= 0:
            raise refused("budgets.seconds", f"{policy.budgets.seconds:g} s are over")

    def _resolved(self, step: Step, policy: Policy) -> Mapping[str, Any]:
        results = {outcome.step.id: outcome.result for outcome in self._outcomes}
        outgoing = CATALOGUE[step.action].outgoing if step.action in CATALOGUE else True

        def look_up(reference: Reference) -> str:
            result = results.get(reference.step, ActionResult())
            shown = result.leaving(policy, self._tokens) if outgoing else result
            return _value(result, shown, reference, step)

        found: Mapping[str, Any] = resolved(step.parameters, look_up)
        return found if outgoing else self._exact(step, found)

    def _exact(self, step: Step, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Turn tokens back where values stand; in the text of a query one could end what quotes it."""
        values = CATALOGUE[step.action].referable
        return {
            name: self._tokens.exact(each) if name in values else each for name, each in parameters.items()
        }

    def _written(self, title: str) -> Finding:
        return self._write(title, evidence_of(self._outcomes, self._model_policy, self._tokens))

    def _query(self, wanted: QueryAggregates, policy: Policy, _: Step) -> ActionResult:
        limits = limits_of(policy, "query_aggregates", QueryLimits)
        query = self._ground.query(wanted.sql, policy)
        seconds = min(limits.seconds, self._deadline.left)
        return self._actions.query_aggregates(query, wanted.values, limits, seconds)

    def _look_up(self, wanted: Parameters, _: Policy, __: Step) -> ActionResult:
        return self._actions.look_up(wanted)

    def _replay(self, wanted: ReplayPreview, policy: Policy, _: Step) -> ActionResult:
        return self._actions.replay_preview(wanted, limits_of(policy, "replay_preview", ReplayLimits))

    def _post(self, wanted: PostFinding, _: Policy, __: Step) -> ActionResult:
        self.finding = self._written(wanted.title)
        return self._actions.post_finding(self.finding)

    def _job(self, wanted: RunJob, policy: Policy, step: Step) -> ActionResult:
        token = hashlib.sha256(f"{self._run_id}\n{step.id}".encode()).hexdigest()
        limits = limits_of(policy, "run_job", JobLimits)
        return self._actions.run_job(wanted.notebook, wanted.parameters, limits, token)

    def _notify(self, wanted: Notify, policy: Policy, _: Step) -> ActionResult:
        targets = limits_of(policy, "notify", NotifyLimits).targets
        return self._actions.notify(targets[wanted.target], wanted.message)


Doing = Callable[[Executor, Any, Policy, Step], ActionResult]
_DO: Mapping[type[Parameters], Doing] = {
    QueryAggregates: Executor._query,
    ReplayPreview: Executor._replay,
    PostFinding: Executor._post,
    RunJob: Executor._job,
    Notify: Executor._notify,
}


def _value(result: ActionResult, shown: ActionResult, reference: Reference, step: Step) -> str:
    """Return what a reference stands for, of what is shown of a result."""
    path = ".".join(reference.path)
    if path not in result.values():
        raise Refused(Refusal("plan.references", f"{reference.step} has no value {path!r}", step.id))
    if path not in shown.values():
        raise Refused(
            Refusal("allowedFields", f"{reference.step}.{path} may not leave by {step.action}", step.id)
        )
    return str(shown.values()[path])
