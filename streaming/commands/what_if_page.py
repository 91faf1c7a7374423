"""A what-if report as one HTML page with its plots inside; it refers to nothing outside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from schemas.counts import count_of
from streaming.commands.html_page import document, paragraph, table
from streaming.commands.html_plots import axes_of, bars, svg
from streaming.commands.what_if_view import CHANGES, answering_lines, changed, matrix, sides, summary
from streaming.history.what_if_found import Changes, Flips, WhatIf
from streaming.history.what_if_report import cold_text
from streaming.output.terminal import html_text

_PAIR = ("published", "candidate")


def page(found: WhatIf) -> str:
    """Return the report; whatever comes from transactions is escaped."""
    parts = [
        f"<h1>{html_text(found.candidate)} on {html_text(str(found.span))}</h1>",
        paragraph(
            f"{count_of(found.transactions, 'transaction')} over {found.days:.2f} days, "
            f"{count_of(found.known_frauds, 'known fraud')}. {summary(found)}."
        ),
        "" if found.cold_from is None else paragraph(f"{cold_text(found.cold_from)}."),
        table(("", *_PAIR), sides(found)),
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
        *(paragraph(f"{line}.") for line in answering_lines(found)),
    ]
    return document(f"what if {found.candidate}", parts)


def _changes(name: str, of: Mapping[str, Changes]) -> str:
    return table((name, *CHANGES), ((each, *changed(changes)) for each, changes in of.items()))


def _flips(name: str, flips: Flips) -> str:
    columns, rows = matrix(flips)
    title = f"<h2>{html_text(name.replace('_', ' ').capitalize())}: published ↓ candidate →</h2>"
    counted = table(("", *columns), ((old, *counts) for old, counts in rows))
    return title + (_heat(columns, rows) if rows else "") + counted


def _per_day(found: WhatIf) -> str:
    figure, axes = axes_of(3)
    days = list(found.per_day)
    for place, (name, side) in enumerate(zip(_PAIR, (found.published, found.replayed), strict=True)):
        (line,) = axes.plot(days, [found.per_day[day][place] for day in days], marker="o", label=name)
        if side.budget is not None:
            axes.axhline(side.budget, color=line.get_color(), linestyle=":", label=f"asked for, {name}")
    axes.set_ylabel("alerts")
    axes.tick_params(axis="x", labelrotation=60)
    axes.legend()
    return svg(figure)


def _by_reason(found: WhatIf) -> str:
    names = list(dict.fromkeys([*found.published.by_reason, *found.replayed.by_reason]))
    counts = [[side.by_reason.get(name, 0) for name in names] for side in (found.published, found.replayed)]
    return bars(names, dict(zip(_PAIR, counts, strict=True)), "alerts")


def _by_entity(of: Mapping[str, Changes]) -> str:
    counts = zip(*map(changed, of.values()), strict=True)
    return bars(list(of), dict(zip(CHANGES, map(list, counts), strict=False)), "alerts changed")


def _heat(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[int]]]) -> str:
    counts = np.array([values for _, values in rows])
    figure, axes = axes_of(1.5 + 0.35 * len(rows))
    shades = np.log1p(counts)
    # Light enough for the numbers in it.
    axes.imshow(shades, cmap="Blues", aspect="auto", vmin=0, vmax=1.6 * shades.max() + 1)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row, str(count), ha="center", va="center", color="black")
    axes.set_xticks(range(len(columns)), list(columns), rotation=20)
    axes.set_yticks(range(len(rows)), [old for old, _ in rows])
    axes.set_xlabel("candidate")
    axes.set_ylabel("published")
    return svg(figure)
