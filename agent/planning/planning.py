"""Asks the model: for a plan, and at the end for the finding. Once more after a refusal, then never again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.model.chat_request import schema_in_words
from agent.model.model_client import Completion, Failure, ModelClient, Question, is_down
from agent.model.prompt_files import Messages, Wording, load_wording
from agent.planning.curated import shown_under
from agent.planning.executing import Deadline
from agent.planning.finding import FORMAT_RULE, Evidence, Finding, checked, finding_schema, parsed_draft
from agent.planning.plan_policy import Ground, check_plan
from agent.planning.plans import Plan, catalogue_notes, parsed_plan, plan_schema
from agent.planning.refusals import Refused, refused
from agent.planning.run_audit import RunAudit
from agent.triage.disclosure import canonical_json
from schemas.instants import Clock
from schemas.llm import PromptReference
from schemas.policy import Policy

_ATTEMPTS = 2
_CHARACTERS_PER_TOKEN = 3
_TOKENS_PER_STEP = 160  # so that no plan is cut off by the limit on output
_PLAN = (frozenset({"actions", "views", "entities", "steps"}), frozenset({"goal", "now", "refusal"}))
_FINDING: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset({"goal", "evidence", "refusal"}))
_NO_REFUSAL = "none"


# What the system and the user part of the prompts of an agent run hold, by prompt.
PLACEHOLDERS = {"plan": _PLAN, "finding": _FINDING}


@dataclass(frozen=True)
class Wordings:
    """The prompts in use."""

    plan: Wording
    finding: Wording

    @classmethod
    def load(cls) -> Wordings:
        """Load the shipped ones."""
        return cls(
            load_wording(PromptReference(id="plan", version=1), *_PLAN),
            load_wording(PromptReference(id="finding", version=1), *_FINDING),
        )


class Planner:
    """Has a model plan and write, within the budgets of one run.

    Args:
        client: the model; while it does not answer, its fallbacks are asked.
        policy: which models may be asked, and how many tokens a run may use.
        ground: what plans are about.
        audit: receives every question.
        deadline: of the whole run.
        output_tokens: most tokens of one answer, as the client asks for.
        now: the current time, part of the prompt.

    Raises:
        Refused: the policy does not allow the model.
    """

    def __init__(
        self,
        client: ModelClient,
        policy: Policy,
        ground: Ground,
        audit: RunAudit,
        deadline: Deadline,
        output_tokens: int,
        now: Clock,
    ) -> None:
        if not policy.allows_model(client.model):
            raise refused("allowedModels", f"{client.model!r} may not be asked")
        fallbacks = (each for each in client.fallbacks if policy.allows_model(each.model))
        self._clients, self._asked = (client, *fallbacks), client
        self._policy, self._ground, self._audit = policy, ground, audit
        self._deadline, self._output_tokens, self._now = deadline, output_tokens, now
        self._wordings, self._tokens = Wordings.load(), policy.budgets.tokens

    def plan(self, goal: str) -> Plan:
        """Have a plan made that the policy allows.

        Raises:
            Refused: neither the first plan nor the one after its refusal may run, or a budget is used up.
        """
        refusal = _NO_REFUSAL
        for _ in range(_ATTEMPTS):
            try:
                return self._planned(goal, refusal)
            except Refused as fault:
                self._audit.refused(fault.refusals, scope="plan")
                last, refusal = fault, str(fault)
        raise last

    def finding(self, goal: str, evidence: Evidence) -> Finding:
        """Have the finding written.

        Returns:
            A finding; one with problems when what it cites does not hold the second time, either.

        Raises:
            Refused: there is no answer, or a budget is used up.
        """
        try:
            finding = self._written(goal, evidence, _NO_REFUSAL)
        except Refused as fault:
            if fault.refusals[0].rule != FORMAT_RULE:
                raise
            return self._written(goal, evidence, str(fault))
        return finding if finding.valid else self._written(goal, evidence, "; ".join(finding.problems))

    def _planned(self, goal: str, refusal: str) -> Plan:
        wording, policy = self._wordings.plan, self._policy
        views = shown_under(self._ground.views, policy)
        steps = min(policy.budgets.steps, self._output_tokens // _TOKENS_PER_STEP)
        system = wording.system.substitute(
            actions=catalogue_notes(policy),
            views="\n".join(f"- {views[name].notes()}" for name in policy.dataAccess.tables),
            entities=", ".join(self._ground.entities),
            steps=steps,
        )
        user = {"goal": goal, "now": f"{self._now():%Y-%m-%dT%H:%M}", "refusal": refusal}
        schema = plan_schema(policy, self._ground.entities, steps)
        plan = parsed_plan(self._ask(wording, system, user, schema))
        found = check_plan(plan, policy, replace(self._ground, by_model=True))
        if found:
            raise Refused(*found)
        return plan

    def _written(self, goal: str, evidence: Evidence, refusal: str) -> Finding:
        if not evidence:
            raise refused("finding.evidence", "there are no results that the model may see")
        wording = self._wordings.finding
        user = {"goal": goal, "evidence": dict(evidence), "refusal": refusal}
        text = self._ask(wording, wording.system.substitute(), user, finding_schema(evidence))
        return checked(parsed_draft(text), evidence, goal, self._asked.model)

    def _ask(self, wording: Wording, system: str, user: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
        """Ask the first model that answers; who that was is kept for the finding."""
        messages = Messages(
            system, wording.user.substitute({name: _data(each) for name, each in user.items()})
        )
        for client in self._clients:
            self._asked = client
            reply = self._put(wording, messages, schema)
            if not is_down(reply):
                break
        if isinstance(reply, Failure):
            raise refused("model", f"no answer: {reply.reason}")
        return reply.text

    def _put(self, wording: Wording, messages: Messages, schema: Mapping[str, Any]) -> Completion | Failure:
        content = f"{messages.system}\n{messages.user}"
        most = self._most_tokens(content, schema)
        self._check_budgets(most)
        question = Question(
            messages, schema, self._output_tokens, most, lambda tokens: most + tokens <= self._tokens
        )
        (reply,) = self._asked.ask([question], self._deadline.left)
        self._tokens -= (reply.input_tokens + reply.output_tokens) or (0 if is_down(reply) else most)
        self._record(wording, content, reply)
        return reply

    def _most_tokens(self, content: str, schema: Mapping[str, Any]) -> int:
        surcharge = self._asked.surcharge
        words = content + (schema_in_words(schema) if surcharge.schema_in_prompt else "")
        return len(words) // _CHARACTERS_PER_TOKEN + self._output_tokens + surcharge.thinking_tokens

    def _check_budgets(self, tokens: int) -> None:
        if tokens > self._tokens:
            raise refused("budgets.tokens", f"a question needs up to {tokens}, {self._tokens} are left")
        if self._deadline.left <= 0:
            raise refused("budgets.seconds", f"{self._policy.budgets.seconds:g} s are over")

    def _record(self, wording: Wording, content: str, reply: Completion | Failure) -> None:
        self._audit.record(
            "model_call",
            self._asked.model,
            model=self._asked.model,
            prompt=f"{wording.id}/v{wording.version}",
            question=hashlib.sha256(content.encode()).hexdigest(),
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
            outcome=reply.reason if isinstance(reply, Failure) else "answered",
        )


def _data(value: Any) -> str:
    """Write a value as JSON that no text in it can leave."""
    return canonical_json(value)
