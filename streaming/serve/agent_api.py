"""The endpoint of the planning agent: from a goal, or a plan, to results and a finding."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from agent.audit.events import AuditLog
from agent.planning.plans import Plan
from schemas.loading import parse_document
from streaming.actions.agent_run import RunOrder, for_planning, read_goal, run_agent
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.observe.watching import watching_run
from streaming.serve.calls import Call, needs
from streaming.versions.clients import model_client

agent_router = APIRouter(prefix="/agent", tags=["agent"])


class AgentOrder(BaseModel):
    """What somebody wants of the planning agent."""

    model_config = ConfigDict(extra="forbid")

    goal: str = Field(max_length=2_000, description="in their words")
    plan: dict[str, Any] | None = Field(default=None, description="their own; the model makes one if absent")
    dry_run: bool = Field(default=False, description="check the plan, and run nothing")
    name: str | None = Field(
        default=None, min_length=1, max_length=200,
        description="of a run that may be repeated: it starts no job and posts no finding twice",
    )  # fmt: skip


class AgentRunReport(BaseModel):
    """What became of a run."""

    ok: bool
    run_id: str
    goal: str
    policy: str
    model: str | None
    dry_run: bool
    plan: dict[str, Any] | None
    refusals: list[str] = Field(description="why it was refused as a whole, by the rule")
    steps: list[dict[str, Any]]
    problems: list[str]
    finding: dict[str, Any] | None


@agent_router.post("/run")
def run_planning_agent(call: Annotated[Call, needs("operate")], order: AgentOrder) -> AgentRunReport:
    """Plan how to reach a goal, check the plan against the spec's policy, carry it out, write a finding."""
    agent, spec = call.agent.placed, call.agent.spec
    plan = None if order.plan is None else parse_document(order.plan, Plan, where="plan")
    wanted = RunOrder(read_goal(order.goal), plan, order.dry_run, order.name or secrets.token_hex(16))

    def open_log() -> AuditLog:
        return watched.audit(LakeAudit(AuditPlaces(agent), spec.replay_horizon))

    with (
        watching_run(agent, wanted.run_id) as watched,
        model_client(agent.with_spec(for_planning(spec)), call.agent.llm, watched.calls) as client,
    ):
        report = run_agent(agent, wanted, client, open_log)
    call.rows = len(report.outcomes)
    return AgentRunReport(**report.facts())
