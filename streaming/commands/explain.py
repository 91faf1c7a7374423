"""`flagstream explain`: one alert, taken apart for people."""

from __future__ import annotations

from typing import Any

import polars as pl

from schemas.event_columns import DIRECTION, REFUND
from streaming.audit.access import record_read
from streaming.commands.known_agents import check_known
from streaming.definition.agent_definition import AgentDefinition
from streaming.history.explain import Explanation, explain
from streaming.home.placed_agent import PlacedAgent
from streaming.output.tables import show_table, show_text
from streaming.output.terminal import Terminal, print_json

_SECONDS_PER_DAY = 86_400.0
_MOST_DRAWN = 1e15  # labels of an axis have no room for more
_TWO_FIGURES = (
    'What a reason calls "usual" is another figure, the one the score was made with: a mean in which a '
    "payment counts for less the older it is, with at most three times what was usual then, and which leans "
    "towards what is usual for all while there are few."
)
_PLOT_COLUMNS, _PLOT_ROWS = 72, 12


def explain_alert(agent: PlacedAgent, wanted: str, *, as_json: bool) -> None:
    """Print why an alert was raised.

    Raises:
        ConfigurationError: no alert, or several, fit `wanted`; see also check_known.
    """
    check_known(agent)
    contract = AgentDefinition.of(agent.spec).contract
    found = explain(agent, wanted, contract.primary_entity)
    record_read(agent, "explain", [agent.spec.tables.alerts, agent.spec.tables.transactions])
    print_json(found.plain(), default=str) if as_json else show(found, Terminal())


def show(found: Explanation, console: Terminal) -> None:
    """Print an explanation for people."""
    alert = found.alert
    show_text(
        console,
        f"{alert['alert_id']}  {alert['severity']}  {alert['classification']} "
        f"({alert['classification_source']})\n"
        f"{_refund(alert)}{alert['amount']:.2f} {alert['currency']} "
        f"at {alert['event_time']:%Y-%m-%d %H:%M:%S} UTC, "
        f"transaction {alert['transaction_id']}\n{alert['rationale']}{_rules(alert)}\n",
    )
    _show_parts(found, console)
    _show_normals(found, console)
    _show_payments(found, console)
    if found.history.height > 1:
        console.print(plot(found.history, alert))


def plot(history: pl.DataFrame, alert: dict[str, Any]) -> str:
    """Draw amounts over days before the alert, the alerted payment marked, as text."""
    import plotext  # noqa: PLC0415 -- loaded only to draw

    days = (history["event_time"] - alert["event_time"]).dt.total_seconds() / _SECONDS_PER_DAY
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(_PLOT_COLUMNS, _PLOT_ROWS)
    plotext.scatter(days.to_list(), history["amount"].clip(upper_bound=_MOST_DRAWN).to_list(), marker="•")
    plotext.scatter([0.0], [min(alert["amount"], _MOST_DRAWN)], marker="X")
    plotext.title("amount by days before the alert (X)")
    return str(plotext.uncolorize(plotext.build()))  # it resets colours that were never set


def _refund(alert: dict[str, Any]) -> str:
    return "refund of " if alert.get(DIRECTION) == REFUND else ""


def _rules(alert: dict[str, Any]) -> str:
    texts = alert.get("rule_texts") or []
    lines = [f"\nrule {name}: {text}" for name, text in zip(alert["rules"], texts, strict=False)]
    if alert.get("passed_by") is not None:
        lines.append(f"\ncertain as of the transaction with sequence {alert['passed_by']}")
    return "".join(lines)


def _show_parts(found: Explanation, console: Terminal) -> None:
    alert = found.alert
    reasons = ((each["name"], f"{each['contribution']:+.4f}", each["text"]) for each in alert["reasons"])
    rows = [
        ("base", f"{alert['base']:+.4f}", "a transaction without any evidence"),
        *reasons,
        ("sum", f"{alert['log_odds']:+.4f}", "exact" if found.adds_up else "DOES NOT ADD UP"),
    ]
    title = f"score {alert['score']:.5f}: log-odds and where they come from"
    show_table(console, ("part", "log-odds", "why"), rows, title)
    console.print()


def _show_normals(found: Explanation, console: Terminal) -> None:
    heads = ("entity", "id", "payments before", "median of all", "largest", "median days between")
    rows = []
    for each in found.normal:
        figures = (each.median_amount, each.largest_amount, each.median_days_between)
        shown = [None if figure is None else f"{figure:.2f}" for figure in figures]
        rows.append((each.kind, each.entity, each.payments, *shown))
    show_table(console, heads, rows, "what is normal, by all payments on record before, each counted alike")
    show_text(console, _TWO_FIGURES)
    console.print()


def _show_payments(found: Explanation, console: Terminal) -> None:
    rows = (
        (
            row["transaction_id"],
            f"{row['event_time']:%Y-%m-%d %H:%M}",
            f"{row['amount']:.2f} {row['currency']}",
        )
        for row in found.nearest
    )
    show_table(console, ("transaction", "when (UTC)", "amount"), rows, "nearest past payments")
    console.print()
