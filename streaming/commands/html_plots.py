"""Plots that stand inside an HTML page, as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agent.triage.untrusted_text import escaped


def bars(names: Sequence[str], series: Mapping[str, Sequence[int]], label: str) -> str:
    """Draw a group of horizontal bars for each name, the first at the top."""
    if not names:
        return ""
    figure, axes = axes_of(1 + 0.35 * len(names))
    places, width = np.arange(len(names)), 0.8 / max(len(series), 1)
    for number, (name, values) in enumerate(series.items()):
        axes.barh(places + (number - (len(series) - 1) / 2) * width, values, width, label=name)
    # Names come from specs and transactions: a dollar sign in one is no formula.
    axes.set_yticks(places, [escaped(name).replace("$", r"\$") for name in names])
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.legend()
    return svg(figure)


def axes_of(height: float) -> tuple[Figure, Axes]:
    """Return a figure of so many inches, and its axes."""
    figure = Figure(figsize=(8, height), layout="constrained")
    return figure, figure.subplots()


def svg(figure: Figure) -> str:
    """Return a figure as it stands in a page."""
    drawn = io.StringIO()
    # Named parts, not random ones: the same report is the same page.
    with mpl.rc_context({"svg.hashsalt": "flagstream"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue().partition("<svg")[1] + drawn.getvalue().partition("<svg")[2]
