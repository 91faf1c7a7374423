"""Endpoints about rules and the score: what they raise, how often they are right, and what they miss."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from schemas.errors import ConfigurationError
from schemas.rules import Rule
from schemas.spec import AgentSpec
from streaming.serve.calls import Call, needs
from streaming.serve.known_frauds import Recall
from streaming.serve.rule_figures import (
    LEAST_JUDGED,
    DaySpan,
    RuleFigures,
    RuleTally,
    ThresholdStep,
    span_of,
)
from streaming.serve.rules_in_force import RulesInForce, rules_in_force
from streaming.serve.what_ifs_api import jobs_of

rules_router = APIRouter(prefix="/v1/rules", tags=["rules"])
Reading = Annotated[Call, needs("read")]
Days = Annotated[int, Query(ge=1, le=366, description="Days of event time, in UTC.")]
Until = Annotated[
    date | None, Query(description="The last of them; that of the newest transaction if absent.")
]

_SCORED = ("score", "threshold", "reason")
_FIRST, _LAST = date(1971, 1, 1), date(9000, 1, 1)


class RuleTable(BaseModel):
    """What each rule of the version in force has raised, and the score."""

    version: str = Field(description="of the spec in force")
    decided_at: datetime | None = Field(
        description="when a batch was closed last under these rules; null where none was as yet, and the "
        "rules are those that their file holds now"
    )
    threshold: float | None = Field(description="null where a budget moves it")
    alerts_per_day: float | None = Field(description="the budget; null where the threshold is fixed")
    since: date
    until: date = Field(description="inclusive")
    days: list[date]
    days_with_payments: int = Field(description="of these days, by which `steps` are divided")
    least_judged: int = Field(description="labels that a share needs")
    score: RuleFigures = Field(description="alerts that no rule has hit")
    rules: list[RuleFigures] = Field(
        description="those in force in the order of the spec, then those that no longer are and had alerts"
    )
    steps: list[ThresholdStep] = Field(
        description="what higher thresholds would leave of the alerts by the score, by what is on record"
    )


@rules_router.get("")
def list_rules(call: Reading, days: Days = 14, until: Until = None) -> RuleTable:
    """Show alerts a day, precision and money of each rule of the version in force, and of the score."""
    return rule_table(call, rules_in_force(call.agent), chosen_span(call, days, until))


def rule_table(call: Call, found: RulesInForce, span: DaySpan) -> RuleTable:
    """Return what rules in force and the score have raised over a span."""
    spec = found.spec
    tally = RuleTally(call.agent.inbox.view, span)
    paid = call.agent.frauds.days_with_payments(span)
    return RuleTable(
        version=spec.version,
        decided_at=found.decided_at,
        threshold=spec.threshold if spec.alerts_per_day is None else None,
        alerts_per_day=spec.alerts_per_day,
        since=span.since,
        until=span.until,
        days=span.days,
        least_judged=LEAST_JUDGED,
        score=tally.of_score(),
        rules=_figures(tally, {each.name: each for each in spec.rules}),
        days_with_payments=paid,
        steps=tally.steps(paid),
    )


@rules_router.get("/recall")
def show_recall(call: Reading, days: Days = 14, until: Until = None) -> Recall:
    """Show which of the frauds that labels know were caught, by which rule, and why others were missed."""
    return recall_of(call, call.agent.in_force(), chosen_span(call, days, until))


def recall_of(call: Call, spec: AgentSpec, span: DaySpan) -> Recall:
    """Return which frauds of a span were caught under the spec in force."""
    return call.agent.frauds.recall(call.agent.inbox.view, span, spec, _scored(call, spec.digest))


def chosen_span(call: Call, days: int, until: date | None) -> DaySpan:
    """Return the days that are meant.

    Raises:
        ConfigurationError: their end is no day of payments.
    """
    if until is None:
        return span_of(call.agent.frauds.newest_day(), days)
    if not _FIRST <= until <= _LAST:
        raise ConfigurationError(f"expected a day from {_FIRST} to {_LAST}", where="until")
    return span_of(until, days)


def _figures(tally: RuleTally, rules: dict[str, Rule]) -> list[RuleFigures]:
    names = [*rules, *(each for each in tally.named() if each not in rules)]
    return [tally.of_rule(each, rules.get(each)) for each in names]


def _scored(call: Call, in_force: str) -> dict[str, dict[str, Any]]:
    """Return what what-ifs have found of missed frauds under the version in force; the newest counts.

    Profiles that were not warmed up by all of history give other scores than those of that day.
    """
    found: dict[str, dict[str, Any]] = {}
    for report in _unchanged(call, in_force):
        missed = report["missed"]
        found |= {each: {"why": "since_changed"} for each in missed["newly_caught"]}
        found |= {
            each["transaction_id"]: {name: each[name] for name in _SCORED} for each in missed["largest"]
        }
    return found


def _unchanged(call: Call, in_force: str) -> list[dict[str, Any]]:
    """Return the reports of what-ifs that have decided as the version in force does, oldest first."""
    return [
        job.report
        for job in reversed(jobs_of(call).all())
        if job.report is not None
        and not job.asked["differences"]
        and job.asked["in_force"] == in_force
        and job.asked["order"]["warm_up"] is None
        and job.report["cold_from"] is None
    ]
