"""Paths to values in an event.

`amount` names a key of the event, `card.token` a key below a key, `items[0].sku` a place in an array.
"""

from __future__ import annotations

import re

_INDEXED = re.compile(r"(?s)(.*?)((?:\[[0-9]{1,9}\])+)")


def steps_of(path: str) -> tuple[str | int, ...]:
    """Return the keys and indexes of a path, outermost first."""
    steps: list[str | int] = []
    for part in path.split("."):
        found = _INDEXED.fullmatch(part)
        if found is None:
            steps.append(part)
            continue
        steps += [found[1]] if found[1] else []
        steps += [int(each) for each in found[2][1:-1].split("][")]
    return tuple(steps)
