"""What became of a run of the planning agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent.planning.executing import Outcome
from agent.planning.finding import Finding
from agent.planning.plans import Plan


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
