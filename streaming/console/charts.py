"""Where the marks of a chart lie; templates draw them as SVG, colours are the style's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from streaming.serve.alert_details import DrawnPayment

WIDTH, HEIGHT = 640.0, 200.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 14.0, 14.0, 24.0
BAR_WIDTH = 300.0
DAYS_WIDTH, DAYS_HEIGHT = 140.0, 28.0


@dataclass(frozen=True)
class Bar:
    """A part of the log-odds, from where the parts before it have come to.

    Attributes:
        text: what it is.
        value: in nats.
        x: left end, in units of the chart.
        width: in units of the chart.
    """

    text: str
    value: float
    x: float
    width: float


@dataclass(frozen=True)
class DayBar:
    """A day's count in a small chart; a day without any has a bar without height."""

    day: date
    count: int
    x: float
    width: float
    height: float


@dataclass(frozen=True)
class Dot:
    """A payment in a plot of amounts over time."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Plot:
    """Amounts over time, on a logarithmic scale.

    Attributes:
        dots: payments.
        marked: alerted ones.
        ticks: amounts, each with its height.
        first: the earliest moment.
        last: the latest one.
    """

    dots: Sequence[Dot]
    marked: Sequence[Dot]
    ticks: Sequence[tuple[str, float]]
    first: datetime
    last: datetime


def contribution_bars(alert: Mapping[str, Any]) -> list[Bar]:
    """Return how base and contributions add up to the log-odds, the largest first."""
    reasons = sorted(alert["reasons"] or (), key=lambda each: -abs(each["contribution"]))
    parts = [("what any payment has", alert["base"])]
    parts += [(each["text"], each["contribution"]) for each in reasons]
    ends = [0.0]
    for _, value in parts:
        ends.append(ends[-1] + value)
    low, high = min(ends), max(ends)
    scale = BAR_WIDTH / ((high - low) or 1.0)
    return [
        Bar(text, value, (min(begin, begin + value) - low) * scale, max(1.5, abs(value) * scale))
        for (text, value), begin in zip(parts, ends, strict=False)
    ]


def day_bars(days: Sequence[date], counts: Sequence[int]) -> list[DayBar]:
    """Return a bar for each day; the highest fills the chart."""
    most, step = max(counts, default=0) or 1, DAYS_WIDTH / max(len(days), 1)
    return [
        DayBar(day, count, round(at * step, 2), round(step * 0.8, 2), round(count / most * DAYS_HEIGHT, 2))
        for at, (day, count) in enumerate(zip(days, counts, strict=True))
    ]


def payments_plot(history: Sequence[DrawnPayment], alert: Mapping[str, Any]) -> Plot:
    """Return the payments before an alerted one, and that one."""
    at = datetime.fromisoformat(alert["event_time"])
    return amounts_plot([*((each.time, each.amount, False) for each in history), (at, alert["amount"], True)])


def amounts_plot(payments: Sequence[tuple[datetime, float, bool]]) -> Plot:
    """Return payments over time.

    Args:
        payments: at least one: time, amount, and whether it was alerted.
    """
    times, amounts = [each[0] for each in payments], [max(each[1], 0.01) for each in payments]
    first, last = min(times), max(times)
    low, high = math.floor(math.log10(min(amounts))), math.ceil(math.log10(max(amounts) * 1.0001))
    high = max(high, low + 1)
    seconds = (last - first).total_seconds() or 1.0

    def dot(time: datetime, amount: float) -> Dot:
        x = _LEFT + (time - first).total_seconds() / seconds * (WIDTH - _LEFT - _RIGHT)
        return Dot(round(x, 1), round(_height(amount, low, high), 1), f"{amount:,.2f}, {time:%Y-%m-%d %H:%M}")

    def dots(*, alerted: bool) -> list[Dot]:
        return [
            dot(time, each)
            for time, each, of in zip(times, amounts, payments, strict=True)
            if of[2] is alerted
        ]

    ticks = [
        (f"{10.0**power:,g}", round(_height(10.0**power, low, high), 1)) for power in range(low, high + 1)
    ]
    return Plot(dots(alerted=False), dots(alerted=True), ticks, first, last)


def _height(amount: float, low: int, high: int) -> float:
    share = (math.log10(amount) - low) / (high - low)
    return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)
