"""A run of the planning agent: from a goal to a plan that is checked and carried out, and to a finding."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from agent.audit.events import AuditLog
from agent.model.model_client import ModelClient
from agent.planning.curated import curated_views
from agent.planning.executing import Deadline, Executor, Outcome
from agent.planning.finding import Evidence, Finding, plain_finding, restored
from agent.planning.plan_policy import Ground, check_plan
from agent.planning.planning import Planner
from agent.planning.plans import Plan, Step
from agent.planning.refusals import Refused, refused
from agent.planning.run_audit import RunAudit
from agent.triage.pseudonyms import Pseudonyms, TokenBook
from agent.triage.triage import POLICIES
from schemas.errors import ConfigurationError
from schemas.instants import Clock, utc_now
from schemas.policy import ENTITIES, load_policy
from schemas.spec import AgentSpec
from streaming.actions.agent_report import RunReport
from streaming.actions.findings import FindingFacts
from streaming.actions.lake_actions import LakeActions
from streaming.definition.agent_definition import AgentDefinition
from streaming.home.placed_agent import PlacedAgent
from streaming.home.pseudonym_key import pseudonym_key

PLAN_TOKENS = 1024


_ID_CHARACTERS = 32


_TITLE_CHARACTERS = 80


@dataclass(frozen=True)
class RunOrder:
    """What somebody wants of the agent.

    Attributes:
        goal: in their words.
        plan: their own plan, None to have the model make one.
        dry_run: whether to stop once a plan was checked.
        name: of the run; one with a name of its own starts no job and posts no finding a second time.
    """

    goal: str
    plan: Plan | None = None
    dry_run: bool = False
    name: str | None = None

    @property
    def run_id(self) -> str:
        """32 hex digits: of the name, else random ones."""
        return secrets.token_hex(16) if self.name is None else _digest(self.name)


def read_goal(goal: str) -> str:
    """Return a goal that a person has given.

    Raises:
        ConfigurationError: there is none, or it is no text.
    """
    if not goal.strip():
        raise ConfigurationError("say what you want to know", where="--goal")
    if any("\ud800" <= each <= "\udfff" for each in goal):
        raise ConfigurationError("not valid UTF-8", where="--goal")
    return goal


def for_planning(spec: AgentSpec) -> AgentSpec:
    """Return a spec whose model may answer at the length of a plan."""
    llm = spec.llm.model_copy(update={"max_output_tokens": max(spec.llm.max_output_tokens, PLAN_TOKENS)})
    return spec.model_copy(update={"llm": llm})


def run_agent(
    agent: PlacedAgent,
    order: RunOrder,
    client: ModelClient | None,
    open_log: Callable[[], AuditLog],
    *,
    now: Clock = utc_now,
    clock: Callable[[], float] = time.monotonic,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> RunReport:
    """Do what somebody wants, as far as the spec's policy lets it be done.

    Args:
        agent: its spec names lake, policy and model; folders and keys are of the settings.
        order: what is wanted.
        client: the model; without one the order must hold a plan.
        open_log: opens the record of every plan, refusal, action and outcome, once the input is known good.
        now: the current time, timezone-aware.
        clock: monotonic seconds.
        on_outcome: called with what became of each step.

    Raises:
        ConfigurationError: contract or policy cannot be read, or there is neither a model nor a plan.
    """
    if client is None and order.plan is None:
        raise ConfigurationError(
            "no model is in use (llm.provider: none), so nobody can plan: hand in a plan", where="--plan"
        )
    return _AgentRun(agent, order, client, open_log, now, clock).carried_out(on_outcome)


class _AgentRun:
    def __init__(
        self,
        agent: PlacedAgent,
        order: RunOrder,
        client: ModelClient | None,
        open_log: Callable[[], AuditLog],
        now: Clock,
        clock: Callable[[], float],
    ) -> None:
        self._agent, self._order, self._client, self._now = agent, order, client, now
        definition = AgentDefinition.of(agent.spec)
        self._contract, self._policy = definition.contract, definition.policy
        self._run_id = order.run_id
        self._audit = RunAudit(open_log(), self._run_id, secrets.token_hex(16), self._policy)
        self._deadline = Deadline.after(self._policy.budgets.seconds, clock)
        self._ground = Ground(
            agent.settings.home,
            # Policies name the lake by this path, also where it lies in a store.
            agent.settings.lake_at_home(agent.name),
            self._contract.entity_names,
            curated_views(self._contract),
        )
        self._tokens = TokenBook(Pseudonyms(pseudonym_key(agent.settings)))
        self._goal = self._tokens.goal(order.goal, self._kinds())
        self._planner: Planner | None = None

    def carried_out(self, on_outcome: Callable[[Outcome], None]) -> RunReport:
        try:
            plan = self._plan()
        except Refused as fault:
            return self._report(refusals=tuple(map(str, fault.refusals)))
        self._audit.record(
            "policy_decision", self._run_id, decision="allowed", plan_digest=plan.digest,
            policy_digest=self._policy.digest, step=len(plan.steps),
            mode="dry_run" if self._order.dry_run else "run",
        )  # fmt: skip
        return self._report(plan=plan) if self._order.dry_run else self._executed(plan, on_outcome)

    def _plan(self) -> Plan:
        if not self._policy.auditLogging:
            raise self._refused("auditLogging", "actions run only under a policy that has them audited")
        if self._client is not None:
            self._planner = self._new_planner(self._client)
        if self._order.plan is None:
            assert self._planner is not None, "run_agent has checked it"
            return self._planner.plan(self._goal)
        found = check_plan(self._order.plan, self._policy, self._ground)
        self._audit.refused(found, plan_digest=self._order.plan.digest)
        if found:
            raise Refused(*found)
        return self._order.plan

    def _new_planner(self, client: ModelClient) -> Planner:
        tokens = for_planning(self._agent.spec).llm.max_output_tokens
        try:
            return Planner(client, self._policy, self._ground, self._audit, self._deadline, tokens, self._now)
        except Refused as fault:
            self._audit.refused(fault.refusals, model=client.model)
            raise

    def _refused(self, rule: str, detail: str) -> Refused:
        fault = refused(rule, detail)
        self._audit.refused(fault.refusals)
        return fault

    def _executed(self, plan: Plan, on_outcome: Callable[[Outcome], None]) -> RunReport:
        ground = replace(self._ground, by_model=self._order.plan is None)
        executor = Executor(
            self._run_id, lambda: load_policy(self._agent.spec.policy, POLICIES), ground,
            self._actions(plan), self._audit, self._deadline, partial(self._write, plan.steps), self._tokens,
            model_policy=None if self._planner is None else self._policy,
        )  # fmt: skip
        outcomes = []
        for outcome in executor.run(plan):
            outcomes.append(outcome)
            on_outcome(outcome)
        problems = tuple(each.problem for each in outcomes if each.problem is not None)
        if problems:
            return self._report(plan=plan, outcomes=tuple(outcomes), problems=problems)
        finding = executor.conclude(self._order.goal[:_TITLE_CHARACTERS])
        problems = tuple(f"finding: {problem}" for problem in finding.problems)
        self._audit.record(
            "action", "finding", action="finding", outcome="valid" if finding.valid else "not_valid",
            model=finding.written_by,
        )  # fmt: skip
        return self._report(plan=plan, outcomes=tuple(outcomes), finding=finding, problems=problems)

    def _actions(self, plan: Plan) -> LakeActions:
        facts = FindingFacts(self._run_id, self._order.goal, self._policy.policyName, plan.digest)
        return LakeActions(self._agent, self._contract, self._ground.views, facts, self._now)

    def _write(self, steps: Sequence[Step], title: str, evidence: Evidence) -> Finding:
        if self._planner is not None:
            try:
                return restored(self._planner.finding(self._goal, evidence), self._tokens)
            except Refused as fault:  # the results stand, whoever puts them into words
                self._audit.refused(fault.refusals, scope="finding")
        return restored(plain_finding(title, evidence, steps), self._tokens)

    def _kinds(self) -> list[str]:
        """Return the kinds of entities whose ids leave as tokens alone, if at all."""
        names = self._contract.entity_names
        return [name for name in names if self._policy.as_token(ENTITIES + name)]

    def _report(
        self,
        plan: Plan | None = None,
        refusals: tuple[str, ...] = (),
        outcomes: tuple[Outcome, ...] = (),
        finding: Finding | None = None,
        problems: tuple[str, ...] = (),
    ) -> RunReport:
        model = None if self._client is None else self._client.model
        return RunReport(
            self._run_id, self._order.goal, self._policy.policyName, model, self._order.dry_run, plan,
            refusals, outcomes, finding, problems,
        )  # fmt: skip


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_CHARACTERS]
