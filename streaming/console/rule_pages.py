"""The page of rules: what each raises, how often it is right, what is missed, and a form to try an edit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from markupsafe import escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from schemas.rules import Rule
from streaming.console.charts import DayBar, day_bars
from streaming.console.rendering import PageRoute, link, page
from streaming.inbox.filter_language import quoted
from streaming.serve.calls import Call, needs
from streaming.serve.known_frauds import Recall
from streaming.serve.rule_figures import RuleFigures, ThresholdStep
from streaming.serve.rules_api import RuleTable, chosen_span, recall_of, rule_table
from streaming.serve.rules_in_force import rules_in_force
from streaming.serve.what_ifs_api import list_what_ifs

rule_router = APIRouter(prefix="/console/rules", route_class=PageRoute, include_in_schema=False)
Reading = Annotated[Call, needs("read")]
_SPANS = (7, 14, 30, 90)
_FORMER = 5
MOST_MISSED = 50


@dataclass(frozen=True)
class RuleRow:
    """A rule as the page shows it.

    Attributes:
        figures: as the API has them.
        bars: its alerts of each day.
        href: of its alerts in the inbox.
        caught: known frauds that it has caught.
    """

    figures: RuleFigures
    bars: Sequence[DayBar]
    href: str
    caught: int


@dataclass(frozen=True)
class EditedRule:
    """A rule as the form has it.

    Attributes:
        content: as the API takes it.
    """

    rule: Rule
    content: dict[str, Any]

    @property
    def fields(self) -> dict[str, str]:
        """What can be edited, by where it stands: the conditions, and how far apart two events may be."""
        pattern = self.rule.pattern
        if pattern is None:
            return self.rule.conditions
        form = "absence" if self.rule.absence is not None else "sequence"
        return {**self.rule.conditions, f"{form}.within": self.content[form]["within"]}


@rule_router.get("", response_class=HTMLResponse)
def show_rules_page(
    request: Request,
    call: Reading,
    days: Annotated[int, Query(ge=1, le=366)] = 14,
    until: Annotated[date | None, Query()] = None,
    threshold: Annotated[float | None, Query(gt=0, lt=1)] = None,
    alerts_per_day: Annotated[float | None, Query(gt=0)] = None,
) -> Response:
    """Show the rules of the version in force and the score; the last two fill in the form."""
    found, span = rules_in_force(call.agent), chosen_span(call, days, until)
    table, recall = rule_table(call, found, span), recall_of(call, found.registered, span)
    edited = [EditedRule(each, each.model_dump(mode="json")) for each in found.spec.rules]
    rows = [_row(call, table, each, recall) for each in (table.score, *table.rules)]
    return page(
        request, "rules.html", call=call, table=table, recall=recall, rows=rows, spans=_SPANS, until=until,
        edited=edited, most_missed=MOST_MISSED,
        rules_json=escape(json.dumps([each.content for each in edited])),
        tried={"threshold": threshold, "alerts_per_day": alerts_per_day},
        advice=advice_of(table.steps), former=list_what_ifs(call)[:_FORMER],
    )  # fmt: skip


def advice_of(steps: Sequence[ThresholdStep]) -> ThresholdStep | None:
    """Return the highest threshold that loses no labelled fraud, where labels say enough."""
    free = [each for each in steps if not each.frauds_lost and each.labels.precision is not None]
    return max(free, key=lambda each: each.threshold, default=None)


def _row(call: Call, table: RuleTable, figures: RuleFigures, recall: Recall) -> RuleRow:
    name = figures.name
    return RuleRow(
        figures,
        day_bars(table.days, figures.per_day),
        link(call, "/console/alerts", {"filter": _filter(table, figures.name)}),
        recall.caught_by_score if name is None else recall.caught_by.get(name, 0),
    )


def _filter(table: RuleTable, name: str | None) -> str:
    span = f"time >= {table.since} and time < {table.until + timedelta(days=1)}"
    return f"rule = {quoted(name or '')} and {span}"
