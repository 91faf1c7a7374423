"""A what-if report as one HTML page."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from html import escape

from matplotlib.figure import Figure

from streaming.history.what_if import WhatIf, cold_text

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.25rem .6rem;"
    "text-align:right}td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}"
)
_FIGURES = ("alerts", "alerts_per_day", "judged", "frauds", "precision", "recall")


def page(found: WhatIf) -> str:
    """Return the report; whatever comes from transactions is escaped."""
    parts = [
        f"<h1>{escape(found.candidate)} on {escape(str(found.span))}</h1>",
        f"<p>{found.transactions} transactions over {found.days:.2f} days, {found.known_frauds} known "
        f"frauds. {found.added} alerts added, {found.removed} removed, {found.kept} kept; "
        f"{found.unanswered} without a model's answer.</p>",
        "" if found.cold_from is None else f"<p>{escape(cold_text(found.cold_from))}.</p>",
        _table(("", "published", "candidate"), _sides(found)),
        "<h2>Alerts per day</h2>",
        _plot(found),
        *(_flips(name, flips) for name, flips in found.flips.items()),
        "<h2>Entities with the most changes</h2>",
        _table(("entity", "added", "removed"), ((name, *pair) for name, pair in found.entities.items())),
    ]
    title = escape(f"what if {found.candidate}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _sides(found: WhatIf) -> Iterable[Sequence[object]]:
    for name in _FIGURES:
        yield name.replace("_", " "), getattr(found.published, name), getattr(found.replayed, name)
    for name in dict.fromkeys([*found.published.by_reason, *found.replayed.by_reason]):
        yield f"by {name}", found.published.by_reason.get(name, 0), found.replayed.by_reason.get(name, 0)


def _flips(name: str, flips: dict[str, dict[str, int]]) -> str:
    columns = list(dict.fromkeys(new for row in flips.values() for new in row))
    rows = ((old, *(row.get(new, 0) for new in columns)) for old, row in flips.items())
    return f"<h2>{name.capitalize()} of the alerts on both sides</h2>" + _table(
        ("published ↓ candidate →", *columns), rows
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _cell(value: object) -> str:
    return f"<td>{'-' if value is None else escape(str(value))}</td>"


def _plot(found: WhatIf) -> str:
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    days = list(found.per_day)
    for place, name in enumerate(("published", "candidate")):
        axes.plot(days, [found.per_day[day][place] for day in days], marker="o", label=name)
    axes.set_ylabel("alerts")
    axes.tick_params(axis="x", labelrotation=60)
    axes.legend()
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue().partition("<svg")[1] + drawn.getvalue().partition("<svg")[2]
