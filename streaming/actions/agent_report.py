"""What became of a run of the planning agent, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from agent.planning.executing import Outcome
from agent.planning.finding import Finding
from agent.planning.plans import Plan
from agent.triage.untrusted_text import escaped
from streaming.output.terminal import Terminal


@dataclass(frozen=True)
class RunReport:
    """What became of a run.

    Attributes:
        refusals: why it was refused as a whole.
        problems: why it stopped, or what in its finding does not hold.
    """

    run_id: str
    goal: str
    policy: str
    model: str | None
    dry_run: bool
    plan: Plan | None = None
    refusals: tuple[str, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    finding: Finding | None = None
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything was done, and the finding cites what is there."""
        return not self.refusals and not self.problems

    def facts(self) -> dict[str, Any]:
        """Return it JSON-serialisable."""
        return {
            "ok": self.ok,
            "run_id": self.run_id,
            "goal": self.goal,
            "policy": self.policy,
            "model": self.model,
            "dry_run": self.dry_run,
            "plan": None if self.plan is None else self.plan.model_dump(mode="json"),
            "refusals": list(self.refusals),
            "steps": [outcome.plain() for outcome in self.outcomes],
            "problems": list(self.problems),
            "finding": None if self.finding is None else self.finding.plain(),
        }


def show_report(report: RunReport, console: Terminal) -> None:
    """Print what became of a run for people."""
    if report.plan is not None:
        console.print(_plan_table(report))
    for outcome in report.outcomes:
        if outcome.result.rows:
            console.print(_rows_table(outcome))
    if report.finding is not None:
        _show_finding(report.finding, console)


def _plan_table(report: RunReport) -> Table:
    assert report.plan is not None
    told = {outcome.step.id: outcome for outcome in report.outcomes}
    table = Table(
        "step",
        "action",
        "parameters",
        "outcome",
        title="checked, nothing was run" if report.dry_run else None,
    )
    for step in report.plan.steps:
        outcome = told.get(step.id)
        facts = (
            ""
            if outcome is None
            else ", ".join(f"{key} {value}" for key, value in outcome.result.facts.items())
        )
        status = "-" if outcome is None else escaped(f"{outcome.status} {facts}")
        table.add_row(step.id, step.action, json.dumps(dict(step.parameters)), status)
    return table


def _rows_table(outcome: Outcome) -> Table:
    names = list(outcome.result.rows[0])
    table = Table(*names, title=outcome.step.id)
    for row in outcome.result.rows:
        table.add_row(*(_shown(row.get(name)) for name in names))
    return table


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "-" if value is None else escaped(str(value))


def _show_finding(finding: Finding, console: Terminal) -> None:
    title = f"{finding.title} (by {finding.written_by}{'' if finding.valid else ', NOT VALID'})"
    lines = [title, *(_told(claim.text, claim.evidence) for claim in finding.claims)]
    console.print("\n".join(map(escaped, lines)), soft_wrap=True)


def _told(text: str, evidence: Sequence[str]) -> str:
    return f"- {text} [{', '.join(evidence)}]"
