"""What became of a run of the planning agent, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby

from agent.planning.executing import Outcome
from agent.planning.finding import Finding
from agent.triage.untrusted_text import escaped
from streaming.actions.agent_report import RunReport
from streaming.output.tables import show_table, show_text
from streaming.output.terminal import Terminal


def show_report(report: RunReport, console: Terminal) -> None:
    """Print the plan with what became of each step, the rows that were found, and the finding."""
    if report.plan is not None:
        title = "checked, nothing was run" if report.dry_run else ""
        show_table(console, ("step", "action", "parameters", "outcome"), _steps(report), title)
    for outcome in report.outcomes:
        if outcome.result.rows:
            console.print()
            _show_rows(outcome, console)
    if report.finding is not None:
        console.print()
        show_text(console, "\n".join(map(escaped, finding_lines(report.finding))))


def finding_lines(finding: Finding) -> Iterator[str]:
    """Yield a finding's title, its sentences with the numbers of what they cite, and below what that is."""
    numbers = {path: place for place, path in enumerate(_cited(finding), start=1)}
    yield f"{finding.title} (by {finding.written_by}{'' if finding.valid else ', NOT VALID'})"
    for claim in finding.claims:
        yield f"- {claim.text} {_ranges([numbers[path] for path in claim.evidence])}"
    for path, number in numbers.items():
        value = finding.cited.get(path, "nothing: no result holds it")
        yield f"[{number}] {path} = {shown_value(value)}"


def shown_value(value: object) -> str:
    """Return a value of a result for people."""
    return f"{value:.6g}" if isinstance(value, float) else "-" if value is None else str(value)


def _steps(report: RunReport) -> Iterator[tuple[str, str, str, str | None]]:
    assert report.plan is not None
    done = {outcome.step.id: outcome for outcome in report.outcomes}
    for step in report.plan.steps:
        outcome = done.get(step.id)
        shown = None if outcome is None else _outcome(outcome)
        yield step.id, step.action, json.dumps(dict(step.parameters)), shown


def _outcome(outcome: Outcome) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in outcome.result.facts.items())
    return f"{outcome.status} {facts}"


def _show_rows(outcome: Outcome, console: Terminal) -> None:
    names = list(outcome.result.rows[0])
    rows = ([shown_value(row.get(name)) for name in names] for row in outcome.result.rows)
    show_table(console, names, rows, outcome.step.id)


def _cited(finding: Finding) -> list[str]:
    return list(dict.fromkeys(path for claim in finding.claims for path in claim.evidence))


def _ranges(numbers: Sequence[int]) -> str:
    """Return `[1-3, 7]` of 1, 2, 3 and 7."""
    runs = []
    for _, run in groupby(enumerate(sorted(set(numbers))), lambda each: each[1] - each[0]):
        members = [number for _, number in run]
        runs.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    return f"[{', '.join(runs)}]"
