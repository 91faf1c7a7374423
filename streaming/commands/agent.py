"""`flagstream agent run`: from a goal to a plan that is checked and carried out, and a finding in writing."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

from agent.audit.events import AuditLog
from agent.planning.plans import load_plan
from streaming.actions.agent_run import RunOrder, for_planning, read_goal, run_agent
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.commands.agent_view import show_report
from streaming.home.placed_agent import PlacedAgent
from streaming.observe.watching import watching_run
from streaming.output.terminal import Terminal, print_json, say_error
from streaming.versions.clients import model_client


def carry_out(agent: PlacedAgent, order: RunOrder, llm: str, *, as_json: bool) -> bool:
    """Do what somebody wants and print what became of it; return whether everything was done.

    Args:
        llm: see streaming.versions.clients.

    Raises:
        ConfigurationError: see run_agent.
    """

    def open_log() -> AuditLog:
        return watched.audit(LakeAudit(AuditPlaces(agent), agent.spec.replay_horizon))

    order = replace(order, name=order.name or secrets.token_hex(16))
    with (
        watching_run(agent, order.run_id) as watched,
        model_client(agent.with_spec(for_planning(agent.spec)), llm, watched.calls) as client,
    ):
        report = run_agent(agent, order, client, open_log)
    print_json(report.facts()) if as_json else show_report(report, Terminal())
    for problem in (*report.refusals, *report.problems):
        say_error(f"flagstream: {problem}")
    return report.ok


def read_order(goal: str, plan: Path | None, dry_run: bool, name: str | None) -> RunOrder:
    """Read what the command line was given.

    Raises:
        ConfigurationError: there is no goal, or the plan cannot be read.
    """
    return RunOrder(read_goal(goal), None if plan is None else load_plan(plan), dry_run, name)
