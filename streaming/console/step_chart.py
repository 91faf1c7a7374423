"""Where the bars of a chart of seconds by step lie: one column for each batch, its steps upon one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from streaming.serve.system_figures import BatchFigures

STEP_WIDTH, STEP_HEIGHT = 640.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 4.0, 10.0, 22.0
_MOST_PITCH = 40.0
_TICKS = 4


@dataclass(frozen=True)
class StepPart:
    """A step of one batch.

    Attributes:
        number: of the step, from 0, which its colour goes by.
        x, y, width, height: in units of the chart.
        title: what it is, with its seconds.
    """

    number: int
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class StepShare:
    """A step over all batches of the chart: mean seconds, and its share of all."""

    number: int
    step: str
    seconds: float
    share: float


@dataclass(frozen=True)
class StepChart:
    """Seconds by step of the newest batches, the newest at the right.

    Attributes:
        parts: of all columns.
        ticks: seconds, each with its height.
        steps: for the legend.
    """

    parts: Sequence[StepPart]
    ticks: Sequence[tuple[str, float]]
    steps: Sequence[StepShare]


def step_chart(batches: Sequence[BatchFigures]) -> StepChart | None:
    """Return the chart; None where no batch says what its steps took."""
    names = list(dict.fromkeys(step for each in batches for step in each.seconds))
    total = max((sum(each.seconds.values()) for each in batches), default=0.0)
    if total <= 0:
        return None
    tick = _tick(total)
    scale = (STEP_HEIGHT - _TOP - _BOTTOM) / (math.ceil(total / tick) * tick)
    pitch = min((STEP_WIDTH - _LEFT - _RIGHT) / len(batches), _MOST_PITCH)
    parts = [
        part
        for place, each in enumerate(batches)
        for part in _column(each, names, _LEFT + place * pitch, pitch * 0.8, scale)
    ]
    ticks = [
        (f"{number * tick:g} s", round(STEP_HEIGHT - _BOTTOM - number * tick * scale, 1))
        for number in range(math.ceil(total / tick) + 1)
    ]
    return StepChart(parts, ticks, _shares(batches, names))


def _column(
    batch: BatchFigures, names: Sequence[str], x: float, width: float, scale: float
) -> list[StepPart]:
    parts, y = [], STEP_HEIGHT - _BOTTOM
    for step, seconds in batch.seconds.items():
        height = seconds * scale
        y -= height
        title = f"{step} {seconds:.3f} s, batch closed {batch.closed_at:%Y-%m-%d %H:%M:%S}"
        place = (round(x, 1), round(y, 2), round(width, 1), round(height, 2))
        parts.append(StepPart(names.index(step), *place, title))
    return parts


def _shares(batches: Sequence[BatchFigures], names: Sequence[str]) -> list[StepShare]:
    sums = [sum(each.seconds.get(step, 0.0) for each in batches) for step in names]
    whole = sum(sums)
    return [
        StepShare(number, step, spent / len(batches), spent / whole)
        for number, (step, spent) in enumerate(zip(names, sums, strict=True))
    ]


def _tick(total: float) -> float:
    """Return the step of 1, 2 or 5 times a power of ten of which a few make the whole."""
    rough = total / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(each * power for each in (1.0, 2.0, 5.0, 10.0) if each * power >= rough)
