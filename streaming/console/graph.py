"""Where the marks of a graph of neighbours lie: an entity in the middle, whom it paid with around."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agent.triage.untrusted_text import escaped
from streaming.serve.entity_pages import EntityNeighbour

_WIDTH, _ROW, _MARGIN = 640.0, 30.0, 24.0
_REACH, _SHARE = 120.0, 0.86
_THINNEST, _THICKEST = 1.0, 7.0
_MOST_LETTERS = 16


@dataclass(frozen=True)
class DrawnNeighbour:
    """A neighbour in the graph.

    Attributes:
        of: whom it shows.
        text: its id, cut to what there is room for, with what is invisible written out.
        x: of its circle.
        y: of its circle.
        width: of the line to it, by payments in common.
        on_left: whether its text stands at the left of it.
    """

    of: EntityNeighbour
    text: str
    x: float
    y: float
    width: float
    on_left: bool


@dataclass(frozen=True)
class Graph:
    """Neighbours around an entity.

    Attributes:
        neighbours: around it.
        text: the entity's own id, as those of the neighbours.
        width: of the picture.
        height: of it.
    """

    neighbours: Sequence[DrawnNeighbour]
    text: str
    width: float
    height: float


def neighbours_graph(entity_id: str, neighbours: Sequence[EntityNeighbour], *, kinds: int) -> Graph:
    """Return where the neighbours lie, half of them at each side, each side from top to bottom.

    Args:
        entity_id: of the one in the middle.
        neighbours: in the order in which they are drawn.
        kinds: how many kinds there are of them: of several, each says its own.
    """
    right, left = neighbours[: (len(neighbours) + 1) // 2], neighbours[(len(neighbours) + 1) // 2 :]
    height = max(160.0, len(right) * _ROW + 2 * _MARGIN)
    most = max((each.payments for each in neighbours), default=1)
    drawn = []
    for side, on_left in ((right, False), (left, True)):
        for place, each in enumerate(side):
            x, y = _place(place, len(side), height, on_left=on_left)
            width = _THINNEST + (_THICKEST - _THINNEST) * math.sqrt(each.payments / most)
            text = short(f"{each.kind} {each.id}" if kinds > 1 else each.id)
            place_of = (round(x, 1), round(y, 1), round(width, 1))
            drawn.append(DrawnNeighbour(each, text, *place_of, on_left))
    return Graph(drawn, short(entity_id), _WIDTH, height)


def short(text: str) -> str:
    """Return a text as far as a graph has room for it."""
    shown = escaped(text[:_MOST_LETTERS])
    return shown if len(shown) == len(text) else f"{shown[: _MOST_LETTERS - 1]}…"


def _place(place: int, count: int, height: float, *, on_left: bool) -> tuple[float, float]:
    """Rows lie evenly from top to bottom, so that no text runs into another; together they are an ellipse."""
    level = _SHARE * (2 * (place + 0.5) / count - 1)
    across = _REACH * math.sqrt(1 - level**2)
    return _WIDTH / 2 + (-across if on_left else across), height / 2 * (1 + level)
