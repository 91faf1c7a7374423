"""The wanted paths of an event as a tree that follows a schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from schemas.event_paths import steps_of

_Path = tuple[tuple[str | int, ...], int, bool]


@dataclass(frozen=True)
class Wanted:
    """What is wanted of one value.

    Attributes:
        number: of the path that ends here, None for none.
        as_time: that path is of the event time alone.
        below: what is wanted of the values within, by key or place.
    """

    number: int | None = None
    as_time: bool = False
    below: Mapping[str | int, Wanted] = field(default_factory=dict)


def wanted_tree(paths: Sequence[str], times: Sequence[str]) -> Wanted:
    """Return the tree of different paths; the number of a path is its place among them.

    Args:
        paths: in the value.
        times: those of the event time alone.
    """
    return _tree([(steps_of(path), number, path in times) for number, path in enumerate(paths)])


def _tree(paths: Sequence[_Path]) -> Wanted:
    number, as_time = next(((each[1], each[2]) for each in paths if not each[0]), (None, False))
    below: dict[str | int, list[_Path]] = {}
    for steps, place, time in paths:
        if steps:
            below.setdefault(steps[0], []).append((steps[1:], place, time))
    return Wanted(number, as_time, {step: _tree(inner) for step, inner in below.items()})
