"""Draws an evaluation: precision against recall, alerts per day, and how far stated frequencies hold.

Matplotlib is loaded by the functions that draw, so that a live agent never pays for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from schemas.counts import count_of
from schemas.errors import ConfigurationError
from streaming.arrays.compilation import Flags, Floats
from streaming.labels.judged_rows import JudgedRows
from streaming.learning import protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TOLERANCE = 0.1
_LEVELS = 60
_DAYS_NAMED_ONE_BY_ONE = 14
_HEADROOM = 0.3


def write_plots(
    rows: JudgedRows, folder: Path, alerts_per_day: int, flagged: Flags | None = None
) -> list[Path]:
    """Write precision_recall.png, alerts_per_day.png and calibration.png.

    Args:
        rows: what is judged, with calibrated scores in [0, 1].
        folder: made when it is not there; files of these names are replaced.
        alerts_per_day: the budget, rows a day.
        flagged: bool[n], the rows that raised an alert. Without it, those above the one cut that keeps the
            budget over the whole time, which shows how the volume would drift.

    Returns:
        The three files.

    Raises:
        ConfigurationError: there is no row or no fraud, the budget is not positive, a score is not in [0, 1],
            or `flagged` has another length.
    """
    shown = flag_at_one_cut(rows, alerts_per_day) if flagged is None else flagged
    if len(shown) != len(rows):
        raise ConfigurationError(f"flagged has {count_of(len(shown), 'row')}, expected {len(rows)}")
    plots = {
        "precision_recall.png": _precision_recall(rows, alerts_per_day),
        "alerts_per_day.png": _alerts_per_day(rows, alerts_per_day, shown),
        "calibration.png": _calibration(rows.scores),
    }
    folder.mkdir(parents=True, exist_ok=True)
    return [_save(figure, folder / name) for name, figure in plots.items()]


def flag_at_one_cut(rows: JudgedRows, alerts_per_day: int) -> Flags:
    """Flag the highest-scoring rows of the whole time, as many as the budget allows, bool[n].

    Rows that share the lowest flagged score are all left out where they would break the budget.

    Raises:
        ConfigurationError: there is no row, or the budget is not positive.
    """
    if not len(rows) or alerts_per_day < 1:
        raise ConfigurationError("a budget needs rows and at least one alert a day")
    allowed = alerts_per_day * len(np.unique(rows.days))
    if allowed >= len(rows):
        return np.ones(len(rows), dtype=np.bool_)
    first_left_out = np.partition(rows.scores, -allowed - 1)[-allowed - 1]
    return np.asarray(rows.scores > first_left_out)


def observed_shares(scores: Floats, stated: Floats) -> Floats:
    """Return the share of rows that score at least 1 - `stated`, float64[levels].

    A calibrated score of 0.99 says that one row in a hundred scores that high: `stated` is that 0.01.

    Raises:
        ConfigurationError: there is no row, or a score is not in [0, 1].
    """
    if not len(scores) or scores.min() < 0.0 or scores.max() > 1.0:
        raise ConfigurationError("calibration needs rows with scores in [0, 1]")
    return np.searchsorted(np.sort(1.0 - scores), stated, side="right") / len(scores)


def _precision_recall(rows: JudgedRows, alerts_per_day: int) -> Figure:
    from sklearn.metrics import precision_recall_curve  # noqa: PLC0415 -- a live agent must not pay for it

    average = protocol.average_precision(rows.labels, rows.scores)
    budget = protocol.precision_recall_at_budget(rows, alerts_per_day)
    precision, recall, _ = precision_recall_curve(rows.labels, rows.scores)
    figure, axes = _sheet(f"Precision and recall (average precision {average:.3f})", "recall", "precision")
    axes.step(recall, precision, where="post", label="all cuts")
    axes.axhline(rows.labels.mean(), color="grey", linestyle=":", label="share of frauds (chance)")
    axes.plot(budget.recall, budget.precision, "o", color="black", label=f"best {alerts_per_day} of each day")
    axes.set(xlim=(0.0, 1.0), ylim=(0.0, 1.02))
    axes.legend(loc="best")
    return figure


def _alerts_per_day(rows: JudgedRows, alerts_per_day: int, flagged: Flags) -> Figure:
    first = rows.days.min()
    dates = np.arange(first, rows.days.max() + 1).astype("datetime64[D]")
    alerts = np.bincount(rows.days[flagged] - first, minlength=len(dates))
    frauds = np.bincount(rows.days[flagged & rows.labels] - first, minlength=len(dates))
    figure, axes = _sheet(f"Alerts per day ({alerts.mean():.1f} on average)", "day (UTC)", "alerts per day")
    axes.bar(dates, frauds, label="frauds", color="tab:red")
    axes.bar(dates, alerts - frauds, bottom=frauds, label="false alarms", color="tab:blue")
    axes.axhline(alerts_per_day, color="black", linestyle="--", label=f"budget ({alerts_per_day} a day)")
    if len(dates) <= _DAYS_NAMED_ONE_BY_ONE:
        axes.set_xticks(dates, [str(day)[5:] for day in dates])
        axes.set_xlabel(f"day from {dates[0]} (UTC, month-day)")
    axes.tick_params(axis="x", rotation=30)
    axes.margins(y=_HEADROOM)
    axes.legend(loc="best")
    return figure


def _calibration(scores: Floats) -> Figure:
    stated = np.geomspace(1.0 / max(len(scores), 1), 1.0, _LEVELS)
    observed = observed_shares(scores, stated)
    reached = observed > 0.0
    figure, axes = _sheet(
        "Calibration", "stated tail frequency (1 - score)", "observed share of rows scoring that high"
    )
    axes.fill_between(
        stated,
        stated * (1.0 - TOLERANCE),
        stated * (1.0 + TOLERANCE),
        alpha=0.2,
        label=f"within {TOLERANCE:.0%}",
    )
    axes.plot(stated, stated, color="grey", linestyle=":", label="exact")
    axes.plot(
        stated[reached], observed[reached], marker=".", label=f"observed ({count_of(len(scores), 'row')})"
    )
    axes.set(xscale="log", yscale="log")
    axes.legend(loc="best")
    return figure


def _sheet(title: str, across: str, up: str) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 -- as above
    from matplotlib.figure import Figure  # noqa: PLC0415 -- as above

    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(title=title, xlabel=across, ylabel=up)
    axes.grid(visible=True, alpha=0.3)
    axes.set_axisbelow(True)
    return figure, axes


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=120, format="png")
    return path
