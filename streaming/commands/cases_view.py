"""Cases on a terminal: ids and comments come from outside, and steer nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from schemas.counts import count_of
from streaming.cases.book import CasePage
from streaming.cases.case_check import PartCheck
from streaming.cases.choosing import CaseState
from streaming.output.tables import show_block, show_table, show_text
from streaming.output.terminal import Terminal

_SHOWN_ALERTS = 20
_SAID = ("text", "reason", "assignee", "other", "name", "alerts")


def show_cases(page: CasePage, console: Terminal) -> None:
    """Print cases, a line each, and how many there are in all."""
    heads = ("case", "severity", "about", "alerts", "status", "due (UTC)", "who")
    rows = (
        (each.case_id, each.severity, _about(each), each.alerts, each.status, _due(each), each.assignee)
        for each in page.cases
    )
    show_table(console, heads, rows)
    if page.after is not None:
        show_text(console, f"{count_of(page.total, 'case')} in all; --after {page.after} goes on")


def show_one(
    case: CaseState, alerts: pl.DataFrame, timeline: Sequence[Mapping[str, Any]], console: Terminal
) -> None:
    """Print a case, its alerts, and what has happened to it."""
    show_block(console, {name: _shown(value) for name, value in case.document.items() if value is not None})
    heads = ("alert", "transaction", "event (UTC)", "severity", "amount", "currency")
    columns = ["alert_id", "transaction_id", "event_time", "severity", "amount", "currency"]
    rows = [[_shown(each) for each in row] for row in alerts.select(columns).tail(_SHOWN_ALERTS).iter_rows()]
    console.print()
    show_table(console, heads, rows, _title(alerts.height))
    console.print()
    events = ((_shown(each["at"]), _event(each), each.get("who"), _said(each)) for each in timeline)
    show_table(console, ("at (UTC)", "event", "who", "what"), events)


def show_checks(checks: Sequence[PartCheck], console: Terminal) -> None:
    """Print what a check has found of each part."""
    rows = ((each.part, each.items, each.state, each.gone, each.further, each.later) for each in checks)
    show_table(console, ("part", "items", "state", "gone", "further", "later"), rows)


def _title(alerts: int) -> str:
    some = f", the newest {_SHOWN_ALERTS}" if alerts > _SHOWN_ALERTS else ""
    return f"{count_of(alerts, 'alert')}{some}"


def _about(case: CaseState) -> str:
    return f"{case.entity}={case.entity_id}" if case.entity else f"{case.kind} {case.rule}"


def _due(case: CaseState) -> str | None:
    if case.deadline is None:
        return None
    return f"{case.deadline:%m-%d %H:%M}{' !' if case.overdue else ''}"


def _event(entry: Mapping[str, Any]) -> str:
    return f"{entry['event']}, undone" if entry.get("undone") else str(entry["event"])


def _said(entry: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name}: {entry[name]}" if name != "text" else str(entry[name]) for name in _SAID if name in entry
    )


def _shown(value: Any) -> Any:
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else value
