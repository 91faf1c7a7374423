"""A what-if report as one HTML page with its plots inside; it refers to nothing outside itself."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agent.triage.untrusted_text import escaped
from schemas.counts import count_of
from streaming.commands.what_if_view import CHANGES, answering_lines, changed, matrix, sides, summary
from streaming.history.what_if_report import Changes, Flips, WhatIf, cold_text
from streaming.output.terminal import html_text

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.25rem .6rem;"
    "text-align:right}td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}"
)
_PAIR = ("published", "candidate")


def page(found: WhatIf) -> str:
    """Return the report; whatever comes from transactions is escaped."""
    parts = [
        f"<h1>{html_text(found.candidate)} on {html_text(str(found.span))}</h1>",
        _paragraph(
            f"{count_of(found.transactions, 'transaction')} over {found.days:.2f} days, "
            f"{count_of(found.known_frauds, 'known fraud')}. {summary(found)}."
        ),
        "" if found.cold_from is None else _paragraph(f"{cold_text(found.cold_from)}."),
        _table(("", *_PAIR), sides(found)),
        "<h2>Alerts per day</h2>",
        _per_day(found),
        "<h2>Why</h2>",
        _by_reason(found),
        _changes("reason", found.reasons),
        *(_flips(name, flips) for name, flips in found.flips.items()),
        "<h2>Entities with the most changes</h2>",
        _by_entity(found.entities),
        _changes("entity", found.entities),
        "<h2>The model's answers</h2>",
        *(_paragraph(f"{line}.") for line in answering_lines(found)),
    ]
    title = html_text(f"what if {found.candidate}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _paragraph(text: str) -> str:
    return f"<p>{html_text(text)}</p>"


def _changes(name: str, of: Mapping[str, Changes]) -> str:
    return _table((name, *CHANGES), ((each, *changed(changes)) for each, changes in of.items()))


def _flips(name: str, flips: Flips) -> str:
    columns, rows = matrix(flips)
    title = f"<h2>{html_text(name.replace('_', ' ').capitalize())}: published ↓ candidate →</h2>"
    table = _table(("", *columns), ((old, *counts) for old, counts in rows))
    return title + (_heat(columns, rows) if rows else "") + table


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    top = "".join(f"<th>{html_text(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _cell(value: object) -> str:
    return f"<td>{'-' if value is None else html_text(str(value))}</td>"


def _per_day(found: WhatIf) -> str:
    figure, axes = _axes(3)
    days = list(found.per_day)
    for place, (name, side) in enumerate(zip(_PAIR, (found.published, found.replayed), strict=True)):
        (line,) = axes.plot(days, [found.per_day[day][place] for day in days], marker="o", label=name)
        if side.budget is not None:
            axes.axhline(side.budget, color=line.get_color(), linestyle=":", label=f"asked for, {name}")
    axes.set_ylabel("alerts")
    axes.tick_params(axis="x", labelrotation=60)
    axes.legend()
    return _svg(figure)


def _by_reason(found: WhatIf) -> str:
    names = list(dict.fromkeys([*found.published.by_reason, *found.replayed.by_reason]))
    counts = [[side.by_reason.get(name, 0) for name in names] for side in (found.published, found.replayed)]
    return _bars(names, dict(zip(_PAIR, counts, strict=True)), "alerts")


def _by_entity(of: Mapping[str, Changes]) -> str:
    counts = zip(*map(changed, of.values()), strict=True)
    return _bars(list(of), dict(zip(CHANGES, map(list, counts), strict=False)), "alerts changed")


def _bars(names: Sequence[str], series: Mapping[str, Sequence[int]], label: str) -> str:
    """Draw a group of horizontal bars for each name, the first at the top."""
    if not names:
        return ""
    figure, axes = _axes(1 + 0.35 * len(names))
    places, width = np.arange(len(names)), 0.8 / max(len(series), 1)
    for number, (name, values) in enumerate(series.items()):
        axes.barh(places + (number - (len(series) - 1) / 2) * width, values, width, label=name)
    # Names come from specs and transactions: a dollar sign in one is no formula.
    axes.set_yticks(places, [escaped(name).replace("$", r"\$") for name in names])
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.legend()
    return _svg(figure)


def _heat(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[int]]]) -> str:
    counts = np.array([values for _, values in rows])
    figure, axes = _axes(1.5 + 0.35 * len(rows))
    shades = np.log1p(counts)
    # Light enough for the numbers in it.
    axes.imshow(shades, cmap="Blues", aspect="auto", vmin=0, vmax=1.6 * shades.max() + 1)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row, str(count), ha="center", va="center", color="black")
    axes.set_xticks(range(len(columns)), list(columns), rotation=20)
    axes.set_yticks(range(len(rows)), [old for old, _ in rows])
    axes.set_xlabel("candidate")
    axes.set_ylabel("published")
    return _svg(figure)


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure) -> str:
    drawn = io.StringIO()
    # Named parts, not random ones: the same report is the same page.
    with mpl.rc_context({"svg.hashsalt": "flagstream"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue().partition("<svg")[1] + drawn.getvalue().partition("<svg")[2]
