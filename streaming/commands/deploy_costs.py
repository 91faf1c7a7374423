"""What a deployment is expected to cost, in words."""

from __future__ import annotations

from typing import Any

from streaming.databricks.costs import JobCost, month_usd
from streaming.history.forecast import Forecast
from streaming.output.tables import show_table, show_text
from streaming.output.terminal import Terminal


def estimate(costs: list[JobCost], tokens: Forecast, price: float | None) -> dict[str, Any]:
    """Return what jobs and tokens cost a month, in USD, None where a price is missing.

    Args:
        price: of a node, USD an hour; None where none is named.
    """
    month = month_usd(costs, tokens)
    return {
        "usd_per_month": None if month is None else round(month, 2),
        "usd_per_hour": price,
        "llm_usd_per_day": tokens.llm_usd_per_day,
        "events_per_second": tokens.rate,
        "jobs": [vars(each) for each in costs],
    }


def show_estimate(costs: list[JobCost], tokens: Forecast, price: float | None) -> None:
    """Print the same; see estimate."""
    console = Terminal()
    usd = [None if price is None else f"{each.usd:,.2f}" for each in costs]
    rows = [(each.job, f"{each.hours:,.0f}", cost, each.basis) for each, cost in zip(costs, usd, strict=True)]
    show_table(console, ("job", "hours a month", "USD", "from"), rows)
    month = month_usd(costs, tokens)
    total = "an unknown sum of USD a month" if month is None else f"about {month:,.2f} USD a month"
    nodes = (
        "nodes: --compute-price names no price yet" if price is None else f"nodes at {price:g} USD an hour"
    )
    show_text(console, f"{total}: {nodes}; {_tokens_in_words(tokens)}")
    console.print()


def _tokens_in_words(tokens: Forecast) -> str:
    if tokens.llm_usd_per_day is None:
        return f"tokens: llm.prices of the spec has no price of {tokens.model}"
    return f"tokens {tokens.llm_usd_per_day * 30:,.2f} where events a second are {tokens.rate:g}"
